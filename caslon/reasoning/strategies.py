"""Ways to an answer: one branch, the best of several, every likely beginning, a revision that has something to hold on to.

A strategy is called with the work on a question and yields the best branch so far, each better than the one before; so an answer
is at hand whenever the budget ends.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from caslon.errors import UserError
from caslon.reasoning.branch import Branch
from caslon.reasoning.checking import Verdict, Verifier
from caslon.reasoning.judges import Judge, mean_logprob, name_of
from caslon.reasoning.work import Work

Strategy = Callable[[Work], Iterator[Branch]]

MOST_ROUNDS = 2
MOST_FIRST_TOKENS = 20  # what servers tell
REVISION = (
    "{prompt}\n\nA solution that is not right yet:\n{solution}\n\nWhat is wrong: {problem}.\nThe solution put right:\n"
)


@dataclass(frozen=True)
class Single:
    """One answer."""

    name: ClassVar[str] = "single"

    def __call__(self, work: Work) -> Iterator[Branch]:
        """Yield the only branch."""
        yield from work.branches([work.plan()])


@dataclass(frozen=True)
class BestOf:
    """The one of `samples` answers that a judge likes best, ties to the earliest."""

    name: ClassVar[str] = "best_of"
    samples: int = 5
    judge: Judge = mean_logprob

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError("at least one answer must be written", where="samples", fix="use 2 or more")

    def __call__(self, work: Work) -> Iterator[Branch]:
        """Yield the best branch."""
        yield best(work, work.branches([work.plan() for _ in range(self.samples)]), self.judge)


@dataclass(frozen=True)
class BranchFirst:
    """One greedy answer from each of the `k` likeliest first tokens that are text; the judge's favourite (arXiv:2402.10200).

    Finding the first tokens costs one token of the budget.
    """

    name: ClassVar[str] = "branch_first"
    k: int = 5
    judge: Judge = mean_logprob

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MOST_FIRST_TOKENS:
            raise UserError(f"k = {self.k}: the likeliest 1 to {MOST_FIRST_TOKENS} tokens can be known", where="k")

    def __call__(self, work: Work) -> Iterator[Branch]:
        """Yield the best branch."""
        (look,) = work.branches([work.plan(temperature=0.0, max_tokens=1, first_tokens=MOST_FIRST_TOKENS)])
        beginnings = [text for text, _ in look.written.first_tokens if text][: self.k]
        if not beginnings:
            raise UserError("the model does not tell its likeliest first tokens", fix="use another strategy")
        plans = [work.plan(prefix=text, temperature=0.0) for text in beginnings]
        yield best(work, work.branches(plans), self.judge)


@dataclass(frozen=True)
class Revise:
    """One answer, put right where a verifier finds it wrong; never a revision without something to hold on to.

    Models asked to correct themselves without outside help get worse (arXiv:2310.01798). So an answer that passes is left
    alone, and each round begins from the best answer so far: a revision that does not score higher is rolled back.
    """

    name: ClassVar[str] = "revise"
    verifier: Verifier
    rounds: int = MOST_ROUNDS

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise UserError(f"rounds = {self.rounds}: more than {MOST_ROUNDS} make answers worse", where="rounds")

    def __call__(self, work: Work) -> Iterator[Branch]:
        """Yield the best verified branch so far."""
        (chosen,) = work.branches([work.plan()])
        verdict = self._verdict(work, chosen)
        yield chosen
        for _ in range(self.rounds):
            if verdict.passed:
                break
            prompt = REVISION.format(prompt=work.prompt, solution=chosen.text, problem=verdict.sentence)
            (revision,) = work.branches([work.plan(prompt=prompt)])
            new = self._verdict(work, revision)
            if new.score > verdict.score:
                chosen, verdict = revision, new
                yield chosen
            else:
                work.log("rolled_back", branch=revision.number, kept=chosen.number)
        work.stop_reason = "verified" if verdict.passed else "complete"

    def _verdict(self, work: Work, branch: Branch) -> Verdict:
        verdict = self.verifier(work.question, branch.trace)
        work.log(
            "verified",
            branch=branch.number,
            by=name_of(self.verifier),
            passed=verdict.passed,
            score=verdict.score,
            fails_at_step=verdict.fails_at_step,
            reason=verdict.reason,
        )
        return verdict


def best(work: Work, branches: list[Branch], judge: Judge) -> Branch:
    """Return the branch with the highest score, the earliest of several, and log all scores."""
    scores = [judge(work.question, branch) for branch in branches]
    chosen = branches[scores.index(max(scores))]
    work.log(
        "scored",
        by=name_of(judge),
        scores={branch.number: score for branch, score in zip(branches, scores, strict=True)},
        chosen=chosen.number,
    )
    return chosen
