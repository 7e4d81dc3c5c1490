"""An allocator's error to a smaller way of doing the same step: fewer rows at once, then activations computed twice.

The batch of a step stays what it is, and so does the result but for rounding.
"""

import torch

from caslon.errors import OutOfMemory
from caslon.model.config import DecoderConfig
from caslon.model.size import Optimizer, training_memory
from caslon.observe.console import size
from caslon.train.progress import Progress

ALLOCATOR_WORDS = ("can't allocate memory", "out of memory")  # the CPU's allocator only says so in words


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATOR_WORDS)


def shrink_step(progress: Progress, batch: int, advice: str) -> str:
    """Make a step take less memory and return how; `OutOfMemory` with `advice` when nothing is left to do."""
    if progress.micro_batch > 1:
        progress.micro_batch = max(size for size in range(1, progress.micro_batch // 2 + 1) if batch % size == 0)
        parts = batch // progress.micro_batch
        return f"out of memory: going on with micro-batches of {progress.micro_batch}, {parts} of them a step"
    if progress.checkpoint_every != 1:
        progress.checkpoint_every = 1
        return "out of memory: going on with activations computed twice (activation_checkpointing = 'every-block')"
    raise OutOfMemory("one row of the batch does not fit into memory", fix=advice)


def shrink_evaluation(progress: Progress, advice: str) -> str:
    """Make an evaluation take less memory and return how; `OutOfMemory` with `advice` when nothing is left to do."""
    if progress.eval_rows <= 1:
        raise OutOfMemory("one row of an evaluation does not fit into memory", fix=advice)
    progress.eval_rows //= 2
    return f"out of memory in an evaluation: going on with {progress.eval_rows} rows at once"


def memory_advice(config: DecoderConfig, context: int, optimizer: Optimizer) -> str:
    """Return what a step needs at the least, by what holds it, and what to make smaller."""
    least = training_memory(config, micro_batch=1, context=context, optimizer=optimizer, checkpoint_every=1)
    parts = {"weights": least.weights, "gradients": least.gradients, "optimiser": least.optimizer}
    parts |= {"activations": least.activations, "logits": least.logits}
    told = ", ".join(f"{name} {size(count)}" for name, count in parts.items())
    return (
        f"one row of {context} tokens needs about {size(least.total)} ({told}); use a smaller context, width or depth, "
        "optimizer_state = 'int8', or several GPUs with parallel = 'fsdp'"
    )
