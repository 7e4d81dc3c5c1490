"""Weights of eight and four bits in the order in which the kernels widen them.

A panel is 32 outputs; a step of it holds, for one float32 or two bfloat16 inputs, the codes of its outputs. Of four-bit codes a
byte holds one of the first 16 outputs in its low half and one of the other 16 in its high half.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caslon.compress.linear import INT4_ZERO, NF4_TABLE, Int8Linear, Nf4Linear, QuantisedLinear
from caslon.engine.native.library import INT4, INT8, PANEL, Matrix

INT4_LEVELS = tuple(float(code - INT4_ZERO) for code in range(16))


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return tensors one below the other."""
    return parts[0].detach() if len(parts) == 1 else torch.cat([part.detach() for part in parts])


def packed_codes(
    interleaved: Sequence[Sequence[nn.Module]], *, bias: int | None, keep: Callable[[Tensor], int], per_step: int
) -> Matrix:
    """Return quantised layers packed: those of a list one below the other, several lists panel by panel in turn.

    `per_step` is the number of inputs of a step; `keep` takes a tensor and returns its address.
    """
    quantised = [[cast(QuantisedLinear, one) for one in layers] for layers in interleaved]
    layer = quantised[0][0]
    is_int8 = isinstance(layer, Int8Linear)
    codes = [_steps(joined([one.weight for one in layers]), per_step, is_int8) for layers in quantised]
    scales = [_scales(joined([one.scale for one in layers]).float()) for layers in quantised]
    outputs = sum(one.out_features for layers in quantised for one in layers)
    levels = None if is_int8 else keep(torch.tensor(NF4_TABLE if isinstance(layer, Nf4Linear) else INT4_LEVELS))
    return Matrix(
        outputs=outputs,
        inputs=layer.in_features,
        format=INT8 if is_int8 else INT4,
        group=0 if is_int8 else layer.in_features // layer.scale.shape[1],
        panels=keep(torch.stack(codes, 1)),
        scales=keep(torch.stack(scales, 1)),
        levels=levels,
        bias=bias,
    )


def _steps(weight: Tensor, per_step: int, is_int8: bool) -> Tensor:
    """Return `[panels, steps, codes of a step]` of int8 `[N, K]`, or of uint8 `[N, K/2]` with two codes in a byte."""
    if not is_int8:
        weight = torch.stack((weight & 15, weight >> 4), -1).flatten(1)
    rows = F.pad(weight, (0, 0, 0, -len(weight) % PANEL))
    steps = rows.view(-1, PANEL, weight.shape[1] // per_step, per_step).transpose(1, 2).flatten(2)
    if is_int8 and per_step == 2:  # the kernel interleaves the lower and upper halves of each 16 codes
        return steps.view(*steps.shape[:2], 2, 4, 8).transpose(2, 3).flatten(2).contiguous()
    if is_int8:
        return steps.contiguous()
    low, high = steps.chunk(2, dim=2)
    return low | high << 4


def _scales(scale: Tensor) -> Tensor:
    """Return `[panels, groups, 32]` of `[N, groups]`, `[panels, 32]` of `[N]`."""
    rows = F.pad(scale.view(len(scale), -1), (0, 0, 0, -len(scale) % PANEL))
    return rows.view(-1, PANEL, rows.shape[1]).transpose(1, 2).squeeze(1).contiguous()
