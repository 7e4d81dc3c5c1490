"""How `config.json` spells a decoder's shape: field by field, in both directions, for each family. Imports no torch.

Written files are complete for readers before and after transformers 5, so that no library default slips in. Keys this project
does not use are kept; keys that would change the computation in a way the decoder does not support are refused, not ignored.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from caslon.errors import UserError

if TYPE_CHECKING:
    from caslon.model.config import DecoderConfig

ARCHITECTURES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
}


def written(config: "DecoderConfig") -> dict[str, Any]:
    """Return the content of `config.json` for a configuration, keys in order."""
    keys = {theirs: getattr(config, ours) for ours, theirs in _names(config.family).items()}
    if isinstance(config.eos_token_id, tuple):
        keys["eos_token_id"] = list(config.eos_token_id)
    keys |= {"architectures": [ARCHITECTURES[config.family]], "model_type": config.family}
    keys |= {"dtype": config.dtype, "torch_dtype": config.dtype}
    if config.family == "gpt2":
        keys |= {"n_ctx": config.max_position_embeddings, "embd_pdrop": config.dropout}
        if (
            config.bias
        ):  # transformers has no such key and always stores biases; false says that they are zeros and stay so
            del keys["bias"]
    else:
        table = {"rope_type": "default", "rope_theta": config.rope_theta}
        keys |= {"rope_theta": config.rope_theta, "rope_parameters": table}
        # transformers has none of these in the gated families; they are for training here
        for key in ("resid_pdrop", "expert_capacity_factor"):
            if not keys.get(key):
                keys.pop(key, None)
    neutral = _neutral_keys(config.family, config.num_hidden_layers)
    return dict(sorted({**neutral, **config.extra, **keys}.items()))


def read(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of a configuration and the keys that are none; `UserError` where the decoder cannot compute it."""
    family = data.get("model_type")
    if family not in ARCHITECTURES:
        raise UserError(
            f"config.json describes a model of type {family!r}", fix=f"types that load here: {', '.join(ARCHITECTURES)}"
        )
    _refuse_unsupported(data)
    names = _names(family)
    values: dict[str, Any] = {"family": family}
    for ours, theirs in names.items():
        if theirs not in data and ours not in _DEFAULTS[family]:
            raise UserError(f"config.json lacks the key {theirs!r}", fix="the folder is damaged or incomplete")
        values[ours] = data.get(theirs, _DEFAULTS[family].get(ours))
    if family != "gpt2":
        values["rope_theta"] = _rope_theta(data)
        values["num_key_value_heads"] = values["num_key_value_heads"] or values["num_attention_heads"]
    values["head_dim"] = values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"]
    values["intermediate_size"] = values["intermediate_size"] or 4 * values["hidden_size"]
    eos = values["eos_token_id"]
    values["eos_token_id"] = tuple(eos) if isinstance(eos, list) else eos
    values["dtype"] = data.get("dtype") or data.get("torch_dtype") or "float32"
    used = {*names.values(), *_ALWAYS_WRITTEN}
    neutral = _neutral_keys(family, values["num_hidden_layers"])
    extra = {key: value for key, value in data.items() if key not in used and (key, value) not in neutral.items()}
    return values, extra


def _names(family: str) -> dict[str, str]:
    return {"gpt2": _GPT2_NAMES, "mixtral": _MIXTRAL_NAMES}.get(family, _LLAMA_NAMES)


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
_ROUTER_DEFAULTS: dict[str, Any] = {
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "router_aux_loss_coef": 0.001,
    "router_jitter_noise": 0.0,
    "expert_capacity_factor": 0.0,
}
_MIXTRAL_NAMES = {**_LLAMA_NAMES, **{name: name for name in _ROUTER_DEFAULTS}}
_MIXTRAL_NAMES.pop("bias")  # there are none
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
_DEFAULTS: Mapping[str, dict[str, Any]] = {
    "gpt2": _GPT2_DEFAULTS,
    "llama": {**_GATED_DEFAULTS, "head_dim": None},
    "qwen3": {**_GATED_DEFAULTS, "head_dim": 128},
    "mixtral": {**_GATED_DEFAULTS, **_ROUTER_DEFAULTS, "head_dim": None, "norm_eps": 1e-5},
}
_DEFAULT_ROPE_THETA = {"mixtral": 1_000_000.0}  # 10,000 in the others
_ALWAYS_WRITTEN = (
    *("architectures", "model_type", "dtype", "torch_dtype"),
    *("n_ctx", "embd_pdrop"),
    *("rope_theta", "rope_parameters", "rope_scaling"),
)


def _neutral_keys(family: str, layers: int) -> dict[str, Any]:
    """Return keys written so that no library default slips in; they say that a feature is not used."""
    keys: dict[str, Any] = {"initializer_range": 0.02, "use_cache": True}
    if family == "gpt2":
        return keys | {"attn_pdrop": 0.0}
    keys |= {"attention_dropout": 0.0}
    if family == "qwen3":
        return keys | {"use_sliding_window": False, "sliding_window": None, "max_window_layers": layers}
    if family == "mixtral":
        return keys | {"sliding_window": None, "output_router_logits": False}
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
    # Mixtral has no `use_sliding_window`: a window that is set is used.
    is_windowed = data["model_type"] == "mixtral" and data.get("sliding_window") is not None
    if is_windowed or any(kind != "full_attention" for kind in data.get("layer_types") or ()):
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
    return float(found) if found is not None else _DEFAULT_ROPE_THETA.get(data["model_type"], 10_000.0)
