"""A training log to a summary in text: first, last and best values with a sparkline each, where the time went, memory, cost."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from caslon.observe.console import duration
from caslon.observe.events import Timing, metric_values
from caslon.report.numbers import readable

SPARKS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 24
LOWER_IS_BETTER = ("train/loss", "eval/train_loss", "eval/val_loss", "eval/val_ppl", "eval/val_bpb")
COUNTERS = frozenset({"train/iter", "train/tokens", "eval/iter", "eval/val_tokens", "train/skipped"})
PARTS = "expert_share."  # one metric for each expert of each layer: the report draws them
SPEED = ("train/tokens_per_s", "train/mfu")
# What a timing of the log was spent on; computing is the time of the steps without the wait for data.
SPENT = {
    "data": "train/data_ms",
    "evaluation": "eval/seconds",
    "saving": "save/seconds",
    "compiling": "compile/seconds",
}
MILLISECONDS = "_ms"

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Curve:
    """One metric from its first to its last value; `best_step` is None where no direction is better."""

    name: str
    first: float
    last: float
    best: float
    best_step: int | None
    sparkline: str


@dataclass(frozen=True)
class TrainingSummary:
    """What came of a training."""

    curves: tuple[Curve, ...]
    seconds: dict[str, float]  # by what they were spent on: compute, data, evaluation, saving, compiling
    peak_memory_gb: float | None
    best_step: int | None  # of the validation loss

    def cost(self, price_per_hour: float) -> float:
        """Return what the time cost."""
        return price_per_hour * sum(self.seconds.values()) / 3600

    def lines(self, price_per_hour: float | None = None) -> list[str]:
        """Return the summary as lines of at most 90 characters."""
        width = max(len(curve.name) for curve in self.curves)
        table = [f"{'':<{width}}  {'first':>10} {'last':>10} {'best':>10}"]
        table += [_line(curve, width) for curve in self.curves]
        whole = sum(self.seconds.values()) or 1.0
        spent = ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in self.seconds.items() if seconds)
        facts = []
        if self.best_step is not None:
            facts.append(f"best step {self.best_step:,}")
        if self.peak_memory_gb is not None:
            facts.append(f"peak memory {self.peak_memory_gb:.1f} GB")
        if price_per_hour is not None:
            facts.append(f"cost {self.cost(price_per_hour):.2f} at {price_per_hour:g} an hour")
        return [*table, f"time {duration(sum(self.seconds.values()))}: {spent}", " | ".join(facts)]


def training_summary(log: Path) -> TrainingSummary | None:
    """Return the summary of a stage's event log, or None when it trained nothing."""
    metrics, timings = metric_values(log), metric_values(log, Timing.kind)
    if "train/loss" not in metrics:
        return None
    names = [name for name in metrics if name not in COUNTERS and PARTS not in name]
    shown = {name: metrics[name] for name in names} | {name: timings[name] for name in SPEED if name in timings}
    curves = tuple(_curve(name, points) for name, points in shown.items())
    memory = timings.get("train/mem_gb")
    best = next((curve.best_step for curve in curves if curve.name == "eval/val_loss"), None)
    return TrainingSummary(
        curves, dict(_spent(timings)), max(value for _, value in memory) if memory else None, best_step=best
    )


def _spent(timings: dict[str, list[tuple[int, float]]]) -> Iterator[tuple[str, float]]:
    steps = _seconds(timings, "train/dt_ms")
    yield "compute", steps - _seconds(timings, SPENT["data"])
    for name, timing in SPENT.items():
        yield name, _seconds(timings, timing)


def _seconds(timings: dict[str, list[tuple[int, float]]], name: str) -> float:
    return sum(value for _, value in timings.get(name, [])) / (1000 if name.endswith(MILLISECONDS) else 1)


def _curve(name: str, points: Points) -> Curve:
    values = [value for _, value in points]
    lowest = min(points, key=lambda point: point[1])
    best_step = lowest[0] if name in LOWER_IS_BETTER else None
    return Curve(name, values[0], values[-1], lowest[1], best_step, sparkline(values))


def _line(curve: Curve, width: int) -> str:
    best = readable(curve.best) if curve.best_step is not None else ""
    return (
        f"{curve.name:<{width}}  {readable(curve.first):>10} {readable(curve.last):>10} {best:>10}  {curve.sparkline}"
    )


def sparkline(values: Sequence[float], width: int = SPARKLINE_WIDTH) -> str:
    """Return values as a row of at most `width` bars between the lowest and the highest; what is not finite is a blank."""
    if not values:
        return ""
    parts = min(width, len(values))
    edges = [len(values) * part // parts for part in range(parts + 1)]
    means = [_mean(values[start:stop]) for start, stop in pairwise(edges)]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((mean - low) * scale)] if math.isfinite(mean) else " " for mean in means)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan
