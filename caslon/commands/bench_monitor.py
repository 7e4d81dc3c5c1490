"""Samples of a watched service to lines of a terminal, with the recent past as a little curve."""

from collections import deque
from typing import TYPE_CHECKING

from caslon.report.summary import sparkline

if TYPE_CHECKING:
    from caslon.bench.monitor import Sample

RECENT = 24  # samples in a curve
HEADER = (
    f"{'prompt tok/s':>12} {'gen tok/s':>10} {'run':>4} {'wait':>4} {'cache':>6} {'prefix':>6} {'ended':>5}  generation"
)


class MonitorLines:
    """Makes the lines and remembers the recent throughput."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)

    def of(self, sample: "Sample") -> str:
        """Return the line of a sample."""
        self._recent.append(sample.generation_tokens_per_second or 0.0)
        return (
            f"{_number(sample.prompt_tokens_per_second):>12} {_number(sample.generation_tokens_per_second):>10} "
            f"{_number(sample.running):>4} {_number(sample.waiting):>4} {_share(sample.cache_usage):>6} "
            f"{_share(sample.prefix_hit_rate):>6} {_number(sample.requests):>5}  {sparkline(list(self._recent))}"
        )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if isinstance(value, int) else f"{value:,.1f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
