"""Quantised layers as a folder stores them to layers that compute, without unpacking them.

Read is what compressed-tensors writes, which vLLM and transformers read too: `int-quantized` (8 bits, a scale for each output
channel) and `pack-quantized` (4 bits in groups, eight to an int32, the first in its lowest bits, each 8 above its value: in bytes
the very storage of `linear.py`). Weights only, symmetric, of the Llama, Qwen3 and Mixtral layouts.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from caslon.compress.formats import WeightFormat
from caslon.compress.linear import Int4Linear, Int8Linear, QuantisedLinear
from caslon.errors import UserError
from caslon.model.decoder import Decoder
from caslon.model.weights import decoder_name

METHOD = "compressed-tensors"
FORMATS: Mapping[str, WeightFormat] = {"int-quantized": "int8", "pack-quantized": "int4"}
BITS = {"int8": 8, "int4": 4}


def stored_format(quantization: Mapping[str, Any], family: str) -> WeightFormat:
    """Return the format a `quantization_config` describes; `UserError` for layers that are not read, naming what differs."""
    groups = list(dict(quantization.get("config_groups") or {}).values())
    weights = dict(groups[0].get("weights") or {}) if len(groups) == 1 else {}
    kind = FORMATS.get(str(quantization.get("format")))
    wrong = {
        f"quant_method is {quantization.get('quant_method')!r}": quantization.get("quant_method") != METHOD,
        f"format is {quantization.get('format')!r}": kind is None,
        f"there are {len(groups)} groups of layers": len(groups) != 1,
        f"weights have {weights.get('num_bits')} bits": kind is not None and weights.get("num_bits") != BITS[kind],
        "weights have zero points": not weights.get("symmetric", True),
        "activations are quantised too": bool(groups and groups[0].get("input_activations")),
        "it is of the GPT-2 layout": family == "gpt2",
    }
    found = next((what for what, is_wrong in wrong.items() if is_wrong), None)
    if found or kind is None:
        raise UserError(
            f"this model is quantised in a way that is not read: {found}",
            where="config.json: quantization_config",
            fix=f"use weights of {METHOD}, {' or '.join(FORMATS)}, symmetric; or the unquantised model with --weights int4",
        )
    return kind


def take_stored_layers(decoder: Decoder, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put the quantised layers among a folder's tensors into a decoder; return the other tensors."""
    left = {decoder_name(name, decoder.config): tensor for name, tensor in tensors.items()}
    for name in [name for name in left if name.endswith(".weight_scale")]:
        path = name.removesuffix(".weight_scale")
        scale = left.pop(name).float().contiguous()
        left.pop(f"{path}.weight_shape", None)
        packed, whole = left.pop(f"{path}.weight_packed", None), left.pop(f"{path}.weight", None)
        bias = left.pop(f"{path}.bias", None)
        parent, _, last = path.rpartition(".")
        layer = _layer(path, packed, whole, scale, bias)
        expected: Any = decoder.get_submodule(path)
        if (layer.out_features, layer.in_features) != (expected.out_features, expected.in_features):
            raise UserError(
                f"{path} is {layer.out_features} x {layer.in_features}, config.json asks for "
                f"{expected.out_features} x {expected.in_features}",
                fix="use the config.json that was saved with these weights",
            )
        setattr(decoder.get_submodule(parent), last, layer)
    return left


def _layer(
    path: str, packed: Tensor | None, whole: Tensor | None, scale: Tensor, bias: Tensor | None
) -> QuantisedLinear:
    if packed is not None and packed.dtype == torch.int32:
        pairs = packed.contiguous().view(torch.uint8).clone()
        return Int4Linear(pairs, scale, bias, 2 * pairs.shape[1])
    if whole is not None and whole.dtype == torch.int8:
        return Int8Linear(whole.clone(), scale.flatten(), bias, whole.shape[1])
    raise UserError(f"{path} has a scale but no quantised weights", fix="copy the folder again")
