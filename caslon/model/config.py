"""The shape of a decoder: one dataclass for the GPT-2, Llama, Qwen3 and Mixtral families. Imports no torch.

It may be given in full, by name (`preset`), by one number (`from_depth`), or by a `config.json`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from caslon.errors import UserError
from caslon.model import config_json
from caslon.settings import Conflict, nearest

Family = Literal["gpt2", "llama", "qwen3", "mixtral"]
FAMILIES: tuple[Family, ...] = get_args(Family)
ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "silu")
ASPECT_RATIO = 64  # width per layer, as in nanochat: depth 4 is 256 wide, depth 12 is 768 wide
HEAD_DIM = 64
SMALL_HEAD_DIM = 32  # below SMALL_WIDTH, so that a tiny model still has several heads
SMALL_WIDTH = 256
FFN_MULTIPLE = 32
EXPERTS, EXPERTS_PER_TOKEN = 8, 2  # of Mixtral, arXiv:2401.04088


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What a decoder is made of; names are Hugging Face's, whatever the family calls them on disk.

    `num_key_value_heads`, `head_dim`, `intermediate_size`, `hidden_act`, `bias`, `num_local_experts` and `num_experts_per_tok`
    may be left out: the constructor fills in the family's usual value. `dropout` acts on the embedding and on both residual
    branches. `bias` is about the attention projections, in GPT-2 about the layer norms too (its MLP always has biases).
    In Mixtral `intermediate_size` is that of one expert; the three `router_` and `expert_` fields act in training only.
    """

    family: Family
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    num_key_value_heads: int = 0  # 0: as many as attention heads
    head_dim: int = 0  # 0: hidden_size / num_attention_heads
    intermediate_size: int = 0  # 0: see `ffn_width`
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    tie_word_embeddings: bool = True
    hidden_act: str = ""  # "": gelu_new for GPT-2, silu otherwise
    dropout: float = 0.0
    bias: bool | None = None  # None: true for GPT-2, false otherwise
    num_local_experts: int = 0  # 0: 8 in Mixtral, which alone has experts
    num_experts_per_tok: int = 0  # 0: 2 in Mixtral
    router_aux_loss_coef: float = 0.01  # weight of the balance loss beside the nats of a token
    router_jitter_noise: float = 0.0  # relative noise on the router's input
    expert_capacity_factor: float = 0.0  # room of an expert as a multiple of its even share; 0: no token is dropped
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None
    dtype: str = "float32"  # of the stored weights
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UserError(f"unknown model family {self.family!r}", fix=f"known families: {', '.join(FAMILIES)}")
        defaults = {
            "num_key_value_heads": self.num_attention_heads,
            "head_dim": self.hidden_size // max(1, self.num_attention_heads),
            "intermediate_size": ffn_width(self.family, self.hidden_size),
            "hidden_act": "gelu_new" if self.family == "gpt2" else "silu",
            "num_local_experts": EXPERTS if self.family == "mixtral" else 0,
            "num_experts_per_tok": EXPERTS_PER_TOKEN if self.family == "mixtral" else 0,
        }
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        if self.bias is None:
            object.__setattr__(self, "bias", self.family == "gpt2")
        _check(self)

    @property
    def is_gated(self) -> bool:
        """Whether the feed-forward part is SwiGLU: `down(silu(gate(x)) * up(x))`."""
        return self.family != "gpt2"

    @property
    def is_rotary(self) -> bool:
        """Whether positions are rotations of queries and keys instead of a learned table."""
        return self.family != "gpt2"

    @property
    def has_qk_norm(self) -> bool:
        """Whether queries and keys are normalised per head before they are rotated."""
        return self.family == "qwen3"

    @property
    def has_experts(self) -> bool:
        """Whether the feed-forward part is a mixture of experts, of which each token passes through a few."""
        return self.family == "mixtral"

    def with_tokens(
        self, *, bos_token_id: int | None, eos_token_id: int | None, pad_token_id: int | None
    ) -> "DecoderConfig":
        """Return the same shape with the special ids of a tokenizer."""
        return replace(self, bos_token_id=bos_token_id, eos_token_id=eos_token_id, pad_token_id=pad_token_id)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `config.json`, complete for old and new readers."""
        return config_json.written(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "DecoderConfig":
        """Return the configuration `config.json` describes; `UserError` where the decoder cannot compute it."""
        values, extra = config_json.read(data)
        return DecoderConfig(**values, extra=extra)

    @staticmethod
    def from_depth(
        depth: int,
        *,
        family: Family,
        vocab_size: int,
        context: int,
        aspect_ratio: int = ASPECT_RATIO,
        hidden_size: int | None = None,
        head_dim: int | None = None,
        num_attention_heads: int | None = None,
        **fields: Any,
    ) -> "DecoderConfig":
        """Return the shape that one dial sets; every derived value may be given instead, and any other field (None: usual).

        Width is `aspect_ratio * depth`, rounded up to a multiple of the head size; heads are 64 wide (32 below a width
        of 256); the feed-forward width is that of `ffn_width`.
        """
        if depth < 1:
            raise UserError(f"depth must be at least 1, not {depth}")
        rough = hidden_size or aspect_ratio * depth
        head = head_dim or _head_dim(rough, num_attention_heads)
        width = hidden_size or _round_up(rough, head)
        return DecoderConfig(
            family=family,
            vocab_size=vocab_size,
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=num_attention_heads or max(1, width // head),
            head_dim=head,
            max_position_embeddings=context,
            **{name: value for name, value in fields.items() if value is not None},
        )

    @staticmethod
    def preset(name: str, **changes: Any) -> "DecoderConfig":
        """Return a named shape, with fields replaced; another `family` takes that family's feed-forward width and experts."""
        if name not in PRESETS:
            guess = nearest(name, PRESETS)
            hint = f"did you mean {guess!r}? " if guess else ""
            raise UserError(f"unknown preset {name!r}", fix=f"{hint}known presets: {', '.join(PRESETS)}")
        return DecoderConfig(**{**preset_shape(name, changes.get("family")), **changes})


def _shape(
    family: Family, layers: int, width: int, heads: int, ffn: int, context: int, vocabulary: int, kv_heads: int = 0
) -> dict[str, Any]:
    return {
        "family": family,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        **({"num_key_value_heads": kv_heads} if kv_heads else {}),
        "intermediate_size": ffn,
        "max_position_embeddings": context,
        "vocab_size": vocabulary,
    }


PresetName = Literal[
    "slm", "regular", "slm-llama", "slm-qwen3", "llama-188", "char-10m", "tiny", "nano", "moe-toy"
]  # fmt: skip
_OF_A_FAMILY = ("intermediate_size", "num_local_experts", "num_experts_per_tok")
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "slm": _shape("gpt2", 12, 768, 12, 3072, 512, 30_000),
    "regular": _shape("gpt2", 24, 1024, 16, 4096, 1024, 30_000),
    "slm-llama": _shape("llama", 12, 768, 12, 2048, 512, 30_000, kv_heads=4),
    "slm-qwen3": _shape("qwen3", 12, 768, 12, 2048, 512, 30_000, kv_heads=4),
    "llama-188": _shape("llama", 8, 768, 6, 2048, 128, 32_001),
    "char-10m": _shape("gpt2", 6, 384, 6, 1536, 256, 85),
    "tiny": _shape("llama", 6, 384, 6, 1024, 256, 8_192),
    "nano": _shape("llama", 4, 128, 4, 352, 128, 4_096),
    "moe-toy": {
        **_shape("mixtral", 2, 64, 4, 128, 64, 256, kv_heads=2),
        "num_local_experts": 4,
        "tie_word_embeddings": False,
    },
}


def preset_shape(name: str, family: str | None) -> dict[str, Any]:
    """Return the fields of a preset, without those that another family than its own would not take over."""
    shape = PRESETS[name]
    if family in (None, shape["family"]):
        return dict(shape)
    return {field: value for field, value in shape.items() if field not in _OF_A_FAMILY} | {"family": family}


def ffn_width(family: Family, width: int) -> int:
    """Return the usual feed-forward width.

    4 x the width in GPT-2 and 8/3 x in the gated families, rounded up to a multiple of 32, have about the same number of weights;
    an expert has 4/3 x, so that the two experts of a token have as many together.
    """
    if family == "gpt2":
        return 4 * width
    thirds = 4 if family == "mixtral" else 8
    return _round_up(-(-thirds * width // 3), FFN_MULTIPLE)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _head_dim(width: int, heads: int | None) -> int:
    if heads:
        return max(1, width // heads)
    return HEAD_DIM if width >= SMALL_WIDTH else SMALL_HEAD_DIM


class ShapeError(UserError):
    """A shape that cannot be built; `found` names every part that does not fit, with the nearest values that do."""

    def __init__(self, found: Sequence[Conflict]) -> None:
        alone = len(found) == 1
        what = found[0].what if alone else f"{len(found)} parts do not fit: " + " | ".join(map(str, found))
        super().__init__(what, fix=(found[0].fix or None) if alone else None)
        self.found = found


def _check(config: DecoderConfig) -> None:
    """Refuse shapes that cannot be built, with the nearest ones that can."""
    if found := list(_too_small(config)) or [*_misfits(config), *_expert_misfits(config)]:
        raise ShapeError(found)


def _too_small(config: DecoderConfig) -> Iterator[Conflict]:
    positive = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    for name in (*positive, "num_key_value_heads", "head_dim", "intermediate_size"):
        if getattr(config, name) < 1:
            yield Conflict(name, f"{name} must be at least 1, not {getattr(config, name)}")


def _misfits(config: DecoderConfig) -> Iterator[Conflict]:
    heads, width, keys = config.num_attention_heads, config.hidden_size, config.num_key_value_heads
    if config.family == "gpt2" and heads * config.head_dim != width:
        yield Conflict(
            "num_attention_heads",
            f"{heads} heads of {config.head_dim} do not make up the width {width}",
            f"numbers of heads that divide {width}: {_nearest_divisors(width, heads)}",
        )
    if config.family == "gpt2" and keys != heads:
        yield Conflict(
            "num_key_value_heads",
            "GPT-2 has as many key-value heads as heads",
            "use family 'llama' or 'qwen3' for fewer",
        )
    elif heads % keys:
        yield Conflict(
            "num_key_value_heads",
            f"{keys} key-value heads do not divide {heads} heads",
            f"numbers that do: {_nearest_divisors(heads, keys)}",
        )
    if config.is_rotary and config.head_dim % 2:
        yield Conflict(
            "head_dim",
            f"the head size {config.head_dim} is odd; rotary positions turn pairs",
            f"use {config.head_dim - 1} or {config.head_dim + 1}",
        )
    if config.hidden_act not in ACTIVATIONS or (config.is_gated and config.hidden_act != "silu"):
        known = ("silu",) if config.is_gated else tuple(name for name in ACTIVATIONS if name != "silu")
        yield Conflict(
            "hidden_act",
            f"activation {config.hidden_act!r} is not computed in family {config.family!r}",
            f"known: {', '.join(known)}",
        )
    for name in ("dropout", "router_jitter_noise"):
        if not 0.0 <= getattr(config, name) < 1.0:
            yield Conflict(name, f"{name} must lie in [0, 1), not {getattr(config, name)}")


def _expert_misfits(config: DecoderConfig) -> Iterator[Conflict]:
    experts, chosen = config.num_local_experts, config.num_experts_per_tok
    if not config.has_experts:
        if experts or chosen:
            yield Conflict(
                "num_local_experts",
                f"family {config.family!r} has no experts",
                "use family 'mixtral', or leave the keys out",
            )
        return
    if not 1 <= chosen <= experts:
        yield Conflict(
            "num_experts_per_tok",
            f"a token cannot pass through {chosen} of {experts} experts",
            f"use 1 to {max(1, experts)}",
        )
    if config.bias:
        yield Conflict("bias", "Mixtral's attention has no biases", "leave the key `bias` out, or use family 'llama'")
    for name in ("router_aux_loss_coef", "expert_capacity_factor"):
        if getattr(config, name) < 0:
            yield Conflict(name, f"{name} must not be negative, but is {getattr(config, name)}")


def _nearest_divisors(number: int, wanted: int) -> str:
    divisors = [value for value in range(1, number + 1) if number % value == 0]
    return ", ".join(str(value) for value in sorted(sorted(divisors, key=lambda value: abs(value - wanted))[:3]))
