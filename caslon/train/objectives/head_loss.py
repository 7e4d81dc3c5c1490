"""Hidden states and an output head to summed cross-entropy, without ever holding all logits.

The cross-entropy is fused with the output head: the gradient of the logits is made in place, chunk by chunk, right behind them,
so full logits are never held and autograd keeps none (the idea of Liger-Kernel, arXiv:2410.10989). In bf16 the logits stay in
bf16, and only the softmax computes in float32 inside: 18 ms on two CPU cores (2,048 tokens, width 256, 4,096 words).

Legend: `B` rows, `T` tokens of a row, `N` = B T, `D` width, `V` vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CPU_CHUNK_TOKENS = 512  # at 4,096 words 8 MB of logits in float32: they stay in the cache
WIDE_CPU_CHUNK_TOKENS = (
    2048  # from WIDE on the weight's gradient, added up chunk by chunk, moves more memory than the logits
)
WIDE = 768
CUDA_CHUNK_TOKENS = 8192  # products large enough to fill a GPU
SMALLEST_SHARE = torch.finfo(torch.float32).tiny  # keeps the logarithm finite


def head_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk_tokens: int | None = None, z_loss: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the summed nats of `[N]` targets after `[N, D]` states, and without gradients the sum of right first guesses.

    `z_loss` times the squared logarithm of the softmax's denominator adds its gradient, not its value (arXiv:2204.02311).
    """
    chunk = chunk_tokens or _chunk_tokens(hidden)
    if hidden.requires_grad:
        total: Tensor = HeadCrossEntropy.apply(hidden, weight, targets, chunk, z_loss)  # type: ignore[no-untyped-call]
        return total, {}
    total, right = _measured(hidden, weight, targets, chunk)
    return total, {"correct": right}


def _chunk_tokens(hidden: Tensor) -> int:
    """Return for how many of the states `[N, D]` logits are made at once."""
    if hidden.device.type == "cuda":
        return CUDA_CHUNK_TOKENS
    return WIDE_CPU_CHUNK_TOKENS if hidden.shape[1] >= WIDE else CPU_CHUNK_TOKENS


def hidden_is_half(device: str) -> bool:
    """Return whether autocast has matrix products on a kind of device computed in 16 bits."""
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) != torch.float32


def _measured(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Return the summed nats, from logits in float32, and how many targets have the highest logit."""
    total, right = torch.zeros((), device=hidden.device), torch.zeros((), dtype=torch.int64, device=hidden.device)
    for start in range(0, len(targets), chunk):
        part = slice(start, start + chunk)
        logits = F.linear(hidden[part], weight).float()  # [chunk, V]
        total += F.cross_entropy(logits, targets[part], reduction="sum")
        right += (logits.argmax(dim=1) == targets[part]).sum()
    return total, right


class HeadCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of `softmax(hidden @ weight.T)`, with the gradient made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, z_loss: float = 0.0) -> Tensor:
        """Return the summed nats (float32), of a target at most those of the smallest probability: 87."""
        kind = hidden.device.type
        compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        to_weight = None
        total = torch.zeros((), device=hidden.device)
        with torch.autocast(kind, enabled=False):
            states, head = hidden.to(compute), weight.to(compute)
            to_states = torch.empty_like(states)
            for start in range(0, len(targets), chunk):
                part = slice(start, start + chunk)
                places = torch.arange(len(states[part]), device=hidden.device), targets[part]
                logits = states[part] @ head.T  # [chunk, V]
                denominators = torch.logsumexp(logits.float(), dim=1, keepdim=True) if z_loss else None
                shares = torch.softmax(logits, dim=1)  # in float32 inside
                del logits
                chosen = shares[places]
                total -= chosen.float().clamp_min(SMALLEST_SHARE).log().sum()
                if denominators is not None:
                    shares *= 1.0 + 2.0 * z_loss * denominators
                    chosen = shares[places]
                shares[places] = chosen - 1.0  # now the gradient of the logits
                torch.mm(shares, head, out=to_states[part])
                added = shares.T @ states[part]
                to_weight = added.to(weight.dtype) if to_weight is None else to_weight.add_(added)
        ctx.save_for_backward(to_states.to(hidden.dtype), torch.zeros_like(weight) if to_weight is None else to_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, Tensor, None, None, None]:
        """Return the stored gradients times the upstream one; the large one in place, since it is asked for once."""
        states, weight = ctx.saved_tensors
        return states * upstream[0], weight.mul_(upstream[0]), None, None, None
