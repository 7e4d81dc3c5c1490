"""AdamW whose two moments take one byte a number each: 2 bytes of state per parameter and not 8.

Numbers are stored in blocks of 256 with the block's largest as scale (arXiv:2110.02861). Unusual: the codes are roots, so that
small numbers keep some relative precision without a table: the square root of the mean, the fourth root of the squares. Squares
are rounded up, so that no step divides by too little. Tensors of less than 4,096 numbers stay in float32.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 256
SMALLEST_TENSOR = 4096
SMALLEST_SCALE = torch.finfo(torch.float32).tiny


class AdamWInt8(torch.optim.Optimizer):
    """The interface and the update of `torch.optim.AdamW`, with moments of 8 bits."""

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            _store(state, torch.zeros_like(parameter), torch.zeros_like(parameter))
        mean, squares = _moments(state, parameter.shape)
        state["step"] += 1
        step = float(state["step"])
        mean.lerp_(gradient, 1 - beta1)
        squares.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = squares.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(mean, denominator, value=-group["lr"] / (1 - beta1**step))
        _store(state, mean, squares)


def _store(state: dict[str, Tensor], mean: Tensor, squares: Tensor) -> None:
    if mean.numel() < SMALLEST_TENSOR:
        state["exp_avg"], state["exp_avg_sq"] = mean, squares
        return
    state["mean_codes"], state["mean_scales"] = signed_codes(mean)
    state["square_codes"], state["square_scales"] = unsigned_codes(squares)


def _moments(state: dict[str, Tensor], shape: torch.Size) -> tuple[Tensor, Tensor]:
    if "exp_avg" in state:
        return state["exp_avg"], state["exp_avg_sq"]
    mean = from_signed(state["mean_codes"], state["mean_scales"], shape)
    return mean, from_unsigned(state["square_codes"], state["square_scales"], shape)


def _blocks(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the numbers as rows of a block, each divided by its scale, and the scales `[blocks, 1]`."""
    flat = values.flatten()
    rows = F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scales = rows.abs().amax(dim=1, keepdim=True).clamp_min(SMALLEST_SCALE)
    return rows / scales, scales


def signed_codes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return numbers of both signs as int8 `[blocks, 256]` and the scales of the blocks."""
    shares, scales = _blocks(values)
    return (shares.abs().sqrt_() * 127).round_().mul_(shares.sign()).to(torch.int8), scales


def from_signed(codes: Tensor, scales: Tensor, shape: torch.Size) -> Tensor:
    """Return the numbers `signed_codes` stands for: within 1/127 of the block's largest, nearer the smaller they are."""
    roots = codes.float() / 127
    return (roots * roots.abs() * scales).flatten()[: shape.numel()].view(shape)


def unsigned_codes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return numbers of at least 0 as uint8 `[blocks, 256]`, rounded up, and the scales of the blocks."""
    shares, scales = _blocks(values)
    return (shares.sqrt_().sqrt_() * 255).ceil_().clamp_max_(255).to(torch.uint8), scales


def from_unsigned(codes: Tensor, scales: Tensor, shape: torch.Size) -> Tensor:
    """Return the numbers `unsigned_codes` stands for."""
    return ((codes.float() / 255).pow_(4) * scales).flatten()[: shape.numel()].view(shape)
