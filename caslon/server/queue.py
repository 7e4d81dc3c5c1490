"""The queue before the engine: answers wait in line by key, and the lines take turns.

A key with five hundred waiting answers delays another key's single one by one admission, not by five hundred. A key's weight is
how many answers it may send in each round. The engine never has more than it works on at once, so its order is this queue's.
Source: weighted round robin, https://en.wikipedia.org/wiki/Weighted_round_robin
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from caslon.server.errors import SERVER_ERROR, Refused

Job = TypeVar("Job")


class Line(Generic[Job]):
    """The waiting answers of one key, and how many more it may send in this round."""

    def __init__(self, weight: int) -> None:
        self.jobs: deque[Job] = deque()
        self.weight = weight
        self.credit = weight


class FairQueue(Generic[Job]):
    """Waiting and running answers of one server. Safe to use from many threads."""

    def __init__(self, running: int, waiting: int) -> None:
        self.most_running = running
        self.most = running + waiting
        self.draining = False
        self.waiting = 0
        self.running = 0
        self._lines: dict[str, Line[Job]] = {}  # in the order of their turns
        self._seconds_per_answer = 1.0
        self._last_end: float | None = None
        self._lock = threading.Lock()

    @property
    def open(self) -> int:
        """Answers that were taken and have not ended."""
        return self.waiting + self.running

    def put(self, holder: str, weight: int, jobs: Sequence[Job]) -> None:
        """Let a request's answers wait, all or none; `Refused` (503) when there is no room or the server goes down."""
        with self._lock:
            if self.draining:
                raise Refused(503, "the server is shutting down", code="draining", kind=SERVER_ERROR)
            # A request for more answers than the queue holds is taken when nothing else is open.
            if self.open and self.open + len(jobs) > self.most:
                raise self._overloaded()
            line = self._lines.setdefault(holder, Line(weight))
            line.jobs.extend(jobs)
            self.waiting += len(jobs)

    def take(self) -> Job | None:
        """Return the answer whose turn it is, which runs from now on; None when none waits or there is no room."""
        with self._lock:
            if not self.waiting or self.running >= self.most_running:
                return None
            holder, line = next(iter(self._lines.items()))
            job = line.jobs.popleft()
            line.credit -= 1
            if not line.jobs or not line.credit:
                del self._lines[holder]
            if line.jobs and not line.credit:
                line.credit = line.weight
                self._lines[holder] = line
            self.waiting -= 1
            self.running += 1
            return job

    def remove(self, job: Job) -> bool:
        """Take out an answer that still waits; False when it waits no more."""
        with self._lock:
            for holder, line in self._lines.items():
                if job in line.jobs:
                    line.jobs.remove(job)
                    self.waiting -= 1
                    if not line.jobs:
                        del self._lines[holder]
                    return True
            return False

    def leave(self) -> None:
        """Note the end of a running answer."""
        with self._lock:
            self.running -= 1
            now = time.monotonic()
            if self._last_end is not None and self.open:
                self._seconds_per_answer += 0.2 * (now - self._last_end - self._seconds_per_answer)
            self._last_end = now

    def _overloaded(self) -> Refused:
        waiting = max(1, self.open - self.most_running + 1)
        seconds = min(60, max(1, math.ceil(waiting * self._seconds_per_answer)))
        message = f"{self.open} answers are running or waiting; at most {self.most} are taken"
        return Refused(503, message, code="overloaded", kind=SERVER_ERROR, headers={"retry-after": str(seconds)})
