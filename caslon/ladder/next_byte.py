"""Rows of byte values to the cross-entropy of each next one, for networks that are no decoders."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from caslon.ladder.networks import ByteNetwork
from caslon.train.batches import Batch
from caslon.train.objectives.objective import LossSum


@dataclass(frozen=True)
class NextByte:
    """The objective of the ladder's older networks; their 256 scores need no chunks."""

    name: str = "next_byte"

    def collate(self, batch: Batch, rows: range) -> Batch:
        """Return the rows as they are."""
        return batch

    def count(self, batch: Batch) -> int:
        """Return the number of scored targets."""
        return batch.target_count

    def loss(self, model: ByteNetwork, batch: Batch) -> LossSum:
        """Return the summed nats of the scored targets."""
        logits = model.logits(model(batch.ids))[batch.scored]
        return LossSum(F.cross_entropy(logits, batch.targets[batch.scored], reduction="sum"), len(logits))

    def measures(self, nats: float, count: int, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return nothing beside the loss."""
        return {}
