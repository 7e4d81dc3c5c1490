import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caslon.server.meters import METERS, CalendarMonth, FixedWindow, LeakyBucket, SlidingLog, TokenBucket


def admitted(meter, times: list[float]) -> list[bool]:
    state, answers = [], []
    for now in times:
        decision = meter.decide(state, 1, now)
        state = decision.state
        answers.append(decision.allowed)
    return answers


@pytest.mark.promise("server", "Each way of limiting lets through exactly what its definition says")
def test_five_a_minute_in_four_ways() -> None:
    around_a_minute = [59.0] * 6 + [60.5] * 6
    assert sum(admitted(FixedWindow(5), around_a_minute)) == 10
    assert admitted(SlidingLog(5), around_a_minute) == [True] * 5 + [False] * 7
    at_once_then_each_second = [0.0] * 6 + [float(second) for second in range(1, 61)]
    bucket = admitted(TokenBucket(5), at_once_then_each_second)
    assert bucket[:6] == [True] * 5 + [False]
    assert [second for second, allowed in enumerate(bucket[6:], 1) if allowed] == [12, 24, 36, 48, 60]
    # One leaves at once, five wait in the queue, the seventh overflows it.
    assert admitted(LeakyBucket(5), [0.0] * 8) == [True] * 6 + [False] * 2


def test_a_leaky_bucket_lets_one_out_at_a_time() -> None:
    state, delays = [], []
    for _ in range(6):
        decision = LeakyBucket(5).decide(state, 1, 0.0)
        state = decision.state
        delays.append(decision.delay_seconds)
    assert delays == [0, 12, 24, 36, 48, 60]


@given(st.lists(st.floats(0, 300), max_size=60))
def test_sliding_log_never_lets_more_than_the_limit_through_in_any_window(times: list[float]) -> None:
    times.sort()
    kept = [now for now, allowed in zip(times, admitted(SlidingLog(5), times), strict=True) if allowed]
    assert all(last - first >= 60 for first, last in zip(kept, kept[5:], strict=False))


@pytest.mark.parametrize("name", METERS)
@given(costs=st.lists(st.tuples(st.floats(0, 30), st.integers(1, 7)), max_size=30))
def test_after_the_time_it_names_a_refused_one_is_let_in(name: str, costs: list[tuple[float, int]]) -> None:
    meter, state, now = METERS[name](7), [], 1000.0
    for gap, cost in costs:
        now += gap
        decision = meter.decide(state, cost, now)
        if not decision.allowed:
            assert 0 < decision.retry_seconds <= 120
            later = now + decision.retry_seconds + 1e-6
            assert meter.decide(decision.state, cost, later).allowed
        state = decision.state


@pytest.mark.parametrize("meter", [TokenBucket(10), SlidingLog(10), FixedWindow(10), CalendarMonth(10)])
def test_what_is_given_back_can_be_taken_again(meter) -> None:
    full = meter.decide([], 10, 30.0)
    assert not meter.decide(full.state, 1, 30.0).allowed
    state = meter.give_back(full.state, 4, 30.0, 31.0)
    assert meter.decide(state, 4, 31.0).allowed
    assert not meter.decide(state, 6, 31.0).allowed


def test_a_month_ends_when_the_calendar_says() -> None:
    last = datetime.datetime(2027, 12, 31, 23, 59, tzinfo=datetime.UTC).timestamp()
    decision = CalendarMonth(5).decide([], 5, last)
    assert decision.reset_seconds == 60
    assert not CalendarMonth(5).decide(decision.state, 1, last + 59).allowed
    assert CalendarMonth(5).decide(decision.state, 5, last + 60).allowed
