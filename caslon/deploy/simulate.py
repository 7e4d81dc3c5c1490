"""A trace of arrivals and a policy to what would come of it: waits beyond the limit, flaps, replica-hours.

One step is a second. A replica answers up to its knee at once, each answer takes a fixed time, and those beyond wait in one
queue in order of arrival.
"""

import csv
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from caslon.deploy.autoscale import Autoscaler, Policy
from caslon.errors import UserError

FLAP_SECONDS = 600.0  # up and down again within ten minutes was for nothing
DECISION_SECONDS = 15  # the autoscaler's own period


@dataclass(frozen=True)
class Outcome:
    """What came of a policy. A miss is a request that waited longer than the limit, a flap a scale-up undone within minutes."""

    requests: int
    misses: int
    flaps: int
    replica_hours: float
    most_replicas: int
    longest_wait_seconds: float


def read_arrivals(path: Path) -> list[float]:
    """Return the times of arrivals of a CSV file with a column `time_seconds`, in order; `UserError` where it has none."""
    if not path.is_file():
        raise UserError(f"no file {path}", fix="give a CSV file with a column time_seconds")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if "time_seconds" not in (reader.fieldnames or ()):
            raise UserError("needs a column time_seconds", where=str(path))
        try:
            times = sorted(float(row["time_seconds"]) for row in reader)
        except ValueError as error:
            raise UserError(f"not a number: {error}", where=f"{path}, line {reader.line_num}") from None
    if not times:
        raise UserError("no arrivals here", where=str(path))
    return times


def simulated(arrivals: Sequence[float], policy: Policy, *, answer_seconds: float, slo_wait_seconds: float) -> Outcome:
    """Return what a policy makes of arrivals (seconds, in order), until the last one is answered."""
    scaler = Autoscaler(policy)
    ready, starting = max(policy.min_replicas, 1), deque[float]()
    ends: Counter[int] = Counter()
    queue: deque[float] = deque()
    load: deque[int] = deque(maxlen=round(policy.metric_window_seconds))
    changes: list[tuple[float, int]] = []
    running = misses = 0
    replica_seconds, longest, most = 0.0, 0.0, ready
    coming = deque(arrivals)
    now = 0
    while coming or queue or running:
        while starting and starting[0] <= now:
            starting.popleft()
            ready += 1
        running -= ends.pop(now, 0)
        while coming and coming[0] <= now:
            queue.append(coming.popleft())
        while queue and running < int(policy.knee_users) * ready:
            wait = now - queue.popleft()
            misses += wait > slo_wait_seconds
            longest = max(longest, wait)
            running += 1
            ends[now + max(1, round(answer_seconds))] += 1
        load.append(running + len(queue))
        replicas = ready + len(starting)
        if now % DECISION_SECONDS == 0:
            wanted = scaler.replicas(now, replicas, sum(load) / len(load))
            if wanted != replicas:
                changes.append((now, wanted - replicas))
            starting.extend([now + policy.boot_seconds] * (wanted - replicas))
            for _ in range(replicas - wanted):
                if starting:
                    starting.pop()
                else:
                    ready -= 1
        replica_seconds += ready + len(starting)
        most = max(most, ready + len(starting))
        now += 1
    return Outcome(len(arrivals), misses, _flaps(changes), replica_seconds / 3600, most, longest)


def _flaps(changes: Sequence[tuple[float, int]]) -> int:
    """Count scale-ups that a step down followed within minutes."""
    return sum(
        up > 0 and any(down < 0 and at < later <= at + FLAP_SECONDS for later, down in changes) for at, up in changes
    )
