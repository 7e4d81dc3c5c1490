"""The requests of a rising load to its knee: how many users a service carries before more of them bring nothing.

Reads `stats.csv`, a line for each request, as `benchmarks/locustfile.py` writes it. Time is cut into windows; those with the
same number of users are taken together, and the knee is where most requests per second are answered.
"""

import csv
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from caslon.bench.figures import percentile
from caslon.errors import UserError

COLUMNS = ("time_seconds", "users", "latency_seconds", "ttft_seconds", "output_tokens", "tokens_per_second", "error")
WINDOW_SECONDS = 10.0


@dataclass(frozen=True)
class Request:
    """One answered or failed request: when it ended, among how many users, and how it went."""

    time_seconds: float
    users: int
    latency_seconds: float
    ttft_seconds: float | None
    output_tokens: int
    error: str


@dataclass(frozen=True)
class Level:
    """What a service did for one number of users. Failed requests count in `failed` alone."""

    users: int
    requests_per_second: float
    tokens_per_second: float
    latency_p50: float
    latency_p95: float
    ttft_p50: float | None
    failed: int


@dataclass(frozen=True)
class Knee:
    """Every level in order of users, and the one with the most requests per second; the fewest users where several have."""

    levels: Sequence[Level]

    @property
    def peak(self) -> Level:
        """The level of the knee."""
        return max(self.levels, key=lambda level: (level.requests_per_second, -level.users))

    def replicas(self, peak_requests_per_second: float) -> int:
        """Return how many such services carry a peak of traffic."""
        return math.ceil(peak_requests_per_second / self.peak.requests_per_second)


def read_requests(path: Path) -> list[Request]:
    """Return the requests of a file; `UserError` where it is not one."""
    if not path.is_file():
        raise UserError(f"no file {path}", fix="run locust -f benchmarks/locustfile.py first")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not set(COLUMNS) <= set(reader.fieldnames or ()):
            raise UserError(f"needs the columns {', '.join(COLUMNS)}", where=str(path))
        try:
            return [_request(row) for row in reader]
        except ValueError as error:
            raise UserError(f"not a number: {error}", where=f"{path}, line {reader.line_num}") from None


def _request(row: dict[str, str]) -> Request:
    ttft = row["ttft_seconds"]
    return Request(
        float(row["time_seconds"]),
        int(row["users"]),
        float(row["latency_seconds"]),
        float(ttft) if ttft else None,
        int(row["output_tokens"]),
        row["error"],
    )


def knee_of(requests: Sequence[Request], window_seconds: float = WINDOW_SECONDS) -> Knee:
    """Return the levels of a load; `UserError` when nothing was answered in any whole window."""
    windows: dict[int, list[Request]] = {}
    for request in requests:
        windows.setdefault(int(request.time_seconds // window_seconds), []).append(request)
    if len(windows) > 1:
        windows.pop(max(windows))  # the load ends somewhere within it
    groups: dict[int, list[list[Request]]] = {}
    for ended in windows.values():
        groups.setdefault(round(statistics.median(request.users for request in ended)), []).append(ended)
    levels = [_level(users, group, window_seconds) for users, group in sorted(groups.items())]
    answered = [level for level in levels if level.requests_per_second > 0]
    if not answered:
        raise UserError("no request was answered", fix="look at the column 'error'")
    return Knee(answered)


def _level(users: int, windows: Sequence[Sequence[Request]], window_seconds: float) -> Level:
    requests = [request for window in windows for request in window]
    whole = [request for request in requests if not request.error]
    seconds = len(windows) * window_seconds
    latencies = [request.latency_seconds for request in whole] or [math.nan]
    first = [request.ttft_seconds for request in whole if request.ttft_seconds is not None]
    return Level(
        users=users,
        requests_per_second=len(whole) / seconds,
        tokens_per_second=sum(request.output_tokens for request in whole) / seconds,
        latency_p50=percentile(latencies, 50),
        latency_p95=percentile(latencies, 95),
        ttft_p50=statistics.median(first) if first else None,
        failed=len(requests) - len(whole),
    )
