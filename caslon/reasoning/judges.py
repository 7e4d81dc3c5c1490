"""A branch to a score: by a verifier, by a reward, or by how likely the model itself finds what it wrote.

A judge that is a reward model is any function of question and branch; what it computes with is its own matter.
"""

from collections.abc import Callable
from dataclasses import dataclass

from caslon.errors import UserError
from caslon.reasoning.branch import Branch
from caslon.reasoning.checking import Verifier

Judge = Callable[[str, Branch], float]  # more is better


def mean_logprob(question: str, branch: Branch) -> float:
    """Return the log-probability of a branch divided by its tokens, so that long answers are not the losers."""
    del question
    score = branch.mean_logprob
    if score is None and branch.logprobs == () and branch.written.tokens:
        raise UserError(
            "the model gave no log-probabilities to judge by", fix="use another judge, or a server that gives them"
        )
    return score or 0.0


@dataclass(frozen=True)
class VerifierScore:
    """Judges by the score of a verifier's verdict."""

    verifier: Verifier

    @property
    def name(self) -> str:
        """What the record calls it."""
        return name_of(self.verifier)

    def __call__(self, question: str, branch: Branch) -> float:
        """Return the score of the verdict on the branch."""
        return self.verifier(question, branch.trace).score


def name_of(function: Callable[..., object]) -> str:
    """Return what a record calls a judge, a verifier or a classifier."""
    return str(getattr(function, "name", None) or getattr(function, "__name__", type(function).__name__))
