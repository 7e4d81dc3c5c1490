"""What a model is trained on: an objective turns a batch into a sum of losses and a count, never a mean.

The trainer divides once by the count of the whole step, so that accumulation and unequal padding change nothing.
The cross-entropy is fused with the output head: the gradient of the logits is made in place, chunk by chunk, right behind them,
so full logits are never held and autograd keeps none (the idea of Liger-Kernel, arXiv:2410.10989). On two CPU cores this took
93 ms where the plain form took 115 to 370 (2,048 tokens, width 256, 4,096 words).

Legend: `B` rows, `T` tokens of a row, `N` = B T, `D` width, `V` vocabulary.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from caslon.model.attention import document_attention
from caslon.model.decoder import Decoder
from caslon.train.batches import Batch

LOSS_CHUNK_TOKENS = 2048  # at 4,096 words 33 MB of logits; 512 was 12 % slower, 4,096 no faster


@dataclass(frozen=True)
class LossSum:
    """The summed loss of a micro-batch (with its gradient), how many targets it sums over, and sums of other measures."""

    sum: Tensor
    count: int
    metrics: Mapping[str, float] = field(default_factory=dict)


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


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy of the next id over the scored targets: `lm` scores all, `sft` the assistant's."""

    name: str = "lm"
    chunk_tokens: int = LOSS_CHUNK_TOKENS
    byte_counts: Tensor | None = None  # [V] bytes of text of each id; gives the metric `bytes`

    def count(self, batch: Batch) -> int:
        """Return the number of scored targets."""
        return batch.target_count

    def loss(self, decoder: Decoder, batch: Batch) -> LossSum:
        """Return the summed nats of the scored targets, and how many of them the model would have guessed first."""
        attend = None if batch.document_ids is None else document_attention(batch.document_ids)
        hidden = decoder(batch.ids, positions=batch.positions, attend=attend).flatten(0, 1)  # [N, D]
        targets, scored = batch.targets.flatten(), batch.scored.flatten()
        if not bool(scored.all()):  # the head is a good part of the work: spare it the positions nobody scores
            kept = scored.nonzero().squeeze(1)
            hidden, targets = hidden[kept], targets[kept]
        total, right = HeadCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, head_weight(decoder), targets, self.chunk_tokens
        )
        metrics = {"correct": float(right)}
        if self.byte_counts is not None:
            metrics["bytes"] = float(self.byte_counts[targets].sum())
        return LossSum(total, int(targets.numel()), metrics)


def head_weight(decoder: Decoder) -> Tensor:
    """Return the output head's weight `[V, D]`: the embedding's when they are tied."""
    head = decoder.model.embed_tokens if decoder.lm_head is None else decoder.lm_head
    return head.weight


class HeadCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of `softmax(hidden @ weight.T)`, with the gradient made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
        """Return the summed nats (float32) and the number of targets with the highest logit."""
        needs_gradient = any(ctx.needs_input_grad[:2])
        kind = hidden.device.type
        compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        with torch.autocast(kind, enabled=False):
            states, head = hidden.to(compute), weight.to(compute)
            gradients = (torch.empty_like(states), torch.zeros_like(weight)) if needs_gradient else None
            total = torch.zeros((), device=hidden.device)
            right = torch.zeros((), dtype=torch.int64, device=hidden.device)
            for start in range(0, len(targets), chunk):
                part = slice(start, start + chunk)
                nats, hits = _chunk(states[part], head, targets[part], part, gradients)
                total += nats
                right += hits
        if gradients is not None:
            ctx.save_for_backward(gradients[0].to(hidden.dtype), gradients[1])
        ctx.mark_non_differentiable(right)
        return total, right

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor, Tensor, None, None]:
        """Return the stored gradients times the upstream one."""
        states, weight = ctx.saved_tensors
        return states * upstream[0], weight * upstream[0], None, None


def _chunk(
    states: Tensor, head: Tensor, targets: Tensor, part: slice, gradients: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    """Return summed nats and hits of some tokens; leave their share of the gradients in `gradients`."""
    logits = (states @ head.T).float()  # [chunk, V]
    column = targets[:, None]
    highest, guess = logits.max(dim=1, keepdim=True)
    chosen = logits.gather(1, column)
    normaliser = logits.sub_(highest).exp_().sum(dim=1, keepdim=True)
    nats = (normaliser.log() + highest - chosen).sum()
    if gradients is not None:
        difference = logits.div_(normaliser)  # the probabilities, and 1 less at the targets
        difference.scatter_add_(1, column, torch.full_like(chosen, -1.0))
        difference = difference.to(states.dtype)
        torch.mm(difference, head, out=gradients[0][part])
        if head.dtype == gradients[1].dtype:
            gradients[1].addmm_(difference.T, states)
        else:
            gradients[1].add_(difference.T @ states)
    return nats, (guess == column).sum()


def bits_per_byte(nats: float, text_bytes: float) -> float:
    """Return bits per byte of text: the measure that compares models with different tokenizers."""
    return nats / (math.log(2) * text_bytes)
