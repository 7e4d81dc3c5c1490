"""Options of training to what each is worth on this machine: one at a time against a plain step, in a fresh process each.

The published claims stand beside the figures, with a verdict for this machine. Memory is the growth of the process from before
the model was built to its peak; activations are what of it is not weights, gradients and optimiser.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caslon.model.config import DecoderConfig
from caslon.model.size import training_memory

if TYPE_CHECKING:
    from caslon.train.precision import Compute

WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Variant:
    """A way to take a step. The defaults are the plain one."""

    name: str
    precision: str = "fp32"
    compiled: bool = False
    fused: bool = False
    parts: int = 1  # micro-batches of a step
    checkpoint_every: int = 0
    chunk_tokens: int = 1 << 30  # all logits at once
    mask_documents: bool = False


@dataclass(frozen=True)
class Claim:
    """What was published of a variant, and whether its measurement (beside the plain one's) agrees."""

    variant: str
    text: str
    is_met: Callable[["Measured", "Measured"], bool]


@dataclass(frozen=True)
class Measured:
    """A variant's speed and memory, or why it could not be measured."""

    variant: Variant
    steps_per_second: float = 0.0
    peak_bytes: int = 0
    state_bytes: int = 0
    failure: str = ""

    @property
    def activation_bytes(self) -> int:
        """Memory beside weights, gradients and optimiser."""
        return max(1, self.peak_bytes - self.state_bytes)


PLAIN = Variant("plain")
VARIANTS = (
    PLAIN,
    Variant("bf16", precision="bf16"),
    Variant("compile", compiled=True),
    Variant("bf16 + compile", precision="bf16", compiled=True),
    Variant("fused AdamW", fused=True),
    Variant("accumulation", parts=4),
    Variant("checkpointing", checkpoint_every=1),
    Variant("accumulation + checkpointing", parts=4, checkpoint_every=1),
    Variant("chunked loss", chunk_tokens=512),
    Variant("document masking", mask_documents=True),
)
CLAIMS = (
    Claim("bf16 + compile", "2 to 3 times the speed", lambda new, old: _times(new, old) >= 2),
    Claim("compile", "1.2 to 1.5 times the speed", lambda new, old: _times(new, old) >= 1.2),
    Claim("fused AdamW", "10 to 20 % faster", lambda new, old: _times(new, old) >= 1.1),
    Claim("bf16", "half the activation memory", lambda new, old: new.activation_bytes <= 0.55 * old.activation_bytes),
    Claim("accumulation + checkpointing", "60 % less memory", lambda new, old: new.peak_bytes <= 0.4 * old.peak_bytes),
    Claim("document masking", "at most 30 % slower", lambda new, old: _times(new, old) >= 1 / 1.3),
)  # the last is caslon's own


def _times(new: Measured, old: Measured) -> float:
    return new.steps_per_second / old.steps_per_second


def measure_all(config: DecoderConfig, batch: int, steps: int) -> Iterator[Measured]:
    """Yield the measurement of every variant, each from a process of its own, so that no memory of another is counted."""
    for variant in VARIANTS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool.submit(measure, variant, config, batch, steps).result()


def measure(variant: Variant, config: DecoderConfig, batch: int, steps: int) -> Measured:
    """Return the median speed of a variant's steps, and the peak of its memory, in this process."""
    from caslon.train.peak import memory_gb
    from caslon.train.precision import choose_compute
    from caslon.train.settings import DeviceSettings

    given = DeviceSettings.model_validate({"precision": variant.precision, "fallback_to_fp32": True})
    compute = choose_compute(given)
    if compute.precision != variant.precision:
        return Measured(variant, failure=f"no {variant.precision} here")
    before = memory_gb(compute.device)
    try:
        seconds = _durations(variant, config, batch, steps, compute)
    except Exception as error:  # a compiler that is missing shows in many ways
        if not variant.compiled:
            raise
        return Measured(variant, failure=f"does not compile here: {type(error).__name__}")
    peak = round((memory_gb(compute.device) - before) * 1e9)
    state = training_memory(config, micro_batch=1).state
    return Measured(variant, 1 / statistics.median(seconds), peak, state)


def _durations(variant: Variant, config: DecoderConfig, batch: int, steps: int, compute: "Compute") -> list[float]:
    import torch

    from caslon.model.decoder import Decoder
    from caslon.train.compilation import CompiledLayers
    from caslon.train.objectives import NextToken
    from caslon.train.timed_steps import random_rows

    decoder = Decoder(config)
    decoder.initialise(0)
    decoder.to(compute.device).train()
    decoder.checkpoint_every = variant.checkpoint_every
    CompiledLayers(decoder, wanted=variant.compiled)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-4, fused=variant.fused)
    objective = NextToken(chunk_tokens=variant.chunk_tokens)
    rows = random_rows(config, batch, config.max_position_embeddings, variant.mask_documents)
    durations = []
    for _ in range(WARM_UP_STEPS + steps):
        began = time.perf_counter()
        for micro in rows.split(batch // variant.parts):
            with compute.autocast():
                part = objective.loss(decoder, micro.to(compute.device))
            (part.sum / rows.target_count).backward()  # type: ignore[no-untyped-call]
        float(torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0))  # waits for the device
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        durations.append(time.perf_counter() - began)
    return durations[WARM_UP_STEPS:]


def verdicts(measured: list[Measured]) -> dict[str, tuple[str, str]]:
    """Return for each variant with a claim what was published and `met`, `not met` or `not measured`, on this machine."""
    by_name = {one.variant.name: one for one in measured}
    plain, found = by_name[PLAIN.name], dict[str, tuple[str, str]]()
    for claim in CLAIMS:
        one = by_name[claim.variant]
        verdict = "not measured" if one.failure else "met" if claim.is_met(one, plain) else "not met"
        found[claim.variant] = claim.text, verdict
    return found
