"""A question to the strategy that suits it: easy ones cost little, hard ones may cost more."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from caslon.errors import UserError
from caslon.reasoning.answers import NUMBER
from caslon.reasoning.branch import Branch
from caslon.reasoning.checking import Verifier
from caslon.reasoning.judges import name_of
from caslon.reasoning.strategies import BestOf, Revise, Single, Strategy
from caslon.reasoning.voting import SelfConsistency
from caslon.reasoning.work import Work

LEVELS = ("easy", "medium", "hard")
MOST_NUMBERS = {"easy": 3, "medium": 5}


@dataclass(frozen=True)
class Level:
    """How hard a question is, and why one thinks so."""

    level: str
    reason: str


Classifier = Callable[[str], Level]


def by_numbers(question: str) -> Level:
    """Return a level by how many numbers a question has: with each comes another step. A rule of thumb for arithmetic."""
    count = len(NUMBER.findall(question))
    level = next((level for level, most in MOST_NUMBERS.items() if count <= most), "hard")
    return Level(level, f"{count} numbers")


def usual_strategies(samples: int = 5, verifier: Verifier | None = None) -> dict[str, Strategy]:
    """Return one answer for easy questions, a vote for medium ones, and for hard ones a revision where there is a verifier.

    Without a verifier a revision has nothing to hold on to; hard questions then get the best of twice as many answers.
    """
    hard: Strategy = Revise(verifier) if verifier is not None else BestOf(2 * samples)
    return {"easy": Single(), "medium": SelfConsistency(samples), "hard": hard}


@dataclass(frozen=True)
class Route:
    """Sends a question to the strategy of its level. A level given with the question itself goes before the classifier's."""

    name: ClassVar[str] = "route"
    classifier: Classifier = by_numbers
    strategies: Mapping[str, Strategy] = field(default_factory=usual_strategies)

    def __call__(self, work: Work) -> Iterator[Branch]:
        """Yield what the chosen strategy yields."""
        found = self.classifier(work.question) if work.level is None else Level(work.level, "asked for")
        if found.level not in self.strategies:
            raise UserError(
                f"no strategy for level '{found.level}'", where="level", fix=f"known: {', '.join(self.strategies)}"
            )
        strategy = self.strategies[found.level]
        by = "the caller" if work.level is not None else name_of(self.classifier)
        work.log("routed", level=found.level, reason=found.reason, by=by, strategy=name_of(strategy))
        yield from strategy(work)
