"""The shapes of encoders (BERT's layout) and encoder-decoders (T5's): one dataclass each, with exact counts. Imports no torch.

Both are built on transformers' classes and exist for other objectives than next tokens; the decoders have a file of their own.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

from caslon.errors import UserError
from caslon.model.size import ParameterCounts

EncoderFamily = Literal["bert", "t5"]
EncoderPreset = Literal["bert-mini", "t5-mini"]
ENCODER_FAMILIES: tuple[EncoderFamily, ...] = get_args(EncoderFamily)
ASPECT_RATIO = 64  # width per layer, as of decoders
HEAD_DIM = 64
SEGMENTS = 2  # BERT's two parts of a row
RELATIVE_BUCKETS, RELATIVE_DISTANCE = 32, 128  # of T5, arXiv:1910.10683
MASKED_SHARE = 0.15  # of the tokens that pass through the head

ENCODER_PRESETS: Mapping[EncoderPreset, Mapping[str, Any]] = {
    "bert-mini": {
        "family": "bert", "num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024,
        "max_position_embeddings": 512,
    },
    "t5-mini": {
        "family": "t5", "num_hidden_layers": 4, "hidden_size": 256, "num_attention_heads": 4, "head_dim": 64,
        "intermediate_size": 1024, "max_position_embeddings": 512,
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What an encoder of BERT's layout is made of; names are Hugging Face's."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    dropout: float = 0.0
    next_sentence: bool = False  # whether it has a second head, which says whether two parts of a row belong together

    family: ClassVar[EncoderFamily] = "bert"
    architecture: ClassVar[str] = "encoder"

    def __post_init__(self) -> None:
        _check_positive(self)
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"{self.num_attention_heads} heads do not divide the width {self.hidden_size}",
                fix="set num_attention_heads to a number that does",
            )

    @property
    def head_dim(self) -> int:
        """The width of a head."""
        return self.hidden_size // self.num_attention_heads

    def counts(self) -> ParameterCounts:
        """Return the exact counts of `BertForMaskedLM`, or of `BertForPreTraining` with the next-sentence head."""
        width, inner, layers = self.hidden_size, self.intermediate_size, self.num_hidden_layers
        norm = 2 * width
        second_head = (width * width + 2 * width, width + 2) if self.next_sentence else (0, 0)  # pooler and two logits
        return ParameterCounts(
            embedding=self.vocab_size * width,
            positions=(self.max_position_embeddings + SEGMENTS) * width,
            matrices=layers * (4 * width * width + 2 * width * inner) + width * width + second_head[0],
            vectors=layers * (4 * width + inner + width + 2 * norm)
            + 2 * norm
            + width
            + self.vocab_size
            + second_head[1],
            head=0,
            stored_zeros=0,
        )

    def flop_per_token(self, context: int) -> int:
        """Return the operations a trained token costs: like a decoder's with attention to both sides and few scored tokens."""
        counts, head = self.counts(), round(MASKED_SHARE * self.vocab_size * self.hidden_size)
        return 6 * (counts.matrices + head) + 12 * self.num_hidden_layers * self.hidden_size * context

    def to_json(self) -> dict[str, Any]:
        """Return the shape with its family."""
        return {"family": self.family, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """What an encoder-decoder of T5's layout is made of: as many layers on either side, one table for all."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int  # relative positions set no limit; this is the length of a row
    head_dim: int = HEAD_DIM
    dropout: float = 0.0

    family: ClassVar[EncoderFamily] = "t5"
    architecture: ClassVar[str] = "encoder-decoder"

    def __post_init__(self) -> None:
        _check_positive(self)

    def counts(self) -> ParameterCounts:
        """Return the exact counts of `T5ForConditionalGeneration` with a tied head."""
        width, layers = self.hidden_size, self.num_hidden_layers
        heads = self.num_attention_heads
        attention = 4 * width * heads * self.head_dim
        feed_forward = 2 * width * self.intermediate_size
        return ParameterCounts(
            embedding=self.vocab_size * width,
            positions=2 * RELATIVE_BUCKETS * heads,
            matrices=layers * (3 * attention + 2 * feed_forward),
            vectors=layers * 5 * width + 2 * width,
            head=0,
            stored_zeros=0,
        )

    def flop_per_token(self, context: int) -> int:
        """Return the operations a token of a row costs: the encoder sees most of it, the decoder what was cut out."""
        width, inner = self.num_attention_heads * self.head_dim, self.intermediate_size
        attention, feed_forward = 4 * self.hidden_size * width, 2 * self.hidden_size * inner
        encoder, decoder = attention + feed_forward, 2 * attention + feed_forward
        matrices = self.num_hidden_layers * (encoder + MASKED_SHARE * decoder)
        head = MASKED_SHARE * self.vocab_size * self.hidden_size
        return round(6 * (matrices + head)) + 12 * self.num_hidden_layers * width * context

    def to_json(self) -> dict[str, Any]:
        """Return the shape with its family."""
        return {"family": self.family, **asdict(self)}


def encoder_from_depth(
    family: EncoderFamily, depth: int, *, vocab_size: int, context: int, **given: Any
) -> EncoderConfig | EncoderDecoderConfig:
    """Return the shape that one dial sets: 64 wide a layer, heads of 64, a feed-forward part of four widths.

    What is given and not None takes the place of what is derived.
    """
    known = {name: value for name, value in given.items() if value is not None}
    head_dim = known.get("head_dim", HEAD_DIM)
    width = known.get("hidden_size", ASPECT_RATIO * depth)
    shape = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": max(1, width // head_dim),
        "intermediate_size": 4 * width,
        "vocab_size": vocab_size,
        "max_position_embeddings": context,
        **known,
    }
    if family == "t5":
        return EncoderDecoderConfig(**shape)
    shape.pop("head_dim", None)
    return EncoderConfig(**shape)


def _check_positive(config: EncoderConfig | EncoderDecoderConfig) -> None:
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 1, not {getattr(config, name)}")
