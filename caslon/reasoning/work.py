"""One question being worked on: branches are written here, within a token budget that is never exceeded, and all is recorded.

Before anything is written, its longest possible length is set aside; what was not needed goes back. So the budget holds whatever
the model does. A record has no times in it: the same seeds give the same record.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from caslon.errors import CaslonError
from caslon.reasoning.branch import Ask, Branch, Generate

Event = dict[str, Any]
Extract = Callable[[str], str | None]


class BudgetSpent(Exception):
    """No token is left for a further branch."""


@dataclass(frozen=True)
class Limits:
    """How one branch is written. `thinking_budget` is for models that think between markers, `stop` for those that do not end."""

    max_tokens: int = 512
    temperature: float = 0.8
    thinking_budget: int | None = None
    stop: tuple[str, ...] = ()


class Plan(NamedTuple):
    """An ask and the branch it goes on from."""

    ask: Ask
    parent: Branch | None


@dataclass
class Work:
    """A question, the tokens left for it, and the record of what was done."""

    question: str
    prompt: str
    generate: Generate
    extract: Extract
    budget_tokens: int
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    level: str | None = None
    record: list[Event] = field(default_factory=list)
    spent_tokens: int = 0
    was_cut: bool = False  # by the budget
    stop_reason: str = "complete"
    branch_count: int = 0
    _asks: int = 0

    @property
    def left_tokens(self) -> int:
        """How many tokens may still be written."""
        return self.budget_tokens - self.spent_tokens

    def log(self, event: str, **facts: Any) -> None:
        """Add an event to the record."""
        self.record.append({"event": event, **facts})

    def plan(
        self,
        parent: Branch | None = None,
        *,
        prompt: str | None = None,
        prefix: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stop: tuple[str, ...] = (),
        first_tokens: int = 0,
    ) -> Plan:
        """Return a plan of a branch, with the next seed and the question's prompt; it goes on from `parent`."""
        begun = prefix or (parent.text if parent else "")
        ask = Ask(
            prompt=self.prompt if prompt is None else prompt,
            seed=self.seed + self._asks,
            max_tokens=max_tokens or self.limits.max_tokens,
            temperature=self.limits.temperature if temperature is None else temperature,
            prefix=begun,
            stop=stop or self.limits.stop,
            # An answer that has begun is no longer thought about.
            thinking_budget=None if begun or first_tokens else self.limits.thinking_budget,
            first_tokens=first_tokens,
        )
        self._asks += 1
        return Plan(ask, parent)

    def branches(self, plans: Sequence[Plan]) -> list[Branch]:
        """Return the branches written, in order, as many as the budget has tokens for; `BudgetSpent` where that is none.

        As many run side by side as fit at full length; then what they left over serves the next ones.
        """
        written: list[Branch] = []
        waiting = list(plans)
        while waiting:
            batch = self._fitting(waiting) or self._cut(waiting[0])
            if not batch:
                self.was_cut = True
                break
            written += self._write(batch)
            self.was_cut |= batch[0] is not waiting[0] and written[-1].written.finish_reason == "length"
            waiting = waiting[len(batch) :]
        if not written:
            raise BudgetSpent
        return written

    def _fitting(self, waiting: Sequence[Plan]) -> list[Plan]:
        """Return the first plans that fit into the budget together at full length."""
        free = self.left_tokens
        batch = []
        for plan in waiting:
            free -= plan.ask.total_tokens
            if free < 0:
                break
            batch.append(plan)
        return batch

    def _cut(self, plan: Plan) -> list[Plan]:
        """Return the plan cut to what is left of the budget, if anything is."""
        ask = plan.ask.within(self.left_tokens)
        return [Plan(ask, plan.parent)] if ask else []

    def _write(self, batch: Sequence[Plan]) -> list[Branch]:
        branches = []
        for (ask, parent), written in zip(batch, self.generate([plan.ask for plan in batch]), strict=True):
            if written.tokens > ask.total_tokens:
                raise CaslonError(
                    f"{written.tokens} tokens were written where at most {ask.total_tokens} were asked for",
                    fix="the server does not keep to max_tokens: no budget can be held with it",
                )
            self.spent_tokens += written.tokens
            branch = Branch(self.branch_count, ask, written, parent)
            self.branch_count += 1
            branches.append(branch)
            self._log_branch(branch)
        return branches

    def _log_branch(self, branch: Branch) -> None:
        ask, written = branch.ask, branch.written
        self.log(
            "branch",
            branch=branch.number,
            goes_on_from=None if branch.parent is None else branch.parent.number,
            seed=ask.seed,
            temperature=ask.temperature,
            max_tokens=ask.max_tokens,
            prefix=ask.prefix,
            text=written.text,
            thinking=written.thinking,
            tokens=written.tokens,
            thinking_tokens=written.thinking_tokens,
            mean_logprob=branch.mean_logprob,
            finish_reason=written.finish_reason,
            answer=self.extract(branch.text),
        )
