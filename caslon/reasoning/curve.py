"""A strategy at several budgets to its curve: how often it is right against the tokens it takes, and what one right answer costs.

All strategies are measured on the same questions with the same seeds, so that differences are taken question by question.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from caslon.errors import UserError
from caslon.evaluate.intervals import Interval, ratio_interval
from caslon.reasoning.controller import Reasoned
from caslon.reasoning.planner import Setting, Traces
from caslon.reasoning.task import Item
from caslon.report.shares import wilson_interval

BUDGETS = (100, 200, 500, 1_000, 2_000)
AT_ONCE = 8  # questions; an engine writes their branches side by side

Answer = Callable[[Item, int, int], Reasoned]  # of an item, a budget and a seed


@dataclass(frozen=True)
class Point:
    """What came of all questions with one budget, in their order."""

    budget_tokens: int
    right: tuple[bool, ...]
    tokens: tuple[int, ...]
    traces: tuple[Traces, ...]
    ended_by_budget: int

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return fmean(self.right)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return wilson_interval(sum(self.right), len(self.right))

    @property
    def mean_tokens(self) -> float:
        """Tokens of a question, thinking included."""
        return fmean(self.tokens)

    @property
    def tokens_per_correct_answer(self) -> float | None:
        """All tokens over all right answers; None, and never 0, where no answer was right."""
        return sum(self.tokens) / sum(self.right) if any(self.right) else None


@dataclass(frozen=True)
class Curve:
    """A strategy's points by growing budget."""

    strategy: str
    points: tuple[Point, ...]

    def at(self, mean_tokens: float) -> list[float]:
        """Return how often each question is right at a mean number of tokens, between 0 and 1.

        Between two points a share of the questions would get the larger budget; below the first, a share none at all; beyond
        the last nothing more comes.
        """
        tokens = [0.0, *(point.mean_tokens for point in self._rising)]
        rights = [(0.0,) * len(self.points[0].right), *(tuple(map(float, point.right)) for point in self._rising)]
        for (low, high), (less, more) in zip(pairwise(tokens), pairwise(rights), strict=True):
            if mean_tokens <= high:
                share = (mean_tokens - low) / (high - low)
                return [before + share * (after - before) for before, after in zip(less, more, strict=True)]
        return list(rights[-1])

    def area(self, up_to_tokens: int) -> float:
        """Return the mean accuracy over all mean numbers of tokens from 0 to a limit: the area under the curve, 0 to 1."""
        places = [0.0, *(point.mean_tokens for point in self._rising if point.mean_tokens < up_to_tokens), up_to_tokens]
        heights = [fmean(self.at(place)) for place in places]
        steps = zip(pairwise(places), pairwise(heights), strict=True)
        return sum((high - low) * (less + more) / 2 for (low, high), (less, more) in steps) / up_to_tokens

    @property
    def _rising(self) -> list[Point]:
        """The points in the order of their tokens; of those with the same tokens the last."""
        by_tokens = {point.mean_tokens: point for point in self.points}
        return [by_tokens[tokens] for tokens in sorted(by_tokens)]


@dataclass(frozen=True)
class Difference:
    """By how much one thing is more often right than another on the same questions, and the verdict on it."""

    what: str
    accuracy: float
    other_accuracy: float
    interval: Interval | None

    @property
    def sentence(self) -> str:
        """In words, whichever way it went."""
        gain = self.accuracy - self.other_accuracy
        told = f"{self.accuracy:.1%} against {self.other_accuracy:.1%} ({100 * gain:+.1f} points"
        if self.interval is None:
            return f"{self.what}: {told}): no verdict, fewer than 20 questions"
        told += f", 95 % interval {100 * self.interval.low:+.1f} to {100 * self.interval.high:+.1f})"
        if self.interval.low > 0:
            return f"{self.what}: {told}: better"
        if self.interval.high < 0:
            return f"{self.what}: {told}: WORSE"
        return f"{self.what}: {told}: no difference shown"


def measure(strategy: str, answer: Answer, items: Sequence[Item], budgets: Sequence[int], seed: int) -> Curve:
    """Return the curve of a strategy; `answer` works on one question with a budget and a seed."""
    if sorted(set(budgets)) != list(budgets) or not budgets:
        raise UserError("budgets are different numbers in rising order", where="budgets", fix="such as 100 200 500")
    return Curve(strategy, tuple(_point(answer, items, budget, seed) for budget in budgets))


def difference(what: str, rights: Sequence[float], others: Sequence[float]) -> Difference:
    """Return the difference of two ways, paired by question."""
    gains = [right - other for right, other in zip(rights, others, strict=True)]
    interval = ratio_interval(gains, [1.0] * len(gains), unit="question")
    return Difference(what, fmean(rights), fmean(others), interval)


def verdicts(curve: Curve, uniform: Curve | None) -> list[Difference]:
    """Return whether more tokens help a strategy, and, beside a uniform one, whether routing does at equal tokens."""
    first, last = curve.points[0], curve.points[-1]
    found = []
    if first is not last:
        what = f"{curve.strategy} with {last.budget_tokens:,} tokens instead of {first.budget_tokens:,}"
        found.append(difference(what, last.right, first.right))
    if uniform is not None:
        for point in curve.points:
            what = f"{curve.strategy} beside {uniform.strategy} for all, at {point.mean_tokens:,.0f} mean tokens"
            found.append(difference(what, point.right, uniform.at(point.mean_tokens)))
    return found


def settings_of(curves: Sequence[Curve]) -> list[Setting]:
    """Return every measured point as a setting to choose from."""
    return [
        Setting(
            f"{curve.strategy}, {point.budget_tokens:,}",
            fmean(traces.width for traces in point.traces),
            fmean(traces.thinking_tokens for traces in point.traces),
            fmean(traces.answer_tokens for traces in point.traces),
            point.accuracy,
        )
        for curve in curves
        for point in curve.points
    ]


def to_json(curve: Curve, up_to_tokens: int) -> dict[str, Any]:
    """Return the curve's figures."""
    return {
        "strategy": curve.strategy,
        "area": curve.area(up_to_tokens),
        "points": [
            {
                "budget_tokens": point.budget_tokens,
                "questions": len(point.right),
                "right": sum(point.right),
                "accuracy": point.accuracy,
                "interval": list(point.interval),
                "mean_tokens": point.mean_tokens,
                "mean_traces": fmean(traces.width for traces in point.traces),
                "ended_by_budget": point.ended_by_budget,
                "tokens_per_correct_answer": point.tokens_per_correct_answer,
            }
            for point in curve.points
        ],
    }


def _point(answer: Answer, items: Sequence[Item], budget: int, seed: int) -> Point:
    def answered(number: int) -> Reasoned:
        # Seeds of different questions lie so far apart that no two branches of a measurement share one.
        return answer(items[number], budget, seed + number * 1_000_000)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        told = list(pool.map(answered, range(len(items))))
    return Point(
        budget,
        tuple(one.answer == item.answer for one, item in zip(told, items, strict=True)),
        tuple(one.tokens for one in told),
        tuple(Traces.of(one.record) for one in told),
        sum(one.stop_reason == "budget" for one in told),
    )
