"""The books of blocks and sequences stay right under any order of events."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from caslon.engine.blocks import ROOT, BlockPool
from caslon.engine.request import SamplingParams, Sequence
from caslon.engine.scheduler import Scheduler, StepPlan


def sequence(prompt: list[int], max_tokens: int = 8, **fields: Any) -> Sequence:
    return Sequence(tuple(prompt), SamplingParams(max_tokens=max_tokens, **fields), frozenset(), 0)


def step(scheduler: Scheduler, token: int = 1) -> StepPlan:
    """Plan, "compute", and give every completed sequence a next token; end those that are long enough."""
    plan = scheduler.plan()
    completed = [chunk.sequence for chunk in plan if chunk.completes]
    scheduler.advance(plan)
    for done in completed:
        done.append(token)
        if done.output_tokens == done.params.max_tokens:
            scheduler.drop(done)
    return plan


def work(plan: StepPlan) -> list[tuple[int, int]]:
    return [(chunk.start, chunk.end) for chunk in plan]


def test_decode_goes_first_then_prompts_in_order_of_arrival() -> None:
    scheduler = Scheduler(BlockPool(100, 8), max_running=4, max_step_tokens=16)
    first, second, third = (sequence([1] * length) for length in (5, 30, 9))
    scheduler.add(first)
    assert work(step(scheduler)) == [(0, 5)]
    scheduler.add(second)
    scheduler.add(third)
    assert work(step(scheduler)) == [(5, 6), (0, 15)]
    assert work(step(scheduler)) == [(6, 7), (15, 30)]
    plan = step(scheduler)
    assert [chunk.sequence for chunk in plan] == [first, second, third]
    assert work(plan) == [(7, 8), (30, 31), (8, 9)]  # the first block of the third is known from the second


def test_the_youngest_is_preempted_and_comes_back() -> None:
    pool = BlockPool(4, 8, prefix_cache=False)
    scheduler = Scheduler(pool, max_running=4, max_step_tokens=64)
    old, young = sequence([1] * 15, 16), sequence([2] * 14, 16)
    scheduler.add(old)
    scheduler.add(young)
    while not scheduler.preemptions:
        step(scheduler)
    assert scheduler.running == [old]
    assert list(scheduler.waiting) == [young]
    assert young.computed == 0
    assert young.blocks == []
    while scheduler.has_work:
        step(scheduler)
        pool.check(running.blocks for running in scheduler.running)
    assert (old.output_tokens, young.output_tokens) == (16, 16)
    assert pool.used == 0


def test_blocks_are_found_by_content_and_evicted_oldest_first() -> None:
    pool = BlockPool(4, 2)
    held = pool.take(3)
    link = ROOT
    for block, ids in zip(held, ([1, 2], [3, 4], [5, 6]), strict=True):
        link = pool.remember(block, link, ids)
    pool.release(held)
    assert (pool.free, pool.known) == (4, 3)
    assert pool.match([1, 2, 3, 4])[0] == held[:1]  # the last token is always computed
    found, _ = pool.match([1, 2, 3, 4, 9, 9])
    assert found == held[:2]
    assert pool.match([9, 2, 3, 4, 5])[0] == []
    taken = pool.take(2)  # the empty one, then the only one that rests
    assert held[2] in taken
    assert (pool.known, pool.evictions) == (2, 1)
    pool.release(taken)
    pool.release(found)
    pool.release(held[:1])
    assert pool.used == 0


def test_equal_content_in_two_blocks_keeps_one_known() -> None:
    pool = BlockPool(4, 2)
    first, second = pool.take(2)
    assert pool.remember(first, ROOT, [1, 2]) == pool.remember(second, ROOT, [1, 2])
    pool.release([first, second])
    pool.check([])
    assert pool.known == 1


def test_without_a_prefix_cache_nothing_is_remembered() -> None:
    pool = BlockPool(4, 2, prefix_cache=False)
    (block,) = pool.take(1)
    pool.remember(block, ROOT, [1, 2])
    pool.release([block])
    assert (pool.known, pool.match([1, 2, 3])) == (0, ([], []))


class SchedulerMachine(RuleBasedStateMachine):
    """Random submissions, steps and cancellations on a tiny pool, with prompts that often begin alike."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(6, 4)
        self.scheduler = Scheduler(self.pool, max_running=3, max_step_tokens=7)
        self.alive: list[Sequence] = []

    @rule(shared=st.integers(0, 12), own=st.lists(st.integers(0, 2), min_size=1, max_size=6), new=st.integers(1, 6))
    def submit(self, shared: int, own: list[int], new: int) -> None:
        made = sequence([7] * shared + own, new)
        assert self.pool.needed(len(made.prompt) + new) <= self.pool.count
        self.alive.append(made)
        self.scheduler.add(made)

    @rule(token=st.integers(0, 2))
    def step(self, token: int) -> None:
        plan = step(self.scheduler, token)
        assert plan or not self.alive
        assert sum(chunk.end - chunk.start for chunk in plan) <= self.scheduler.max_step_tokens
        assert len({chunk.sequence for chunk in plan}) == len(plan)
        self._forget_the_ended()

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.scheduler.drop(data.draw(st.sampled_from(self.alive)))
        self._forget_the_ended()

    def _forget_the_ended(self) -> None:
        living = [*self.scheduler.running, *self.scheduler.waiting]
        self.alive = [one for one in self.alive if one in living]

    @invariant()
    def books_are_right(self) -> None:
        self.pool.check(one.blocks for one in self.alive)
        assert self.pool.free + self.pool.used == self.pool.count
        for one in self.scheduler.running:
            assert len(one.blocks) >= self.pool.needed(one.computed)
            assert len(one.links) == one.computed // self.pool.block_tokens
        assert all(not one.blocks for one in self.scheduler.waiting)
        assert len(self.scheduler.running) <= self.scheduler.max_running

    def teardown(self) -> None:
        for _ in range(2000):
            if not self.scheduler.has_work:
                break
            step(self.scheduler)
        assert not self.scheduler.has_work
        assert self.pool.used == 0
        self.pool.check([])


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 10)), min_size=1, max_size=12), st.integers(8, 40))
def test_every_request_ends_with_its_number_of_tokens(requests: list[tuple[int, int]], room: int) -> None:
    scheduler = Scheduler(BlockPool(8, 4), max_running=5, max_step_tokens=room)
    made = [sequence([3] * prompt, new) for prompt, new in requests]
    for one in made:
        scheduler.add(one)
    for _ in range(5000):
        if not scheduler.has_work:
            break
        step(scheduler)
    assert [one.output_tokens for one in made] == [new for _, new in requests]


@pytest.mark.slow
def test_ten_thousand_operations() -> None:
    class Long(SchedulerMachine):
        pass

    Long.TestCase.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)
    Long.TestCase().runTest()


@pytest.mark.promise("engine", "requests start by priority, then by arrival")
def test_priority_then_arrival() -> None:
    scheduler = Scheduler(BlockPool(100, 8), max_running=1, max_step_tokens=16)
    low, high, later, urgent = (sequence([1] * 5, 2) for _ in range(4))
    low.priority, high.priority, later.priority, urgent.priority = 5, 1, 1, -3
    for one in (low, high, later, urgent):
        scheduler.add(one)
    assert list(scheduler.waiting) == [urgent, high, later, low]
    started = []
    while scheduler.has_work:
        plan = step(scheduler)
        started += [chunk.sequence for chunk in plan if chunk.start == 0]
    assert started == [urgent, high, later, low]


@pytest.mark.promise("engine", "no request waits for ever: every 100 steps of waiting raise its priority by one")
def test_waiting_raises_priority() -> None:
    scheduler = Scheduler(BlockPool(100, 8, prefix_cache=False), max_running=1, max_step_tokens=16)
    patient = sequence([2] * 5, 2)
    patient.priority = 3
    scheduler.add(patient)
    steps = 0
    while not patient.output_tokens and steps < 1000:
        if len(scheduler.waiting) < 3:
            scheduler.add(sequence([1] * 5, 2))  # there is always one of a higher priority
        step(scheduler)
        steps += 1
    assert 300 <= steps <= 310
    assert patient.rank[0] == 0


def test_the_lowest_priority_is_preempted_first() -> None:
    scheduler = Scheduler(BlockPool(6, 8, prefix_cache=False), max_running=3, max_step_tokens=64)
    low, old, young = sequence([1] * 15, 9), sequence([2] * 15, 9), sequence([3] * 15, 9)
    low.priority = 1
    for one in (low, old, young):
        scheduler.add(one)
    while not scheduler.preemptions:
        step(scheduler)
    assert scheduler.running == [old, young]
    assert list(scheduler.waiting) == [low]


def test_guesses_use_only_what_is_left_over() -> None:
    pool = BlockPool(4, 8, prefix_cache=False)
    scheduler = Scheduler(pool, max_running=2, max_step_tokens=14)
    first, second = sequence([1] * 6, 20), sequence([2] * 6, 20)
    scheduler.add(first)
    scheduler.add(second)
    step(scheduler)
    first.guesses, second.guesses = (5,) * 8, (6,) * 9
    plan = scheduler.plan()
    assert [(chunk.start, chunk.end, len(chunk.drafted)) for chunk in plan] == [(6, 15, 8), (6, 11, 4)]
    assert plan[0].tokens == [1, *(5,) * 8]
    scheduler.advance(plan)
    assert (first.computed, second.computed) == (7, 7)
    first.append(5)
    scheduler.accept_guess(first)
    assert (first.computed, first.remaining) == (8, 0)
    first.guesses, second.guesses = (5,) * 12, ()
    first.append(9)
    assert [len(chunk.drafted) for chunk in scheduler.plan()] == [7]  # no block is taken from anybody
    pool.check([first.blocks, second.blocks])


def test_submitting_to_a_long_queue_is_quick_work() -> None:
    scheduler = Scheduler(BlockPool(1000, 8), max_running=16, max_step_tokens=64)
    for number in range(512):
        made = sequence([1] * 5, 2)
        made.priority = number % 7
        scheduler.add(made)
    assert len(scheduler.waiting) == 512
    compared = 0

    class Counted(int):
        def __lt__(self, other: int) -> bool:
            nonlocal compared
            compared += 1
            return int(self) < other

    made = sequence([1] * 5, 2)
    scheduler._arrivals = Counted(scheduler._arrivals)
    made.priority = 3
    scheduler.add(made)
    assert compared <= 8  # the logarithm of the line's length
