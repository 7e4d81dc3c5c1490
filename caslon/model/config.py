"""The shape of a decoder, read from and written to Hugging Face's `config.json`. Imports no torch.

One dataclass describes the GPT-2, Llama and Qwen3 families. Keys this project does not use are kept, so that a folder
that comes in goes out with everything it said; keys that would change the computation in a way the decoder does not
support are refused instead of ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from caslon.errors import UserError
from caslon.settings import nearest

Family = Literal["gpt2", "llama", "qwen3"]
FAMILIES: tuple[Family, ...] = get_args(Family)
ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "silu")
ARCHITECTURES: Mapping[Family, str] = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

ASPECT_RATIO = 64  # width per layer, as in nanochat: depth 4 is 256 wide, depth 12 is 768 wide
HEAD_DIM = 64
SMALL_HEAD_DIM = 32  # below SMALL_WIDTH, so that a tiny model still has several heads
SMALL_WIDTH = 256
FFN_MULTIPLE = 32


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """What a decoder is made of; names are Hugging Face's, whatever the family calls them on disk.

    `num_key_value_heads`, `head_dim`, `intermediate_size`, `hidden_act` and `bias` may be left out: the constructor
    fills in the family's usual value. `dropout` acts on the embedding and on both residual branches. `bias` is about
    the attention projections, in GPT-2 about the layer norms too (its MLP always has biases).
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

    def with_tokens(
        self, *, bos_token_id: int | None, eos_token_id: int | None, pad_token_id: int | None
    ) -> "DecoderConfig":
        """Return the same shape with the special ids of a tokenizer."""
        return replace(self, bos_token_id=bos_token_id, eos_token_id=eos_token_id, pad_token_id=pad_token_id)

    def to_json(self) -> dict[str, Any]:
        """Return the content of `config.json`, complete for old and new readers."""
        eos = list(self.eos_token_id) if isinstance(self.eos_token_id, tuple) else self.eos_token_id
        keys = {
            "architectures": [ARCHITECTURES[self.family]],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "pad_token_id": self.pad_token_id,
            "dtype": self.dtype,
            "torch_dtype": self.dtype,
        }
        keys |= self._gpt2_keys() if self.family == "gpt2" else self._llama_keys()
        return dict(sorted({**_neutral_keys(self.family, self.num_hidden_layers), **self.extra, **keys}.items()))

    def _gpt2_keys(self) -> dict[str, Any]:
        keys: dict[str, Any] = {
            "n_embd": self.hidden_size,
            "n_layer": self.num_hidden_layers,
            "n_head": self.num_attention_heads,
            "n_inner": self.intermediate_size,
            "n_positions": self.max_position_embeddings,
            "n_ctx": self.max_position_embeddings,
            "layer_norm_epsilon": self.norm_eps,
            "activation_function": self.hidden_act,
            "resid_pdrop": self.dropout,
            "embd_pdrop": self.dropout,
        }
        # transformers has no such key and always stores biases; ours says that they are zeros and stay so.
        return keys if self.bias else keys | {"bias": False}

    def _llama_keys(self) -> dict[str, Any]:
        keys: dict[str, Any] = {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.norm_eps,
            "hidden_act": self.hidden_act,
            "attention_bias": self.bias,
            # Both spellings: readers before and after transformers 5 look in different places.
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
        }
        if self.dropout:  # transformers has no residual dropout in these families; the key is for resuming here
            keys["resid_pdrop"] = self.dropout
        return keys

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "DecoderConfig":
        """Return the configuration `config.json` describes; `UserError` where the decoder cannot compute it."""
        family = data.get("model_type")
        if family not in FAMILIES:
            raise UserError(
                f"config.json describes a model of type {family!r}", fix=f"types that load here: {', '.join(FAMILIES)}"
            )
        _refuse_unsupported(data)
        names, defaults = (_GPT2_NAMES, _GPT2_DEFAULTS) if family == "gpt2" else (_LLAMA_NAMES, _LLAMA_DEFAULTS[family])
        values: dict[str, Any] = {}
        for ours, theirs in names.items():
            if theirs in data:
                values[ours] = data[theirs]
            elif ours in defaults:
                values[ours] = defaults[ours]
            else:
                raise UserError(f"config.json lacks the key {theirs!r}", fix="the folder is damaged or incomplete")
        if family != "gpt2":
            values["rope_theta"] = _rope_theta(data)
            values["num_key_value_heads"] = values["num_key_value_heads"] or values["num_attention_heads"]
        values["head_dim"] = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
        values["intermediate_size"] = values["intermediate_size"] or 4 * values["hidden_size"]
        eos = values["eos_token_id"]
        values["eos_token_id"] = tuple(eos) if isinstance(eos, list) else eos
        values["dtype"] = data.get("dtype") or data.get("torch_dtype") or "float32"
        used = {*names.values(), *_WRITTEN_ALWAYS}
        neutral = _neutral_keys(cast(Family, family), values["num_hidden_layers"])
        extra = {
            key: value
            for key, value in data.items()
            if key not in used and not (key in neutral and neutral[key] == value)
        }
        return DecoderConfig(family=cast(Family, family), extra=extra, **values)

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
        num_key_value_heads: int | None = None,
        intermediate_size: int | None = None,
        tie_word_embeddings: bool = True,
        dropout: float = 0.0,
        bias: bool | None = None,
        rope_theta: float = 10_000.0,
    ) -> "DecoderConfig":
        """Return the shape that one dial sets; every derived value may be given instead.

        Width is `aspect_ratio * depth`, rounded up to a multiple of the head size; heads are 64 wide (32 below a width
        of 256); the feed-forward width is 4 x the width in GPT-2 and 8/3 x, rounded up to a multiple of 32, in the
        gated families, which gives both about the same number of weights.
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
            num_key_value_heads=num_key_value_heads or 0,
            head_dim=head,
            intermediate_size=intermediate_size or 0,
            max_position_embeddings=context,
            tie_word_embeddings=tie_word_embeddings,
            dropout=dropout,
            bias=bias,
            rope_theta=rope_theta,
        )

    @staticmethod
    def preset(name: str, **changes: Any) -> "DecoderConfig":
        """Return a named shape, with fields replaced; another `family` takes that family's feed-forward width."""
        if name not in PRESETS:
            guess = nearest(name, PRESETS)
            hint = f"did you mean {guess!r}? " if guess else ""
            raise UserError(f"unknown preset {name!r}", fix=f"{hint}known presets: {', '.join(PRESETS)}")
        values = {**PRESETS[name], **changes}
        if "family" in changes and changes["family"] != PRESETS[name]["family"]:
            values |= {"intermediate_size": changes.get("intermediate_size", 0)}
        return DecoderConfig(**values)


def _shape(
    family: Family, layers: int, width: int, heads: int, ffn: int, context: int, vocabulary: int, kv_heads: int = 0
) -> dict[str, Any]:
    return {
        "family": family,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ffn,
        "max_position_embeddings": context,
        "vocab_size": vocabulary,
    }


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "slm": _shape("gpt2", 12, 768, 12, 3072, 512, 30_000),
    "regular": _shape("gpt2", 24, 1024, 16, 4096, 1024, 30_000),
    "slm-llama": _shape("llama", 12, 768, 12, 2048, 512, 30_000, kv_heads=4),
    "slm-qwen3": _shape("qwen3", 12, 768, 12, 2048, 512, 30_000, kv_heads=4),
    "llama-188": _shape("llama", 8, 768, 6, 2048, 128, 32_001),
    "char-10m": _shape("gpt2", 6, 384, 6, 1536, 256, 85),
    "tiny": _shape("llama", 6, 384, 6, 1024, 256, 8_192),
    "nano": _shape("llama", 4, 128, 4, 352, 128, 4_096),
}


def ffn_width(family: Family, width: int) -> int:
    """Return the usual feed-forward width: 4 x in GPT-2, 8/3 x rounded up to a multiple of 32 in the gated families."""
    return 4 * width if family == "gpt2" else _round_up(-(-8 * width // 3), FFN_MULTIPLE)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _head_dim(width: int, heads: int | None) -> int:
    if heads:
        return max(1, width // heads)
    return HEAD_DIM if width >= SMALL_WIDTH else SMALL_HEAD_DIM


# How each field is spelled on disk, and what transformers takes when the key is missing.
_COMMON_NAMES = {
    name: name for name in ("vocab_size", "tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
}
_GPT2_NAMES = {
    **_COMMON_NAMES,
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
    "dropout": "resid_pdrop",
    "bias": "bias",
}
_LLAMA_NAMES = {
    **_COMMON_NAMES,
    **{
        name: name
        for name in (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "intermediate_size",
            "max_position_embeddings",
            "hidden_act",
        )
    },
    "norm_eps": "rms_norm_eps",
    "dropout": "resid_pdrop",
    "bias": "attention_bias",
}
_COMMON_DEFAULTS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_GPT2_DEFAULTS: dict[str, Any] = {
    **_COMMON_DEFAULTS,
    "tie_word_embeddings": True,
    "intermediate_size": None,
    "norm_eps": 1e-5,
    "hidden_act": "gelu_new",
    "dropout": 0.1,
    "bias": True,
}
_GATED_DEFAULTS: dict[str, Any] = {
    **_COMMON_DEFAULTS,
    "tie_word_embeddings": False,
    "num_key_value_heads": None,
    "norm_eps": 1e-6,
    "hidden_act": "silu",
    "dropout": 0.0,
    "bias": False,
}
_LLAMA_DEFAULTS: Mapping[str, dict[str, Any]] = {
    "llama": {**_GATED_DEFAULTS, "head_dim": None},
    "qwen3": {**_GATED_DEFAULTS, "head_dim": 128},
}
_WRITTEN_ALWAYS = (
    *("architectures", "model_type", "dtype", "torch_dtype"),
    *("n_ctx", "embd_pdrop"),
    *("rope_theta", "rope_parameters", "rope_scaling"),
)


def _neutral_keys(family: Family, layers: int) -> dict[str, Any]:
    """Return keys written so that no library default slips in; they say that a feature is not used."""
    keys: dict[str, Any] = {"initializer_range": 0.02, "use_cache": True}
    if family == "gpt2":
        return keys | {"attn_pdrop": 0.0}
    keys |= {"attention_dropout": 0.0}
    if family == "qwen3":
        return keys | {"use_sliding_window": False, "sliding_window": None, "max_window_layers": layers}
    return keys | {"mlp_bias": False}


# Keys that change the computation, with the values under which they do not.
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "scale_attn_weights": (True, None),
    "scale_attn_by_inverse_layer_idx": (False, None),
    "add_cross_attention": (False, None),
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "partial_rotary_factor": (1, None),
    "quantization_config": (None,),
    "auto_map": (None,),
}


def _refuse_unsupported(data: Mapping[str, Any]) -> None:
    for key, harmless in _HARMLESS.items():
        if data.get(key) not in harmless:
            raise UserError(
                f"config.json asks for {key} = {data[key]!r}, which this decoder does not compute",
                fix=f"supported: {harmless[0]!r}",
            )
    if any(kind != "full_attention" for kind in data.get("layer_types") or ()):
        raise UserError("config.json asks for sliding-window layers, which this decoder does not compute")
    for key in ("rope_parameters", "rope_scaling"):
        rope = data.get(key) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise UserError(
                f"config.json asks for {key} of type {kind!r}, which this decoder does not compute",
                fix="only plain rotary positions are supported (rope_type 'default')",
            )


def _rope_theta(data: Mapping[str, Any]) -> float:
    """Return the rotary base; old readers and writers know the top-level key, new ones the table."""
    table = data.get("rope_parameters") or {}
    inside, top = table.get("rope_theta"), data.get("rope_theta")
    if inside is not None and top is not None and float(inside) != float(top):
        raise UserError(
            f"config.json gives two rotary bases: rope_parameters.rope_theta = {inside}, rope_theta = {top}",
            fix="make them equal",
        )
    found = inside if inside is not None else top
    return float(found) if found is not None else 10_000.0


def _check(config: DecoderConfig) -> None:
    """Refuse shapes that cannot be built, with the nearest ones that can."""
    positive = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    for name in (*positive, "num_key_value_heads", "head_dim", "intermediate_size"):
        if getattr(config, name) < 1:
            raise UserError(f"{name} must be at least 1, not {getattr(config, name)}")
    heads, width = config.num_attention_heads, config.hidden_size
    if config.family == "gpt2" and heads * config.head_dim != width:
        raise UserError(
            f"{heads} heads of {config.head_dim} do not make up the width {width}",
            fix=f"numbers of heads that divide {width}: {_nearest_divisors(width, heads)}",
        )
    if config.family == "gpt2" and config.num_key_value_heads != heads:
        raise UserError("GPT-2 has as many key-value heads as heads", fix="use family 'llama' or 'qwen3' for fewer")
    if heads % config.num_key_value_heads:
        raise UserError(
            f"{config.num_key_value_heads} key-value heads do not divide {heads} heads",
            fix=f"numbers that do: {_nearest_divisors(heads, config.num_key_value_heads)}",
        )
    if config.is_rotary and config.head_dim % 2:
        raise UserError(
            f"the head size {config.head_dim} is odd; rotary positions turn pairs",
            fix=f"use {config.head_dim - 1} or {config.head_dim + 1}",
        )
    if config.hidden_act not in ACTIVATIONS or (config.is_gated and config.hidden_act != "silu"):
        known = ("silu",) if config.is_gated else tuple(name for name in ACTIVATIONS if name != "silu")
        raise UserError(
            f"activation {config.hidden_act!r} is not computed in family {config.family!r}",
            fix=f"known: {', '.join(known)}",
        )
    if not 0.0 <= config.dropout < 1.0:
        raise UserError(f"dropout must lie in [0, 1), not {config.dropout}")


def _nearest_divisors(number: int, wanted: int) -> str:
    divisors = [value for value in range(1, number + 1) if number % value == 0]
    return ", ".join(str(value) for value in sorted(sorted(divisors, key=lambda value: abs(value - wanted))[:3]))
