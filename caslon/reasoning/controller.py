"""A question to an answer by a strategy, within a token budget, with a record of every decision and a gate before it."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from caslon.errors import UserError
from caslon.reasoning.answers import final_answer
from caslon.reasoning.branch import Branch, Generate
from caslon.reasoning.checking import Verifier
from caslon.reasoning.judges import name_of
from caslon.reasoning.strategies import Strategy
from caslon.reasoning.work import BudgetSpent, Event, Extract, Limits, Work

PLAIN = "{question}\n"
STEP_BY_STEP = "{question}\n\nSolve it step by step, one step a line. End with a line 'Answer: ' and the answer alone."


def usual_prompt(*, chat: bool) -> str:
    """Return how a question is asked: with an instruction for a model that chats, bare for one that goes on with a text."""
    return STEP_BY_STEP if chat else PLAIN


@dataclass(frozen=True)
class Reasoned:
    """What came of a question. `text` and `answer` are None where nothing was written or the gate withheld it.

    `stop_reason` is "budget" where the budget ended the work, else "complete" or the strategy's own word ("decided",
    "verified", "depth"). `withheld` says why a gate kept the answer back.
    """

    text: str | None
    answer: str | None
    stop_reason: str
    tokens: int
    branches: int
    withheld: str | None
    record: tuple[Event, ...]

    @property
    def shown(self) -> str:
        """What a user sees."""
        if self.withheld is not None:
            return f"withheld: {self.withheld}"
        return self.text if self.text is not None else "no answer within the budget"


def reason(
    question: str,
    strategy: Strategy,
    generate: Generate,
    *,
    budget_tokens: int = 2000,
    limits: Limits | None = None,
    seed: int = 0,
    prompt: str = PLAIN,
    extract: Extract = final_answer,
    level: str | None = None,
    gate: Verifier | None = None,
) -> Reasoned:
    """Return the strategy's answer to a question. All branches together never have more tokens than the budget.

    `prompt` is what is asked, with the question at `{question}`; `level` overrides the classifier of a route. A `gate`
    withholds an answer whose way fails its check, whether or not the answer itself is right.
    """
    if budget_tokens < 1:
        raise UserError("the budget is at least 1 token", where="budget_tokens")
    asked = prompt.replace("{question}", question)
    work = Work(question, asked, generate, extract, budget_tokens, limits or Limits(), seed, level)
    work.log(
        "asked",
        question=question,
        prompt=asked,
        strategy=described(strategy),
        budget_tokens=budget_tokens,
        seed=seed,
    )
    chosen = _chosen(work, strategy)
    stop_reason = "budget" if work.was_cut else work.stop_reason
    answer = None if chosen is None else extract(chosen.text)
    withheld = None if chosen is None or gate is None else _withheld(work, chosen, gate)
    work.log(
        "stopped",
        stop_reason=stop_reason,
        branch=None if chosen is None else chosen.number,
        answer=answer,
        tokens=work.spent_tokens,
        branches=work.branch_count,
        withheld=withheld,
    )
    hidden = chosen is None or withheld is not None
    return Reasoned(
        text=None if chosen is None or hidden else chosen.text,
        answer=None if hidden else answer,
        stop_reason=stop_reason,
        tokens=work.spent_tokens,
        branches=work.branch_count,
        withheld=withheld,
        record=tuple(work.record),
    )


def described(strategy: Any) -> dict[str, Any]:
    """Return a strategy's name and settings, functions by their names."""
    settings = fields(strategy) if is_dataclass(strategy) else ()
    return {"name": name_of(strategy)} | {one.name: _plain(getattr(strategy, one.name)) for one in settings}


def _chosen(work: Work, strategy: Strategy) -> Branch | None:
    chosen = None
    try:
        for chosen in strategy(work):  # noqa: B007  the last is the best
            pass
    except BudgetSpent:
        pass
    return chosen


def _withheld(work: Work, chosen: Branch, gate: Verifier) -> str | None:
    verdict = gate(work.question, chosen.trace)
    work.log("checked", by=name_of(gate), passed=verdict.passed, fails_at_step=verdict.fails_at_step)
    return None if verdict.passed else verdict.sentence


def _plain(value: Any) -> Any:
    if isinstance(value, int | float | str | None):
        return value
    if isinstance(value, dict):
        return {key: described(one) for key, one in value.items()}
    return name_of(value)
