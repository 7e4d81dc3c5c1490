"""Signals and time limits to a wish to stop after the step at hand, so that a run is saved before it ends."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopWish:
    """Why a run should stop after this step: the first SIGTERM or SIGINT, or the end of its time. A second signal acts at once.

    `max_minutes` count from the moment this is made.
    """

    def __init__(self, max_minutes: float | None) -> None:
        self.max_minutes = max_minutes
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._signal: str | None = None

    @property
    def reason(self) -> str | None:
        """What asked the run to stop, or None."""
        if self._signal is None and self._deadline is not None and time.monotonic() >= self._deadline:
            return f"max_minutes = {self.max_minutes:g}"
        return self._signal

    def ask(self, reason: str) -> None:
        """Ask the run to stop."""
        self._signal = reason

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the place of the process's handlers for SIGTERM and SIGINT."""

        def note(number: int, frame: FrameType | None) -> None:
            which = signal.Signals(number)
            self.ask(which.name)
            signal.signal(which, previous[which])

        try:
            previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: signals are somebody else's there
            yield
            return
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
