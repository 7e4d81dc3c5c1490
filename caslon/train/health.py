"""Losses, gradient norms and evaluations of a run to notes on its health, each said once.

A note is a sign, not a verdict: nothing here changes the run. What was seen so far is part of a checkpoint, so that a run in
pieces says what a run in one says; only the note on slow data depends on the machine and is said once in every piece.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

WARM_STEPS = 200  # a loss above chance is normal before
WINDOW_STEPS = 100  # losses are averaged over, since single ones jump
STEPS_WITHOUT_FALL = 1000
HIGH_NORM, HIGH_NORM_STEPS = 10.0, 20
MANY_EPOCHS = 4  # beyond, repeated data teach little: arXiv:2305.16264
EVALUATIONS_OF_A_TREND = 3
PLATEAU_EVALUATIONS, PLATEAU_GAIN, PLATEAU_SHARE = 10, 0.005, 0.9
WAIT_SHARE, WAIT_STEPS = 0.1, 50


@dataclass
class Seen:
    """What the notes are worked out from."""

    said: list[str] = field(default_factory=list)
    window_sum: float = 0.0
    window_count: int = 0
    lowest: float | None = None  # mean of a window
    lowest_step: int = 0
    high_norms: int = 0  # in a row
    evaluations: list[tuple[float, float]] = field(default_factory=list)  # the last ones: training, validation
    best_before: float | None = None  # validation loss, of the evaluations before those


class Health:
    """Watches one run."""

    def __init__(self, *, chance_loss: float | None, rows_per_step: int, rows_per_epoch: int, rewind: str) -> None:
        self.chance_loss, self.rewind = chance_loss, rewind
        self.many_epochs_step = MANY_EPOCHS * rows_per_epoch // rows_per_step + 1
        self.seen = Seen()
        self._step_seconds, self._wait_seconds, self._timed, self._said_slow = 0.0, 0.0, 0, False

    def state(self) -> dict[str, Any]:
        """Return what was seen, for a checkpoint."""
        return asdict(self.seen)

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state()` returned."""
        self.seen = Seen(**state)
        self.seen.evaluations = [(train, validation) for train, validation in self.seen.evaluations]

    def after_step(self, step: int, loss: float, norm: float) -> list[str]:
        """Return what is new to say after a step."""
        return self._new(self._about_step(step, loss, norm))

    def after_evaluation(self, share_done: float, train_loss: float, validation_loss: float) -> list[str]:
        """Return what is new to say after an evaluation, when `share_done` of the steps are."""
        return self._new(self._about_evaluation(share_done, train_loss, validation_loss))

    def after_waiting(self, wait_seconds: float, step_seconds: float) -> list[str]:
        """Return the note on slow data, when a step of so many seconds waited so long for its batch, once in a process."""
        self._timed += 1
        self._wait_seconds += wait_seconds
        self._step_seconds += step_seconds
        share = self._wait_seconds / self._step_seconds if self._step_seconds else 0.0
        if self._said_slow or self._timed < WAIT_STEPS or share <= WAIT_SHARE:
            return []
        self._said_slow = True
        return [
            f"slow data: {share:.0%} of the step time is spent waiting for batches; use a faster disk or more threads"
        ]

    def _new(self, notes: Iterator[tuple[str, str]]) -> list[str]:
        found = [(name, text) for name, text in notes if name not in self.seen.said]
        self.seen.said += [name for name, _ in found]
        return [text for _, text in found]

    def _about_step(self, step: int, loss: float, norm: float) -> Iterator[tuple[str, str]]:
        seen = self.seen
        seen.high_norms = seen.high_norms + 1 if norm > HIGH_NORM else 0
        if seen.high_norms >= HIGH_NORM_STEPS:
            yield (
                "gradient norm",
                f"large gradients: their norm was above {HIGH_NORM:g} for {HIGH_NORM_STEPS} steps up to step {step}; "
                "lower learning_rate or raise warmup_steps",
            )
        if step >= self.many_epochs_step:
            yield (
                "epochs",
                f"repeated data: the same text is now read for the {MANY_EPOCHS + 1}th time; "
                "use more text, fewer steps or a smaller model",
            )
        seen.window_sum, seen.window_count = seen.window_sum + loss, seen.window_count + 1
        if seen.window_count == WINDOW_STEPS:
            mean, seen.window_sum, seen.window_count = seen.window_sum / WINDOW_STEPS, 0.0, 0
            yield from self._about_window(step, mean)

    def _about_window(self, step: int, mean: float) -> Iterator[tuple[str, str]]:
        seen = self.seen
        if self.chance_loss is not None and step >= WARM_STEPS and mean > self.chance_loss:
            yield (
                "chance",
                f"no better than chance: the loss is {mean:.3f} at step {step}, and guessing every token alike gives "
                f"{self.chance_loss:.3f}; lower learning_rate, or look at the data",
            )
        if seen.lowest is None or mean < seen.lowest:
            seen.lowest, seen.lowest_step = mean, step
        elif step - seen.lowest_step >= STEPS_WITHOUT_FALL:
            yield (
                "no fall",
                f"no progress: the training loss has not fallen since step {seen.lowest_step} (mean {seen.lowest:.3f})",
            )

    def _about_evaluation(self, share_done: float, train: float, validation: float) -> Iterator[tuple[str, str]]:
        seen = self.seen
        seen.evaluations.append((train, validation))
        if len(seen.evaluations) > PLATEAU_EVALUATIONS:
            older = seen.evaluations.pop(0)[1]
            seen.best_before = min(older, math.inf if seen.best_before is None else seen.best_before)
        trend = seen.evaluations[-EVALUATIONS_OF_A_TREND:]
        pairs = list(pairwise(trend))
        if len(trend) == EVALUATIONS_OF_A_TREND and all(a[0] > b[0] and a[1] < b[1] for a, b in pairs):
            yield (
                "over-fitting",
                f"learning by heart: validation loss rises ({trend[0][1]:.4f} to {trend[-1][1]:.4f}) while training loss "
                "falls; stop here, use more text or dropout",
            )
        if seen.best_before is None or share_done >= PLATEAU_SHARE:
            return
        best = min(value for _, value in seen.evaluations)
        if best > (1 - PLATEAU_GAIN) * seen.best_before:
            yield (
                "plateau",
                f"plateau suspected: validation loss has not improved by {PLATEAU_GAIN:.1%} over {PLATEAU_EVALUATIONS} "
                f"evaluations (best {best:.4f}); stop the run and try: {self.rewind}",
            )
