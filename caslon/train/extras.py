"""What a training stage hands the loop beside the training itself, and what it gets back when the run has ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from caslon.model.decoder import Decoder
from caslon.model.folder import ModelFolder
from caslon.train.batches import Batch
from caslon.train.peak import Peak

LESS_MEMORY = "use a smaller context or a smaller model"

Sampler = Callable[[Decoder, int], Sequence[tuple[str, str]]]
"""`(decoder, step) -> [(prompt, text), ...]`, the same for the same weights."""


def decoder_weights(folder: Path) -> dict[str, Tensor]:
    """Return the weights of a decoder's model folder by the names of its parameters."""
    return ModelFolder.open(folder).load().state_dict()


@dataclass(frozen=True)
class Extras:
    """What the loop does beside learning, passed in by the stage."""

    validation: Sequence[Batch] = ()
    training: Sequence[Batch] = ()  # measured beside them; without any, the mean since the last evaluation is shown
    sample: Sampler | None = None
    read_weights: Callable[[Path], dict[str, Tensor]] = decoder_weights  # of a checkpoint
    measure: Callable[[Decoder, int], Mapping[str, float]] | None = None  # more values at an evaluation
    lineage: Mapping[str, Any] = field(default_factory=dict)  # digests that must stay the same when a run is resumed
    flops_per_token: int = 0
    peak: Peak | None = None  # of the device: what `train/mfu` is a share of
    chance_loss: float | None = None  # of a model that knows nothing
    recipe: Mapping[str, Any] = field(default_factory=dict)  # the settings, to be read in a checkpoint
    memory_advice: str = LESS_MEMORY  # said when nothing the loop can do makes a step fit
    rewind_command: str = "caslon rewind RUN --steps 100 --lr-scale 0.1 --for 200"
    allow_change: bool = False  # of settings that alter no shape, when a run is resumed


NO_EXTRAS = Extras()


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    tokens: int
    best: Path
    best_step: int
    metrics: Mapping[str, float]  # of the best checkpoint's evaluation
    skipped: int
