"""Remembers how an upstream fared: after five failures in a row nobody asks it for half a minute, then one may try.

Source: M. Nygard, Release It!, the circuit breaker.
"""

import threading
import time
from collections.abc import Callable

MOST_FAILURES = 5
OPEN_SECONDS = 30.0


class Breaker:
    """One upstream's. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._opened: float | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the upstream is left alone, but for one that tries."""
        return self._opened is not None

    def lets_through(self) -> bool:
        """Return whether it may be asked now; after the time to wait, whoever comes first tries for all."""
        with self._lock:
            if self._opened is None:
                return True
            if self._clock() - self._opened < OPEN_SECONDS:
                return False
            self._opened = self._clock()
            return True

    def succeeded(self) -> None:
        """Note that it answered."""
        with self._lock:
            self._failures, self._opened = 0, None

    def failed(self) -> None:
        """Note that it did not."""
        with self._lock:
            self._failures += 1
            if self._failures >= MOST_FAILURES:
                self._opened = self._clock()
