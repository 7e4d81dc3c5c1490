"""What a run carries from step to step beside weights and optimiser state, to JSON in a checkpoint and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

# Of the measures an evaluation gives, these are better when they are higher; losses, perplexities and bits when they are lower.
HIGHER_IS_BETTER = ("accuracy", "f1", "reward", "exact_match")


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    tokens: int = 0
    best_step: int | None = None
    best_value: float | None = None  # of the plan's best_metric
    evaluations_without_gain: int = 0
    recent_loss: float = 0.0  # summed since the last evaluation
    recent_count: int = 0
    rate_scale: float = 1.0  # halved by each rewind of a run that diverged
    stretch_scale: float = 1.0  # of a rewind that was asked for, up to the step `stretch_until`
    stretch_until: int = 0
    skipped_in_row: int = 0
    skipped: int = 0
    rewinds: int = 0
    micro_batch: int = 0
    checkpoint_every: int = 0
    eval_rows: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return asdict(self)

    @staticmethod
    def from_json(state: Mapping[str, Any]) -> "Progress":
        """Return what `to_json` gave, out of a checkpoint's state."""
        return Progress(**{item.name: state[item.name] for item in fields(Progress)})

    def scale(self) -> float:
        """Return the factor of the plan's learning rate at the next step."""
        return self.rate_scale * (self.stretch_scale if self.step < self.stretch_until else 1.0)

    def note_evaluation(self, metric: str, value: float) -> None:
        """Remember the value of the metric that decides which checkpoint is best."""
        sign = -1.0 if metric.endswith(HIGHER_IS_BETTER) else 1.0
        if self.best_value is None or sign * value < sign * self.best_value:
            self.best_value, self.best_step, self.evaluations_without_gain = value, self.step, 0
        else:
            self.evaluations_without_gain += 1
