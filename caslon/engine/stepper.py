"""Steps the engine: takes requests in, computes what the scheduler plans, chooses tokens, ends answers.

Everything here runs in one thread at a time; `Engine` sees to that. A step that fails takes down its own sequences only.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

import torch

from caslon.engine.activity import Activity
from caslon.engine.answer import Answer
from caslon.engine.request import Sequence
from caslon.engine.runner import Runner, StepOutput
from caslon.engine.sampler import Choice, sample, token_logprobs
from caslon.engine.scheduler import Chunk, Scheduler, StepPlan
from caslon.engine.search import SearchAnswer
from caslon.engine.speculate import Speculator

_log = logging.getLogger(__name__)


class Stepper:
    """The answers under way. `counts` sums up the engine's life, `finished` counts answers by finish reason."""

    def __init__(self, runner: Runner, scheduler: Scheduler, speculator: Speculator) -> None:
        self.runner = runner
        self.scheduler = scheduler
        self.speculator = speculator
        self.answers: dict[Sequence, Answer] = {}
        self.counts: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.on_step: Callable[[int], None] | None = None  # is told how many tokens each step computed
        self._activity = Activity()
        self._steps_were_halved = False

    def add(self, answer: Answer) -> None:
        """Let an answer wait for its turn."""
        self.answers[answer.sequence] = answer
        self.scheduler.add(answer.sequence)
        self.counts["prompt_tokens"] += len(answer.sequence.prompt)

    def end(self, answer: Answer, reason: str, error: str | None = None) -> None:
        """End an answer, free what it holds and let its caller know; harmless when it has ended already."""
        if answer.completion is None:
            answer.end(reason, error=error)
            self._retire(answer)

    def end_all(self, reason: str) -> None:
        """End every answer."""
        for answer in set(self.answers.values()):
            self.end(answer, reason)

    def step(self) -> None:
        """Compute one step, if there is anything to compute."""
        now = time.perf_counter()
        for answer in {answer for answer in self.answers.values() if answer.sequence.deadline <= now}:
            self.end(answer, "timeout")
        self.speculator.propose(self.scheduler.running)
        plan = self.scheduler.plan()
        if plan:
            self._compute(plan)
        self._activity.note(self.counts, self.scheduler, now)

    def _compute(self, plan: StepPlan) -> None:
        self.counts["steps"] += 1
        try:
            output = self.runner.run(plan)
            with self.runner.between_steps():
                self._score_prompts(output)
            self._hand_out_states(output)
        except Exception as error:
            if _lacks_memory(error) and self._halve_steps():
                return  # the same tokens are planned again, in smaller steps
            self._fail((chunk.sequence for chunk in plan), error)
            return
        self.scheduler.advance(plan)
        for chunk in plan:
            prompt_end = min(chunk.end, len(chunk.sequence.prompt))
            self.counts["computed_prompt_tokens"] += max(0, prompt_end - chunk.start)
        if self.on_step is not None:
            self.on_step(sum(chunk.end - chunk.start for chunk in plan))
        with self.runner.between_steps():
            self._choose(output)
        for chunk in plan:
            if chunk.completes and not chunk.sequence.wants_tokens:
                self.end(self.answers[chunk.sequence], "stop")

    def _choose(self, output: StepOutput) -> None:
        """Choose the next token of each sequence, and after it, as long as what was guessed is what was chosen, more."""
        turns: list[tuple[Chunk, int]] = []
        searching: list[SearchAnswer] = []
        row = 0
        for chunk in output.choosing:
            answer = self.answers[chunk.sequence]
            if isinstance(answer, SearchAnswer):
                answer.report(chunk.sequence, output.next_logits[row])
                searching.append(answer)
            else:
                turns.append((chunk, row))
            row += 1 + len(chunk.drafted)
        for answer in dict.fromkeys(searching):
            self._grow(answer)
        place = 0
        while turns:
            rows = [first + place for _, first in turns]
            logits = output.next_logits if len(rows) == len(output.next_logits) else output.next_logits[rows]
            try:
                choices = sample(logits, [chunk.sequence for chunk, _ in turns])
            except Exception as error:
                self._fail((chunk.sequence for chunk, _ in turns), error)
                return
            pairs = zip(turns, choices, strict=True)
            turns = [turn for turn, choice in pairs if self._accept(turn[0], place, choice)]
            place += 1

    def _accept(self, chunk: Chunk, place: int, choice: Choice) -> bool:
        """Give a choice to its answer; return whether the next row of the chunk is to be chosen from too."""
        sequence = chunk.sequence
        answer = self.answers[sequence]
        was_guessed = place < len(chunk.drafted) and chunk.drafted[place] == choice.id
        try:
            answer.accept(choice, was_guessed=was_guessed)
        except Exception as error:
            self._fail([sequence], error)
            return False
        goes_on = was_guessed and answer.completion is None
        if chunk.drafted and not goes_on:
            self.speculator.record(sequence, len(chunk.drafted), place + was_guessed)
        self.counts["chosen_tokens"] += choice.error is None
        if answer.completion is not None:
            self._retire(answer)
        elif was_guessed:
            self.scheduler.accept_guess(sequence)
        return goes_on

    def _grow(self, answer: SearchAnswer) -> None:
        if not answer.is_ready:
            return
        try:
            born, gone = answer.grow()
        except Exception as error:
            self._fail([answer.sequences[0]], error)
            return
        for child, parent in born:
            self.scheduler.fork(parent, child)
            self.answers[child] = answer
        for sequence in gone:
            self._forget(sequence)
        if answer.completion is not None:
            self._retire(answer)

    def _fail(self, sequences: Iterable[Sequence], error: Exception) -> None:
        failed = [sequence for sequence in sequences if sequence in self.answers]
        names = ", ".join(sequence.request_id or f"number {sequence.arrival}" for sequence in failed)
        _log.error("a step failed; the requests in it end: %s", names, exc_info=error)
        for sequence in failed:
            if sequence in self.answers:
                self.end(self.answers[sequence], "error", f"internal_error: {error}")

    def _halve_steps(self) -> bool:
        if self._steps_were_halved or not self.scheduler.halve_steps():
            return False
        self._steps_were_halved = True
        _log.warning(
            "a step did not fit into memory; from now on a step computes at most %d tokens",
            self.scheduler.max_step_tokens,
        )
        return True

    def _forget(self, sequence: Sequence) -> None:
        self.scheduler.drop(sequence)
        del self.answers[sequence]
        self.speculator.forget(sequence)

    def _retire(self, answer: Answer) -> None:
        """Free what an ended answer holds, then let its caller know."""
        assert answer.completion is not None
        for sequence in answer.sequences:
            self._forget(sequence)
            sequence.adapter = None  # a handle that is kept shall not keep the adapter
        answer.sequence.adapter = None
        self.counts["cached_tokens"] += answer.completion.cached_tokens
        self.counts["generated_tokens"] += len(answer.completion.ids)
        self.finished[answer.completion.finish_reason] += 1
        answer.publish()

    def _hand_out_states(self, output: StepOutput) -> None:
        for chunk, states in output.hidden:
            answer = self.answers[chunk.sequence]
            if isinstance(answer, SearchAnswer):
                answer.see(chunk.sequence, chunk.start, states)
            elif chunk.sequence.pooled is not None:
                chunk.sequence.pooled.add(chunk.start, states)

    def _score_prompts(self, output: StepOutput) -> None:
        row = 0
        for chunk, positions in output.scoring:
            sequence = chunk.sequence
            logits = output.prompt_logits[row : row + len(positions)]
            ids = sequence.ids[positions.start + 1 : positions.stop + 1]
            sequence.prompt_logprobs += token_logprobs(logits, ids, sequence.params.prompt_logprobs or 0)
            row += len(positions)


def _lacks_memory(error: Exception) -> bool:
    """Return whether memory ran out; on a CPU torch says so in words only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
