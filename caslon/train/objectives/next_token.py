"""Rows of ids to the cross-entropy of each next one: `lm` over all text, `sft` over what an assistant says."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from caslon.model.attention import document_attention
from caslon.model.decoder import Decoder
from caslon.model.experts import Routing, expert_counts, layerwise_balance_loss, routing_measures, share_measures
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.batches import Batch
from caslon.train.objectives.head_loss import head_loss, hidden_is_half
from caslon.train.objectives.objective import LossSum, bits_per_byte


@dataclass(frozen=True)
class NextToken:
    """Cross-entropy of the next id over the scored targets: `lm` scores all, `sft` the assistant's.

    Where the decoder has experts, the balance loss of its layers over the scored tokens adds its gradient.
    """

    name: str = "lm"
    chunk_tokens: int | None = None  # None: what suits the device
    byte_counts: Tensor | None = None  # [V] bytes of text of each id; gives the metric `bytes`
    z_loss: float = 0.0

    def collate(self, batch: Batch, rows: range) -> Batch:
        """Return the rows as they are."""
        return batch

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
        total, metrics = head_loss(
            hidden, head_weight(decoder), targets, chunk_tokens=self.chunk_tokens, z_loss=self.z_loss
        )
        if self.byte_counts is not None:
            metrics["bytes"] = self.byte_counts[targets].sum()
        if routings:
            counted = None if is_whole else scored
            balance = layerwise_balance_loss(routings, counted)
            penalty = decoder.config.router_aux_loss_coef * len(targets) * balance
            total = total + (penalty - penalty.detach())
            metrics["aux_loss"] = balance.detach() * len(targets)
            metrics["expert_counts"] = torch.stack([expert_counts(routing, counted) for routing in routings])
            metrics["dropped"] = torch.tensor(sum(routing.dropped for routing in routings), device=balance.device)
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


def byte_counts(tokenizer: Tokenizer, device: torch.device) -> Tensor:
    """Return `[V]` the bytes of text each id stands for: none for special tokens."""
    special = tokenizer.special_ids
    sizes = [0 if id in special else len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)]
    return torch.tensor(sizes, device=device)


def head_weight(decoder: Decoder) -> Tensor:
    """Return the output head's weight `[V, D]`: the embedding's when they are tied."""
    head = decoder.model.embed_tokens if decoder.lm_head is None else decoder.lm_head
    return head.weight
