"""Decides what the next step computes: decode tokens first, then pieces of prompts in order of arrival.

There is one kind of step. A sequence whose tokens but one are computed takes that one (decode); any other takes a
chunk, as large as the step has room for (chunked prefill, arXiv:2308.16369). Where no block is free the youngest
running sequence of the lowest priority gives up its blocks, keeps its tokens, and is computed again later. What room a
step has left goes to guesses of what sequences will say next.
"""

import time
from bisect import insort
from dataclasses import dataclass, replace
from operator import attrgetter

from caslon.engine.blocks import BlockPool
from caslon.engine.request import Sequence
from caslon.engine.waiting import WaitingLine


@dataclass(frozen=True)
class Chunk:
    """The tokens `start` to `end` of one sequence, to be computed in this step.

    The last of them may be `drafted`: guesses of what the sequence will say, which it does not have yet.
    """

    sequence: Sequence
    start: int
    end: int
    drafted: tuple[int, ...] = ()

    @property
    def completes(self) -> bool:
        """Return whether the chunk reaches the newest token, so that the next one can be chosen."""
        return self.end - len(self.drafted) == len(self.sequence.ids)

    @property
    def tokens(self) -> list[int]:
        """Return the ids to be computed, the drafted ones last."""
        known = self.sequence.ids[self.start : self.end - len(self.drafted)]
        return [*known, *self.drafted]


StepPlan = list[Chunk]


class _Draft:
    """A plan in the making: chunks by sequence, and the tokens the step has still room for."""

    def __init__(self, room: int) -> None:
        self.chunks: dict[Sequence, Chunk] = {}
        self.room = room

    def add(self, chunk: Chunk) -> None:
        self.chunks[chunk.sequence] = chunk
        self.room -= chunk.end - chunk.start

    def remove(self, sequence: Sequence) -> None:
        chunk = self.chunks.pop(sequence, None)
        if chunk is not None:
            self.room += chunk.end - chunk.start


_rank = attrgetter("rank")


class Scheduler:
    """Waiting and running sequences and the blocks they hold. Not thread-safe: whoever steps the engine owns it."""

    def __init__(self, pool: BlockPool, *, max_running: int, max_step_tokens: int) -> None:
        assert max_step_tokens > max_running  # so that decoding never leaves a prompt without room for ever
        self.pool = pool
        self.max_running = max_running
        self.max_step_tokens = max_step_tokens
        self.waiting = WaitingLine()
        self.running: list[Sequence] = []  # by rank: priority, then arrival
        self.preemptions = 0
        self._arrivals = 0

    @property
    def has_work(self) -> bool:
        """Return whether any sequence waits or runs."""
        return bool(self.waiting or self.running)

    @property
    def waste_tokens(self) -> int:
        """Return the room in held blocks that no computed token fills."""
        room = (len(sequence.blocks) * self.pool.block_tokens - sequence.computed for sequence in list(self.running))
        return sum(max(0, tokens) for tokens in room)

    def add(self, sequence: Sequence) -> None:
        """Put a new sequence in the queue. The caller has checked that it can ever fit."""
        sequence.arrival = self._arrivals
        self._arrivals += 1
        self.waiting.add(sequence)

    def plan(self) -> StepPlan:
        """Return the work of the next step, blocks for it already held. Empty only when there is no work."""
        self.waiting.step += 1
        draft = _Draft(self.max_step_tokens)
        preempted_before = self.preemptions
        for sequence in sorted(self.running, key=lambda sequence: sequence.remaining > 1):  # stable: first rank first
            self._schedule(sequence, draft)
        if self.preemptions == preempted_before:
            self._admit_waiting(draft)
        while self.waiting and self.running and not draft.chunks:  # all that run wait for one that was preempted
            self._preempt(self.running[-1])
            self._admit_waiting(draft)
        self._add_guesses(draft)
        return list(draft.chunks.values())

    def advance(self, plan: StepPlan) -> None:
        """Record that the planned tokens are computed, and make the blocks they filled findable."""
        for chunk in plan:
            self._computed(chunk.sequence, chunk.end - len(chunk.drafted))

    def accept_guess(self, sequence: Sequence) -> None:
        """Record that the newest token is computed already: it had been guessed and was part of the step."""
        self._computed(sequence, sequence.computed + 1)

    def fork(self, parent: Sequence, child: Sequence) -> None:
        """Let a sequence begun by `Sequence.fork` run beside its parent, sharing the blocks that are full.

        What the parent's last block holds is computed again for the child.
        """
        if parent not in self.running:
            self.waiting.add(child)
            return
        full = parent.computed // self.pool.block_tokens
        child.blocks, child.links = parent.blocks[:full], parent.links[:full]
        child.computed = full * self.pool.block_tokens
        self.pool.share(child.blocks)
        insort(self.running, child, key=_rank)

    def drop(self, sequence: Sequence) -> None:
        """Take out a sequence that ended, whatever the reason, and free its blocks."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._give_up_blocks(sequence)

    def halve_steps(self) -> bool:
        """Let a step compute half as many tokens from now on; False where that leaves no room for prompts."""
        half = self.max_step_tokens // 2
        if half <= self.max_running:
            return False
        self.max_step_tokens = half
        return True

    def _computed(self, sequence: Sequence, tokens: int) -> None:
        size = self.pool.block_tokens
        sequence.computed = tokens
        if not self.pool.prefix_cache:
            return
        for index in range(len(sequence.links), tokens // size):
            before = sequence.links[-1] if sequence.links else sequence.root
            ids = sequence.ids[index * size : (index + 1) * size]
            sequence.links.append(self.pool.remember(sequence.blocks[index], before, ids))

    def _add_guesses(self, draft: _Draft) -> None:
        """Let chunks that reach their newest token go on with guesses, as far as tokens and blocks are left over."""
        for sequence, chunk in draft.chunks.items():
            guesses = sequence.guesses[: draft.room] if chunk.completes else ()
            blocks = len(sequence.blocks) + self.pool.free
            guesses = guesses[: blocks * self.pool.block_tokens - chunk.end]
            if not guesses:
                continue
            missing = self.pool.needed(chunk.end + len(guesses)) - len(sequence.blocks)
            sequence.blocks += self.pool.take(max(0, missing))
            draft.chunks[sequence] = replace(chunk, end=chunk.end + len(guesses), drafted=guesses)
            draft.room -= len(guesses)

    def _schedule(self, sequence: Sequence, draft: _Draft) -> None:
        tokens = min(sequence.remaining, draft.room)
        if not tokens or sequence not in self.running:  # an older one may have preempted it a moment ago
            return
        if self._make_room(sequence, sequence.computed + tokens, draft):
            draft.add(Chunk(sequence, sequence.computed, sequence.computed + tokens))

    def _make_room(self, sequence: Sequence, tokens: int, draft: _Draft) -> bool:
        """Hold blocks for that many tokens, preempting the youngest as needed; False if that was `sequence` itself."""
        missing = self.pool.needed(tokens) - len(sequence.blocks)
        while missing > self.pool.free:
            youngest = self.running[-1]
            draft.remove(youngest)
            self._preempt(youngest)
            if youngest is sequence:
                return False
        if missing > 0:
            sequence.blocks += self.pool.take(missing)
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._give_up_blocks(sequence)
        self.waiting.add(sequence)
        self.preemptions += 1

    def _give_up_blocks(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []
        sequence.links = []
        sequence.computed = 0

    def _admit_waiting(self, draft: _Draft) -> None:
        while self.waiting and draft.room:
            sequence = self.waiting.first()
            if not self._admit(sequence):
                return
            self._schedule(sequence, draft)

    def _admit(self, sequence: Sequence) -> bool:
        """Start the sequence whose turn it is, if there are a place and blocks for all its tokens and the next one."""
        if sum(one.width for one in self.running) + sequence.width > self.max_running:
            return False
        blocks, links = self.pool.match(sequence.ids, sequence.root) if sequence.shares_prefix else ([], [])
        wanted = min(self.pool.needed(len(sequence.ids) + 1), self.pool.count)
        if wanted - len(blocks) > self.pool.free:
            self.pool.release(blocks)
            return False
        sequence.rank = self.waiting.rank(sequence)
        self.waiting.remove(sequence)
        insort(self.running, sequence, key=_rank)
        sequence.blocks, sequence.links = blocks, links
        sequence.computed = len(blocks) * self.pool.block_tokens
        if sequence.started is None:
            sequence.started = time.perf_counter()
            sequence.cached_tokens = sequence.computed
        return True
