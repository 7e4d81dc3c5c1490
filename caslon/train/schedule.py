"""Learning rate by iteration: linear warm-up, then a shape, then the floor.

Warm-up rises as `peak * (it + 1) / (warmup + 1)`, so that the first step already learns and the step after warm-up has the peak.
Shapes: cosine (arXiv:1608.03983, one half wave), linear, constant, and wsd (warm-up, stable, decay; arXiv:2404.06395).
"""

import math
from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["cosine", "linear", "constant", "wsd"]


@dataclass(frozen=True)
class Schedule:
    """The learning rate of a run of `steps` steps. `decay_steps` counts for wsd only."""

    name: ScheduleName
    peak: float
    steps: int
    warmup_steps: int = 0
    floor: float = 0.0
    decay_steps: int = 0

    def rate(self, iteration: int) -> float:
        """Return the rate of the 0-based `iteration`; from `steps` on it is the floor (constant: the peak)."""
        if iteration < self.warmup_steps:
            return self.peak * (iteration + 1) / (self.warmup_steps + 1)
        if self.name == "constant":
            return self.peak
        if iteration >= self.steps:
            return self.floor
        return self.floor + (self.peak - self.floor) * self._share(iteration)

    def _share(self, iteration: int) -> float:
        """Return where between floor (0) and peak (1) the rate is, after warm-up."""
        if self.name == "wsd":
            return min(1.0, (self.steps - iteration) / max(1, self.decay_steps))
        done = (iteration - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return 0.5 * (1.0 + math.cos(math.pi * done)) if self.name == "cosine" else 1.0 - done
