"""Answers written step by step, a line at a time: searched like a tree, or begun boldly and ended carefully."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from caslon.errors import UserError
from caslon.reasoning.branch import Branch
from caslon.reasoning.judges import Judge, mean_logprob, name_of
from caslon.reasoning.work import Plan, Work

STEP_END = "\n"


@dataclass(frozen=True)
class StepSearch:
    """Keeps the `width` best unfinished answers and continues each by a step in `tries` ways, `depth` steps deep.

    The scorer is a process reward, or by default the model's own mean log-probability. With a process reward this is the
    beam search of arXiv:2408.03314. Kept answers that say the same count once.
    """

    name: ClassVar[str] = "step_search"
    width: int = 3
    depth: int = 8
    scorer: Judge = mean_logprob
    tries: int = 2

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.tries) < 1:
            raise UserError("width, depth and tries are at least 1", where="step_search")

    def __call__(self, work: Work) -> Iterator[Branch]:
        """Yield the best branch after each step: a finished one where there is any."""
        kept: list[Branch] = []
        for depth in range(1, self.depth + 1):
            plans = self._plans(work, kept)
            if not plans:
                return
            ended = [branch for branch in kept if is_finished(branch)]
            candidates = distinct([*ended, *work.branches(plans)])
            scores = {branch.number: self.scorer(work.question, branch) for branch in candidates}
            kept = sorted(candidates, key=lambda branch: -scores[branch.number])[: self.width]
            work.log(
                "step",
                depth=depth,
                breadth=len(candidates),
                by=name_of(self.scorer),
                scores=scores,
                kept=[branch.number for branch in kept],
            )
            yield next((branch for branch in kept if is_finished(branch)), kept[0])
        work.stop_reason = "depth"

    def _plans(self, work: Work, kept: Sequence[Branch]) -> list[Plan]:
        if not kept:
            return [work.plan(stop=(STEP_END,)) for _ in range(self.width * self.tries)]
        return [next_step(work, branch) for branch in kept if not is_finished(branch) for _ in range(self.tries)]


@dataclass(frozen=True)
class TemperatureAnneal:
    """One answer whose steps are drawn ever less boldly: at temperature `start` first, at `end` from step `steps` on."""

    name: ClassVar[str] = "temperature_anneal"
    start: float = 1.0
    end: float = 0.0
    steps: int = 6
    depth: int = 32

    def __post_init__(self) -> None:
        if not (0 <= self.start <= 2 and 0 <= self.end <= 2):
            raise UserError("temperatures are 0 to 2", where="temperature_anneal")
        if self.steps < 2 or self.depth < 1:
            raise UserError("a change of temperature takes at least 2 steps", where="temperature_anneal")

    def temperature(self, step: int) -> float:
        """Return the temperature of a step, counted from 0."""
        share = min(1.0, step / (self.steps - 1))
        return self.start + share * (self.end - self.start)

    def __call__(self, work: Work) -> Iterator[Branch]:
        """Yield the branch after each step."""
        branch: Branch | None = None
        for step in range(self.depth):
            temperature = self.temperature(step)
            plan = (
                work.plan(stop=(STEP_END,), temperature=temperature)
                if branch is None
                else next_step(work, branch, temperature)
            )
            (branch,) = work.branches([plan])
            work.log("step", depth=step + 1, breadth=1, temperature=temperature, kept=[branch.number])
            yield branch
            if is_finished(branch):
                return
        work.stop_reason = "depth"


def next_step(work: Work, branch: Branch, temperature: float | None = None) -> Plan:
    """Return the plan of the line after those of an unfinished branch."""
    return work.plan(branch, prefix=branch.text + STEP_END, stop=(STEP_END,), temperature=temperature)


def is_finished(branch: Branch) -> bool:
    """Return whether an answer goes on no further: it ended by itself or by its length, or its last step is empty."""
    return branch.written.stopped_by != STEP_END or (branch.parent is not None and not branch.written.text.strip())


def distinct(branches: Sequence[Branch]) -> list[Branch]:
    """Return the branches, of those with the same text the first."""
    firsts: dict[str, Branch] = {}
    for branch in branches:
        firsts.setdefault(branch.text, branch)
    return list(firsts.values())
