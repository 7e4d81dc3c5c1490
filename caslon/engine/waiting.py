"""Sequences that wait to run, in the order they will: by priority, then by arrival. Free of torch.

Waiting long raises a sequence: after every 100 steps it counts as of the next higher priority, so none waits for ever.
Within one priority it stays behind those that came before it. Adding takes logarithmic time.
"""

from bisect import insort
from collections.abc import Iterator
from operator import attrgetter

from caslon.engine.request import Sequence

STEPS_PER_RAISE = 100

_arrival = attrgetter("arrival")


class WaitingLine:
    """One line for each priority. `step` counts the steps of the engine."""

    def __init__(self) -> None:
        self.step = 0
        self._lines: dict[int, list[Sequence]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Sequence]:
        for priority in sorted(self._lines):
            yield from self._lines[priority]

    def add(self, sequence: Sequence) -> None:
        """Put a sequence in the line of its priority, after those that arrived before it."""
        sequence.waits_since = self.step
        insort(self._lines.setdefault(sequence.priority, []), sequence, key=_arrival)
        self._count += 1

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out."""
        line = self._lines[sequence.priority]
        line.remove(sequence)
        self._count -= 1
        if not line:
            del self._lines[sequence.priority]

    def first(self) -> Sequence:
        """Return who is next. Not to be asked when nobody waits."""
        return min((line[0] for line in self._lines.values()), key=self.rank)

    def rank(self, sequence: Sequence) -> tuple[int, int]:
        """Return where a waiting sequence stands now: its priority, raised by waiting, and its arrival."""
        return sequence.priority - (self.step - sequence.waits_since) // STEPS_PER_RAISE, sequence.arrival
