"""Measured settings to the one that costs least: computing and waiting weighed against being right, by trying all of them.

What is computed grows with width x (thinking + answer)^2 x layers, the attention term: a trace twice as long costs about
four times as much, twice as many branches only twice. There is no formula for the accuracy; it is what was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from caslon.reasoning.work import Event

MILLION = 1_000_000


@dataclass(frozen=True)
class Setting:
    """How much a question is given, and how often it was right then. Tokens are those of one branch."""

    name: str
    width: float
    thinking_tokens: float
    answer_tokens: float
    accuracy: float

    @property
    def trace_tokens(self) -> float:
        """Tokens of a branch, one after another."""
        return self.thinking_tokens + self.answer_tokens


@dataclass(frozen=True)
class Traces:
    """The branches of a question that nothing goes on from: how many, and how long each is from its beginning."""

    width: int
    thinking_tokens: float
    answer_tokens: float

    @staticmethod
    def of(record: Sequence[Event]) -> "Traces":
        """Return the traces in a record."""
        branches = {event["branch"]: event for event in record if event["event"] == "branch"}
        ends = set(branches) - {event["goes_on_from"] for event in branches.values()}
        chains = [_chain(branches, end) for end in sorted(ends)]
        thinking = [sum(event["thinking_tokens"] for event in chain) for chain in chains]
        tokens = [sum(event["tokens"] for event in chain) for chain in chains]
        if not chains:
            return Traces(0, 0.0, 0.0)
        return Traces(len(chains), fmean(thinking), fmean(tokens) - fmean(thinking))


def _chain(branches: dict[int, Event], end: int) -> list[Event]:
    chain = [branches[end]]
    while chain[-1]["goes_on_from"] is not None:
        chain.append(branches[chain[-1]["goes_on_from"]])
    return chain


@dataclass(frozen=True)
class Weights:
    """What a unit of each is worth: a million token pairs in one layer, a second of waiting, being always right."""

    compute: float = 0.001
    latency: float = 0.01
    accuracy: float = 1.0


@dataclass(frozen=True)
class Planned:
    """A setting with what it costs; `cost` is weighed and may be negative."""

    setting: Setting
    compute: float
    latency_seconds: float
    cost: float
    is_best: bool
    is_knee: bool


def attention_compute(width: float, trace_tokens: float, layers: int) -> float:
    """Return the attention term of a question: branches x tokens squared x layers, in units of one product of a token pair."""
    return width * trace_tokens**2 * layers


def plan(settings: Sequence[Setting], layers: int, seconds_per_token: float, weights: Weights) -> list[Planned]:
    """Return all settings by what they compute, with the one of least cost and the knee marked.

    Branches run side by side, so waiting takes as long as one of them.
    """
    ordered = sorted(settings, key=lambda one: attention_compute(one.width, one.trace_tokens, layers))
    computes = [attention_compute(one.width, one.trace_tokens, layers) for one in ordered]
    waits = [one.trace_tokens * seconds_per_token for one in ordered]
    costs = [
        weights.compute * compute / MILLION + weights.latency * wait - weights.accuracy * one.accuracy
        for one, compute, wait in zip(ordered, computes, waits, strict=True)
    ]
    best = costs.index(min(costs))
    bend = knee(computes, [one.accuracy for one in ordered])
    return [
        Planned(one, computes[place], waits[place], costs[place], place == best, place == bend)
        for place, one in enumerate(ordered)
    ]


def knee(costs: Sequence[float], gains: Sequence[float]) -> int | None:
    """Return the place after which more costs bring little: the point farthest above the line from first to last.

    Both are scaled to 0..1 first (Satopää et al. 2011, Kneedle). None where no point is above the line: there is no knee then.
    """
    if len(costs) < 3 or costs[-1] <= costs[0] or max(gains) <= gains[0]:
        return None
    width, height = costs[-1] - costs[0], max(gains) - gains[0]
    above = [(gain - gains[0]) / height - (cost - costs[0]) / width for cost, gain in zip(costs, gains, strict=True)]
    return above.index(max(above)) if max(above) > 1e-9 else None  # more than a rounding error
