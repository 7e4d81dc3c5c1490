"""How good a model is on a fixed set of batches: the same ones at every evaluation of a run."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from caslon.model.decoder import Decoder
from caslon.train.batches import Batch, Batches
from caslon.train.objectives import Objective, add_metrics


def fixed_batches(batches: Batches, rows: int, count: int) -> list[Batch]:
    """Return the first `count` batches, or one epoch where that is less: no target is counted twice."""
    whole, rest = divmod(min(count * rows, batches.rows_per_epoch), rows)
    found = [batches.batch(number, rows) for number in range(whole)]
    if rest:
        found.append(next(batches.batch(whole, rows).split(rest)))
    return found


@torch.no_grad()
def validation_metrics(
    decoder: Decoder,
    objective: Objective,
    batches: Sequence[Batch],
    autocast: Callable[[], AbstractContextManager[object]],
    *,
    rows: int | None = None,
    split: str = "val",
) -> dict[str, float]:
    """Return loss, perplexity and the objective's own measures over all targets at once.

    At most `rows` rows are in memory at once; `split` is part of the names: `eval/val_loss`.
    """
    was_training = decoder.training
    decoder.eval()
    nats, count, sums = 0.0, 0, dict[str, Tensor]()
    for batch in (part for whole in batches for part in (whole.split(rows) if rows else (whole,))):
        with autocast():
            part = objective.loss(decoder, batch.to(decoder.device))
        nats += float(part.sum)
        count += part.count
        add_metrics(sums, part.metrics)
    decoder.train(was_training)
    loss = nats / count
    values = {"loss": loss, "ppl": math.exp(min(loss, 700.0)), "tokens": float(count)}
    values |= objective.measures(nats, count, sums)
    return {f"eval/{split}_{name}": value for name, value in values.items()}
