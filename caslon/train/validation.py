"""How good a model is on a fixed set of batches: the same ones at every evaluation of a run."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from caslon.model.decoder import Decoder
from caslon.train.batches import Batch, Batches
from caslon.train.distributed import ALONE, Processes
from caslon.train.objectives import Objective, add_metrics
from caslon.train.precision import Compute


def fixed_batches(batches: Batches, rows: int, count: int) -> list[Batch]:
    """Return the first `count` batches, or one epoch where that is less: no target is counted twice."""
    whole, rest = divmod(min(count * rows, batches.rows_per_epoch), rows)
    found = [batches.batch(number, rows) for number in range(whole)]
    if rest:
        found.append(next(batches.batch(whole, rows).split(rest)))
    return found


@torch.no_grad()
def validation_sums(
    decoder: Decoder,
    objective: Objective,
    batches: Sequence[Batch],
    compute: Compute,
    processes: Processes = ALONE,
    *,
    rows: int,
) -> dict[str, Tensor]:
    """Return the summed `nats`, the `count` of targets and the objective's sums over this process's share of the batches.

    At most `rows` rows are in memory at once.
    """
    was_training = decoder.training
    decoder.eval()
    sums = {"nats": torch.zeros((), dtype=torch.float64), "count": torch.zeros((), dtype=torch.int64)}
    for batch in (part for whole in batches for part in whole.split(rows * processes.world)):
        share, counts = processes.share(batch)
        with compute.autocast():
            part = objective.loss(decoder, share.to(compute.device))
        found = {"nats": part.sum.double().cpu(), "count": torch.tensor(part.count), **part.metrics}
        add_metrics(sums, found if counts else {name: torch.zeros_like(value) for name, value in found.items()})
    decoder.train(was_training)
    processes.rest(decoder)
    return sums


def measures_of(objective: Objective, sums: Mapping[str, Tensor], split: str) -> dict[str, float]:
    """Return loss, perplexity and the objective's own measures; `split` is part of the names: `eval/val_loss`."""
    nats, count = float(sums["nats"]), int(sums["count"])
    loss = nats / count
    values = {"loss": loss, "ppl": math.exp(min(loss, 700.0)), "tokens": float(count)}
    values |= objective.measures(nats, count, sums)
    return {f"eval/{split}_{name}": value for name, value in values.items()}
