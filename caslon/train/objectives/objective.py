"""A batch to a sum of losses and a count: what every objective is to the training loop."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from caslon.train.batches import Batch, Batches, row_numbers


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

    def collate(self, batch: Batch, rows: range) -> Batch:
        """Return plain rows, which have these numbers in the endless sequence, as what the loss takes."""
        ...

    def count(self, batch: Batch) -> int:
        """Return what the summed loss of `batch` is to be divided by."""
        ...

    def loss(self, model: Any, batch: Batch) -> LossSum:
        """Return the summed loss of a micro-batch."""
        ...

    def measures(self, nats: float, count: int, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return what to report beside the loss, by name, from the sums of loss, targets and metrics over all batches."""
        ...


@dataclass(frozen=True)
class CollatedBatches:
    """The rows of a data set as an objective takes them."""

    rows: Batches
    objective: Objective

    @property
    def rows_per_epoch(self) -> int:
        """How many rows show every target once."""
        return self.rows.rows_per_epoch

    def batch(self, step: int, rows: int) -> Batch:
        """Return the `rows` rows of the 0-based `step`."""
        return self.objective.collate(self.rows.batch(step, rows), row_numbers(step, rows))


def bits_per_byte(nats: float, text_bytes: float) -> float:
    """Return bits per byte of text: the measure that compares models with different tokenizers."""
    return nats / (math.log(2) * text_bytes)
