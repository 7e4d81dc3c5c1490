"""Strategies on one task to their curves, what is better than what, and the setting that costs least."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from caslon.reasoning.branch import Generate
from caslon.reasoning.controller import Reasoned, reason
from caslon.reasoning.curve import Curve, Difference, measure, settings_of, to_json, verdicts
from caslon.reasoning.judges import name_of
from caslon.reasoning.planner import Planned, Weights, plan
from caslon.reasoning.strategies import Single, Strategy
from caslon.reasoning.task import Item
from caslon.reasoning.work import Limits

ROUTE = "route"


@dataclass(frozen=True)
class Measurement:
    """What was measured of each strategy, and what follows."""

    curves: Sequence[Curve]
    verdicts: Sequence[Difference]
    planned: Sequence[Planned]
    largest_budget: int

    def to_json(self) -> dict[str, Any]:
        """Return all figures."""
        return {
            "curves": [to_json(curve, self.largest_budget) for curve in self.curves],
            "verdicts": [verdict.sentence for verdict in self.verdicts],
            "plan": [asdict(planned) for planned in self.planned],
        }


@dataclass(frozen=True)
class Measuring:
    """What all strategies are measured with: the same questions, budgets, limits and seeds."""

    generate: Generate
    items: Sequence[Item]
    budgets: Sequence[int]
    limits: Limits
    prompt: str
    seed: int

    def measured(
        self, strategies: Sequence[Strategy], layers: int, weights: Weights, on_begin: Callable[[str], None]
    ) -> Measurement:
        """Return the measurement; `on_begin` is told each strategy before it is measured.

        A route is set beside the strategy before it, used for all questions alike, at the same mean number of tokens.
        """
        seconds = self._seconds_per_token()
        curves: list[Curve] = []
        found: list[Difference] = []
        for strategy in strategies:
            name = name_of(strategy)
            on_begin(f"measuring {name}")
            curve = measure(name, partial(self._answered, strategy), self.items, self.budgets, self.seed)
            uniform = next((one for one in reversed(curves) if one.strategy != ROUTE), None)
            found += verdicts(curve, uniform if name == ROUTE else None)
            curves.append(curve)
        planned = plan(settings_of(curves), layers, seconds, weights)
        return Measurement(curves, found, planned, self.budgets[-1])

    def _answered(self, strategy: Strategy, item: Item, budget_tokens: int, seed: int) -> Reasoned:
        return reason(
            item.question,
            strategy,
            self.generate,
            budget_tokens=budget_tokens,
            limits=self.limits,
            seed=seed,
            prompt=self.prompt,
        )

    def _seconds_per_token(self) -> float:
        """Return how long a token of a lone answer takes here."""
        began = time.perf_counter()
        told = self._answered(Single(), self.items[0], self.budgets[-1], self.seed)
        return (time.perf_counter() - began) / max(1, told.tokens)
