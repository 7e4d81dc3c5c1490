"""What a model is trained on: an objective turns a batch into a sum of losses and a count, never a mean.

The trainer divides once by the count of the whole step, so that accumulation and unequal padding change nothing.
The cross-entropy is fused with the output head: the gradient of the logits is made in place, chunk by chunk, right behind them,
so full logits are never held and autograd keeps none (the idea of Liger-Kernel, arXiv:2410.10989). In bf16 the logits stay in
bf16, and only the softmax computes in float32 inside: 18 ms on two CPU cores (2,048 tokens, width 256, 4,096 words).

Legend: `B` rows, `T` tokens of a row, `N` = B T, `D` width, `V` vocabulary.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from caslon.model.attention import document_attention
from caslon.model.decoder import Decoder
from caslon.model.experts import Routing, balance_loss, expert_counts, routing_measures, share_measures
from caslon.train.batches import Batch

# On a CPU at 4,096 words 8 MB of logits in float32; larger chunks were no faster. A GPU wants products large enough to fill it.
LOSS_CHUNK_TOKENS = {"cpu": 512, "cuda": 8192}
SMALLEST_SHARE = torch.finfo(torch.float32).tiny  # keeps the logarithm finite


@dataclass(frozen=True)
class LossSum:
    """The summed loss of a micro-batch (with its gradient), how many targets it sums over, and sums of other measures.

    The gradient may be that of more than the loss: a penalty adds its own without changing the value that is reported.
    """

    sum: Tensor
    count: int
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


def add_metrics(sums: dict[str, Tensor], metrics: Mapping[str, Tensor]) -> None:
    """Add the metrics of a micro-batch to those of the ones before, where they lie."""
    for name, value in metrics.items():
        sums[name] = sums[name] + value if name in sums else value


class Objective(Protocol):
    """A way to train a model."""

    @property
    def name(self) -> str:
        """The name it has in model folders."""
        ...

    def count(self, batch: Batch) -> int:
        """Return what the summed loss of `batch` is to be divided by."""
        ...

    def loss(self, decoder: Decoder, batch: Batch) -> LossSum:
        """Return the summed loss of a micro-batch."""
        ...

    def measures(self, nats: float, count: int, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return what to report beside the loss, by name, from the sums of loss, targets and metrics over all batches."""
        ...


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy of the next id over the scored targets: `lm` scores all, `sft` the assistant's.

    Where the decoder has experts, its balance loss over the scored tokens adds its gradient.
    """

    name: str = "lm"
    chunk_tokens: int | None = None  # None: what suits the device
    byte_counts: Tensor | None = None  # [V] bytes of text of each id; gives the metric `bytes`

    def count(self, batch: Batch) -> int:
        """Return the number of scored targets."""
        return batch.target_count

    def loss(self, decoder: Decoder, batch: Batch) -> LossSum:
        """Return the summed nats of the scored targets, and how many of them the model would have guessed first."""
        attend = None
        if batch.document_ids is not None:
            half = hidden_is_half(decoder.device.type)
            attend = document_attention(batch.document_ids, batch.document_starts if half else None)
        routings: list[Routing] = []
        hidden = decoder(batch.ids, positions=batch.positions, attend=attend, record=routings.append)
        hidden = hidden.flatten(0, 1)  # [N, D]
        targets, scored = batch.targets.flatten(), batch.scored.flatten()
        is_whole = batch.target_count == scored.numel()
        if not is_whole:  # the head is a good part of the work: spare it the positions nobody scores
            kept = scored.nonzero().squeeze(1)
            hidden, targets = hidden[kept], targets[kept]
        weight, metrics = head_weight(decoder), dict[str, Tensor]()
        chunk = self.chunk_tokens or LOSS_CHUNK_TOKENS[hidden.device.type]
        if hidden.requires_grad:
            total = HeadCrossEntropy.apply(hidden, weight, targets, chunk)  # type: ignore[no-untyped-call]
        else:
            total, right = _measured(hidden, weight, targets, chunk)
            metrics["correct"] = right
        if self.byte_counts is not None:
            metrics["bytes"] = self.byte_counts[targets].sum()
        if routings:
            counted = None if is_whole else scored
            balance = balance_loss(routings, counted)
            penalty = decoder.config.router_aux_loss_coef * len(targets) * balance
            total = total + (penalty - penalty.detach())
            metrics["aux_loss"] = balance.detach() * len(targets)
            metrics["expert_counts"] = torch.stack([expert_counts(routing, counted) for routing in routings])
            metrics["dropped"] = torch.tensor(sum(routing.dropped for routing in routings))
        return LossSum(total, int(targets.numel()), metrics)

    def measures(self, nats: float, count: int, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return bits per byte, accuracy, and how evenly the experts are used, as far as they were counted."""
        found = dict[str, float]()
        if "correct" in sums:
            found["accuracy"] = float(sums["correct"]) / count
        if sums.get("bytes"):
            found["bpb"] = bits_per_byte(nats, float(sums["bytes"]))
        if "expert_counts" in sums:
            found["aux_loss"] = float(sums["aux_loss"]) / count
            found |= routing_measures(sums["expert_counts"])
            found["dropped"] = float(sums["dropped"])
            if "correct" in sums:  # of each expert only when the model is evaluated
                found |= share_measures(sums["expert_counts"])
        return found


def hidden_is_half(device: str) -> bool:
    """Return whether autocast has matrix products on a kind of device computed in 16 bits."""
    return torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) != torch.float32


def head_weight(decoder: Decoder) -> Tensor:
    """Return the output head's weight `[V, D]`: the embedding's when they are tied."""
    head = decoder.model.embed_tokens if decoder.lm_head is None else decoder.lm_head
    return head.weight


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
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        """Return the summed nats (float32), of a target at most those of the smallest probability: 87."""
        kind = hidden.device.type
        compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        to_weight = torch.zeros_like(weight)
        total = torch.zeros((), device=hidden.device)
        with torch.autocast(kind, enabled=False):
            states, head = hidden.to(compute), weight.to(compute)
            to_states = torch.empty_like(states)
            for start in range(0, len(targets), chunk):
                part = slice(start, start + chunk)
                places = torch.arange(len(states[part]), device=hidden.device), targets[part]
                shares = torch.softmax(states[part] @ head.T, dim=1)  # [chunk, V], in float32 inside
                chosen = shares[places]
                total -= chosen.float().clamp_min(SMALLEST_SHARE).log().sum()
                shares[places] = chosen - 1.0  # now the gradient of the logits
                torch.mm(shares, head, out=to_states[part])
                to_weight += shares.T @ states[part]
        ctx.save_for_backward(to_states.to(hidden.dtype), to_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, Tensor, None, None]:
        """Return the stored gradients times the upstream one."""
        states, weight = ctx.saved_tensors
        return states * upstream[0], weight * upstream[0], None, None


def bits_per_byte(nats: float, text_bytes: float) -> float:
    """Return bits per byte of text: the measure that compares models with different tokenizers."""
    return nats / (math.log(2) * text_bytes)
