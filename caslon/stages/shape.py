"""The keys of a recipe that set a model's shape, into that shape and its rows in `caslon plan`.

A shape is given by one dial (`depth`) or by name (`preset`); every other key changes a part of it. A preset is filled in where
keys are left out, so that whatever reads the table sees its values.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from caslon import settings
from caslon.errors import UserError
from caslon.model.config import PRESETS, DecoderConfig, Family, PresetName, ShapeError, preset_shape
from caslon.model.encoder_config import (
    ENCODER_FAMILIES,
    ENCODER_PRESETS,
    EncoderConfig,
    EncoderDecoderConfig,
    EncoderFamily,
    EncoderPreset,
    encoder_from_depth,
)
from caslon.model.size import ParameterCounts, parameter_counts
from caslon.stages.stage import PlanRow

AnyConfig = DecoderConfig | EncoderConfig | EncoderDecoderConfig
DECODERS_ONLY = frozenset(
    (
        "num_key_value_heads",
        "hidden_act",
        "tie_word_embeddings",
        "rope_theta",
        "bias",
        "pad_vocab_to",
        "num_local_experts",
    )
)
K_QUANT_BLOCK = 256  # weights that share a scale in llama.cpp's K-quants
ANY_SIZE = 256  # of vocabulary and context, where only the other parts of a shape are looked at
_KEYS = {
    "num_hidden_layers": "depth",
    "max_position_embeddings": "context",
}  # where a field has another name in recipes


class ExpertSettings(settings.Settings):
    """Of a mixture of experts only (family mixtral)."""

    num_local_experts: int | None = Field(
        None, ge=1, description="experts of a layer; 8 in mixtral, which alone has any"
    )
    num_experts_per_tok: int | None = Field(None, ge=1, description="experts each token passes through; 2 in mixtral")
    router_aux_loss_coef: float = Field(0.01, ge=0, description="weight of the loss that keeps experts evenly used")
    router_jitter_noise: float = Field(0.0, ge=0, lt=1, description="relative noise on the router's input, in training")
    expert_capacity_factor: float = Field(
        0.0, ge=0, description="room of an expert as a multiple of its even share, in training; 0 = no token is dropped"
    )


class ShapeSettings(ExpertSettings):
    """What the model is made of. A key left out follows from the preset, or from depth and family."""

    preset: Literal[PresetName, EncoderPreset] | None = Field(
        None, description="a shape by name; the keys below change it"
    )
    family: Literal[Family, EncoderFamily] = Field(
        "qwen3", description="decoders: gpt2, llama, qwen3, mixtral; an encoder: bert; an encoder-decoder: t5"
    )
    depth: int = Field(4, ge=1, le=256, description="layers; the one dial")
    hidden_size: int | None = Field(None, ge=8, description="width; 64 per layer by default")
    num_attention_heads: int | None = Field(None, ge=1, description="query heads")
    num_key_value_heads: int | None = Field(None, ge=1, description="key heads; fewer than query heads save memory")
    head_dim: int | None = Field(None, ge=2, description="width of a head")
    intermediate_size: int | None = Field(
        None, ge=8, description="width inside the feed-forward part, or inside an expert"
    )
    hidden_act: Literal["gelu_new", "gelu", "relu"] | None = Field(
        None, description="GPT-2's activation, gelu_new by default; GGUF files hold no other"
    )
    tie_word_embeddings: bool = Field(True, description="whether the head is the embedding")
    rope_theta: float = Field(10_000.0, gt=0, description="base of the rotary positions")
    dropout: float = Field(0.0, ge=0, lt=1, description="in training only; for several epochs on little text")
    bias: bool | None = Field(None, description="biases in attention; the family's habit by default")
    pad_vocab_to: int | None = Field(
        None, ge=1, description="entries of the model's vocabulary, if more than the tokenizer's"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("preset") not in {*PRESETS, *ENCODER_PRESETS}:
            return data
        shape = _preset_shape(data["preset"], data.get("family"))
        filled = {_KEYS.get(name, name): value for name, value in shape.items()}
        return {**{key: value for key, value in filled.items() if key in cls.model_fields}, **data}

    def conflicts(self) -> Iterator[settings.Conflict]:
        """Yield every part of the shape that does not fit the others."""
        yield from super().conflicts()
        for key in sorted(DECODERS_ONLY & self.model_fields_set) if self.family in ENCODER_FAMILIES else ():
            yield settings.Conflict(key, f"{key} has no effect on family '{self.family}'", "leave it out")
        try:
            model_config(self, self.pad_vocab_to or ANY_SIZE, ANY_SIZE)
        except ShapeError as error:
            yield from error.found
        except UserError as error:
            yield settings.Conflict("family", error.what, error.fix or "")


def _preset_shape(name: str, family: str | None) -> Mapping[str, Any]:
    """Return the fields of any preset."""
    return ENCODER_PRESETS[name] if name in ENCODER_PRESETS else preset_shape(name, family)  # type: ignore[index]


def architecture_of(family: str) -> str:
    """Return what kind of model a family is: a decoder, an encoder or an encoder-decoder."""
    if family == EncoderConfig.family:
        return EncoderConfig.architecture
    return EncoderDecoderConfig.architecture if family == EncoderDecoderConfig.family else "decoder"


def model_config(chosen: ShapeSettings, vocab_size: int, context: int, *, next_sentence: bool = False) -> AnyConfig:
    """Return the shape of a table, of whatever family; `UserError` where its parts do not fit together."""
    if chosen.family not in ENCODER_FAMILIES:
        return decoder_config(chosen, vocab_size, context)
    given = chosen.model_dump(
        include={"hidden_size", "num_attention_heads", "head_dim", "intermediate_size", "dropout"}
    )
    if chosen.family == "bert":
        given["next_sentence"] = next_sentence
    return encoder_from_depth(chosen.family, chosen.depth, vocab_size=vocab_size, context=context, **given)


def counts_of(config: AnyConfig) -> ParameterCounts:
    """Return the exact counts of a shape of whatever family."""
    return parameter_counts(config) if isinstance(config, DecoderConfig) else config.counts()


def encoder_rows(chosen: ShapeSettings, config: EncoderConfig | EncoderDecoderConfig) -> list[PlanRow]:
    """Return the rows of an encoder's or encoder-decoder's shape."""
    names = ("hidden_size", "num_attention_heads", "head_dim", "intermediate_size")
    counts = config.counts()
    return [
        PlanRow("family", config.family, "", _origin(chosen, "family")),
        PlanRow("depth", config.num_hidden_layers, "layers", _origin(chosen, "depth")),
        PlanRow("vocab_size", config.vocab_size, "entries", "the tokenizer"),
        *(PlanRow(name, getattr(config, name), "", _origin(chosen, name)) for name in names),
        PlanRow("parameters", counts.trained, "", "computed"),
        PlanRow("parameters outside the tables", counts.non_embedding, "", "computed"),
    ]


def decoder_config(chosen: ShapeSettings, vocab_size: int, context: int) -> DecoderConfig:
    """Return the shape of a table; `UserError` where its parts do not fit together."""
    given = chosen.model_dump(include=set(ShapeSettings.model_fields) - {"depth", "preset", "pad_vocab_to"})
    if chosen.pad_vocab_to is not None:
        if chosen.pad_vocab_to < vocab_size:
            raise UserError(
                f"pad_vocab_to = {chosen.pad_vocab_to} is less than the tokenizer's {vocab_size} entries",
                fix=f"use {vocab_size} or more, or leave the key out",
            )
        given["extra"] = {"pad_vocab_to": chosen.pad_vocab_to}
    return DecoderConfig.from_depth(
        chosen.depth, vocab_size=chosen.pad_vocab_to or vocab_size, context=context, **given
    )


def shape_rows(chosen: ShapeSettings, config: DecoderConfig) -> list[PlanRow]:
    """Return the rows: every part of the shape with where it came from, the parameters, and what to beware of."""
    counts = parameter_counts(config)
    names = ["hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "hidden_act"]
    names += ["num_local_experts", "num_experts_per_tok"] if config.has_experts else []
    rows = [
        PlanRow("family", config.family, "", _origin(chosen, "family")),
        PlanRow("depth", config.num_hidden_layers, "layers", _origin(chosen, "depth")),
        PlanRow("vocab_size", config.vocab_size, "entries", "padded" if chosen.pad_vocab_to else "the tokenizer"),
        *(PlanRow(name, getattr(config, name), "", _origin(chosen, name)) for name in names),
        PlanRow("parameters", counts.trained, "", "computed"),
        PlanRow("parameters outside the tables", counts.non_embedding, "", "computed"),
    ]
    if counts.idle:
        rows.append(PlanRow("active parameters", counts.active, "", "computed: those a token passes through"))
    return rows + [PlanRow(f"beware {n}", text, "", "advice") for n, text in enumerate(shape_warnings(config), start=1)]


def shape_warnings(config: DecoderConfig) -> list[str]:
    """Return what this shape will not be able to do later, one sentence each."""
    found = []
    if config.hidden_size % K_QUANT_BLOCK:
        found.append(
            f"the width {config.hidden_size} is not a multiple of {K_QUANT_BLOCK}: "
            "llama.cpp's K-quants will not be possible (Q8_0 will)"
        )
    if config.hidden_act in ("gelu", "relu"):
        found.append(
            f"hidden_act = {config.hidden_act!r}: export to GGUF will be refused, "
            "because llama.cpp computes gelu_new whatever the file says"
        )
    return found


def _origin(chosen: ShapeSettings, key: str) -> str:
    value = getattr(chosen, key)
    if value is None:
        return "derived from depth" if chosen.preset is None else "derived from the preset"
    if chosen.preset is not None:
        shape = _preset_shape(chosen.preset, None)
        if value == {_KEYS.get(name, name): part for name, part in shape.items()}.get(key):
            return f"preset {chosen.preset}"
    return "setting"
