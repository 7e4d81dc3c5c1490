"""A shape and a training plan to the duration of a step here: three timed steps of a fresh model on random ids, then thrown away.

What is timed is what a step does: forward, backward, clipping and the update, of one micro-batch; the others cost the same.
"""

import statistics
import time
from functools import lru_cache

import numpy as np
import torch

from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.train.batches import Batch, Documents, PackedBatches
from caslon.train.objectives import NextToken
from caslon.train.optimizer import Optimizer
from caslon.train.plan import TrainPlan
from caslon.train.precision import Compute

TIMED_STEPS = 3
WARM_UP_STEPS = 2
RUNS = WARM_UP_STEPS + TIMED_STEPS
DOCUMENT_TOKENS = 500  # a document of the corpora that caslon is made for


@lru_cache(maxsize=4)  # a plan that was printed before a run is the run's forecast too
def seconds_of_step(config: DecoderConfig, plan: TrainPlan, compute: Compute, mask_documents: bool) -> float:
    """Return the median duration of a training step in seconds. The global random generators are left as they were."""
    with torch.random.fork_rng(devices=[compute.device] if compute.device.type == "cuda" else []):
        return _timed(config, plan, compute, random_rows(config, plan.micro_batch, plan.context, mask_documents))


def _timed(config: DecoderConfig, plan: TrainPlan, compute: Compute, batch: Batch) -> float:
    decoder = Decoder(config)
    decoder.initialise(0)
    decoder.to(compute.device).train()
    decoder.checkpoint_every = plan.checkpoint_every
    optimizer = optimizer_of(decoder, plan, compute)
    objective, batch = NextToken(), batch.to(compute.device)
    micro_seconds, update_seconds = [], []
    for _ in range(RUNS):
        began = time.perf_counter()
        with compute.autocast():
            part = objective.loss(decoder, batch)
        (part.sum / part.count).backward()  # type: ignore[no-untyped-call]
        float(part.sum.detach())  # waits for the device
        made = time.perf_counter()
        float(torch.nn.utils.clip_grad_norm_(decoder.parameters(), plan.clip))
        optimizer.step(1e-4)
        decoder.zero_grad(set_to_none=True)
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
        micro_seconds.append(made - began)
        update_seconds.append(time.perf_counter() - made)
    whole = plan.batch // plan.micro_batch
    return whole * statistics.median(micro_seconds[-TIMED_STEPS:]) + statistics.median(update_seconds[-TIMED_STEPS:])


def optimizer_of(decoder: Decoder, plan: TrainPlan, compute: Compute) -> Optimizer:
    """Return the optimiser that a plan asks for."""
    return Optimizer(
        decoder,
        plan.optimizer,
        weight_decay=plan.weight_decay,
        table_rate_ratio=plan.table_rate_ratio,
        head_rate_ratio=plan.head_rate_ratio,
        momentum=plan.momentum,
        beta1=plan.beta1,
        product_dtype=compute.product_dtype,
    )


def random_rows(config: DecoderConfig, rows: int, context: int, mask_documents: bool) -> Batch:
    """Return a batch of random ids in documents of usual length: what is in them does not change the speed."""
    count = rows * context // DOCUMENT_TOKENS + 2
    ids = np.random.default_rng(0).integers(1, config.vocab_size, size=count * DOCUMENT_TOKENS)
    ids[DOCUMENT_TOKENS - 1 :: DOCUMENT_TOKENS] = 0
    documents = Documents(ids, np.arange(count + 1, dtype=np.int64) * DOCUMENT_TOKENS, end_id=0)
    return PackedBatches(documents, context, 0, mask_documents).batch(0, rows)
