"""Keys and values to eight or four bits and back.

A few channels of the keys are much larger than the others, in all tokens alike; the values have no such channels (KIVI,
arXiv:2402.02750). So the keys of a block get a scale for each channel, the values one for each token. One scale for all
would be set by the largest channel and leave nothing of the others. Ranges are the same on both sides of zero; two codes of
four bits share a byte, the even channel in its low half. Scales are bfloat16, and codes are rounded against them as stored.

Shapes: `B` blocks, `T` tokens of a block, `K` key heads, `C` head size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

LARGEST = {8: 127, 4: 7}
SMALLEST_SCALE = 2.0**-100  # of zeros; any number will do


class Codes(NamedTuple):
    """Quantised numbers: `codes` int8 [B, T, K, C] or uint8 [B, T, K, C/2], and what they are multiplied by."""

    codes: Tensor
    scales: Tensor  # [B, 1, K, C] of keys, [B, T, K, 1] of values


def coded_keys(keys: Tensor, bits: int) -> Codes:
    """Return the keys [B, T, K, C] of whole blocks with a scale for each channel of a block."""
    return _coded(keys, bits, dim=1)


def coded_values(values: Tensor, bits: int) -> Codes:
    """Return values [B, T, K, C] with a scale for each token."""
    return _coded(values, bits, dim=3)


def decoded(coded: Codes, dtype: torch.dtype) -> Tensor:
    """Return the numbers [B, T, K, C] that codes stand for."""
    codes = coded.codes
    if codes.dtype == torch.uint8:
        low, high = (codes & 15).to(torch.int8), (codes >> 4).to(torch.int8)
        codes = torch.stack((low, high), -1).flatten(-2) - 8
    return codes.to(dtype) * coded.scales.to(dtype)


def _coded(numbers: Tensor, bits: int, dim: int) -> Codes:
    wide = numbers.float()
    largest = LARGEST[bits]
    scales = (wide.abs().amax(dim, keepdim=True) / largest).bfloat16().clamp_(min=SMALLEST_SCALE)
    codes = (wide / scales.float()).round_().clamp_(-largest, largest).to(torch.int8)
    if bits == 4:
        shifted = (codes + 8).to(torch.uint8)
        codes = shifted[..., ::2] | shifted[..., 1::2] << 4
    return Codes(codes, scales)
