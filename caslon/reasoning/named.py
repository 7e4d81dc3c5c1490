"""Names and numbers, as a command line has them, to strategies, verifiers and judges."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from caslon.errors import UserError
from caslon.reasoning.checking import ArithmeticSteps, Verifier
from caslon.reasoning.judges import Judge, VerifierScore, mean_logprob
from caslon.reasoning.routing import Route, by_numbers, usual_strategies
from caslon.reasoning.stepwise import StepSearch, TemperatureAnneal
from caslon.reasoning.strategies import BestOf, BranchFirst, Revise, Single, Strategy
from caslon.reasoning.voting import SelfConsistency
from caslon.settings import nearest

VERIFIERS: Mapping[str, Verifier] = {
    "steps": ArithmeticSteps(),
    "known-steps": ArithmeticSteps(known_numbers=True, name="arithmetic steps with known numbers"),
}


@dataclass(frozen=True)
class Options:
    """What strategies may be told; each takes what it knows."""

    samples: int = 5
    judge: Judge = mean_logprob
    verifier: Verifier | None = None
    width: int = 3
    depth: int = 8
    tries: int = 2
    rounds: int = 2
    start_temperature: float = 1.0
    end_temperature: float = 0.0


def strategy_named(name: str, options: Options) -> Strategy:
    """Return a strategy; `UserError` for a name that is none, or for a revision without a verifier."""
    if name not in STRATEGIES:
        guess = nearest(name, STRATEGIES)
        fix = f"did you mean '{guess}'?" if guess else f"known: {', '.join(STRATEGIES)}"
        raise UserError(f"no strategy '{name}'", where="--strategy", fix=fix)
    return STRATEGIES[name](options)


def verifier_named(name: str) -> Verifier:
    """Return one of ours, or your own, "module:function", of a question and a solution."""
    return VERIFIERS[name] if name in VERIFIERS else imported(name, "--verifier", VERIFIERS)


def judge_named(name: str, verifier: Verifier | None) -> Judge:
    """Return "logprob", "verifier" or your own, "module:function", of a question and a branch."""
    if name == "logprob":
        return mean_logprob
    if name == "verifier":
        return VerifierScore(_needed(verifier, "the judge 'verifier'"))
    judge: Judge = imported(name, "--judge", ("logprob", "verifier"))
    return judge


def imported(name: str, where: str, known: Any) -> Any:
    """Return a function by the name of its module and its own."""
    module, colon, function = name.partition(":")
    fix = f"known: {', '.join(known)}, or your own as module:function"
    if not colon:
        raise UserError(f"no '{name}' is known", where=where, fix=fix)
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"'{name}' cannot be imported: {error}", where=where, fix=fix) from error


def _needed(verifier: Verifier | None, what: str) -> Verifier:
    if verifier is None:
        raise UserError(f"{what} needs a verifier", where="--verifier", fix="--verifier steps, or your own")
    return verifier


STRATEGIES: Mapping[str, Callable[[Options], Strategy]] = {
    "single": lambda options: Single(),
    "self_consistency": lambda options: SelfConsistency(options.samples),
    "best_of": lambda options: BestOf(options.samples, options.judge),
    "step_search": lambda options: StepSearch(options.width, options.depth, options.judge, options.tries),
    "revise": lambda options: Revise(_needed(options.verifier, "a revision"), options.rounds),
    "branch_first": lambda options: BranchFirst(options.samples, options.judge),
    "temperature_anneal": lambda options: TemperatureAnneal(
        options.start_temperature, options.end_temperature, depth=options.depth
    ),
    "route": lambda options: Route(by_numbers, usual_strategies(options.samples, options.verifier)),
}
