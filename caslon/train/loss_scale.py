"""Overflow of float16 gradients to the factor that the loss is multiplied by, so that small gradients are not lost as zeros.

The factor starts high, is halved when a gradient overflows (the step is then taken again), and doubled after many steps without
(arXiv:1710.03740). A loss that is itself not finite is no matter of the factor.
"""

from dataclasses import dataclass

START = 65536.0
LOWEST, HIGHEST = 1.0, 2.0**24
STEPS_BEFORE_GROWTH = 2000


@dataclass
class LossScale:
    """The factor now, and how many steps it has held. Other formats than float16 keep a factor of 1."""

    value: float = START
    steps: int = 0

    def held(self) -> None:
        """Note a step without overflow."""
        self.steps += 1
        if self.steps == STEPS_BEFORE_GROWTH:
            self.value, self.steps = min(HIGHEST, 2 * self.value), 0

    def overflowed(self) -> bool:
        """Halve the factor; return whether that is a reason to try the step again."""
        if self.value <= LOWEST:
            return False
        self.value, self.steps = self.value / 2, 0
        return True
