"""How fast something may come, as pure arithmetic: a meter's state, a cost and the time in, a decision and the new state out.

Four ways to hold `limit` per `window`: a token bucket fills at an even rate and lets a burst through; a sliding log never lets
more than the limit through in any window; a fixed window counts from one round moment to the next (and so lets twice the limit
through around it); a leaky bucket lets one out at a time, makes the next ones wait, and drops what overflows its queue.
A state is a list of numbers, so that it can be stored; the empty list is a meter that was never used.
Source: https://en.wikipedia.org/wiki/Rate_limiting
"""

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

MINUTE_SECONDS = 60.0
State = Sequence[float]


@dataclass(frozen=True)
class Decision:
    """What a meter says. `remaining` and `reset_seconds` (until all is there again) hold after it, `retry_seconds` if refused.

    `delay_seconds` is how long an allowed one has to wait for its turn; only a leaky bucket makes it wait.
    """

    allowed: bool
    state: State
    remaining: float
    reset_seconds: float
    retry_seconds: float = 0.0
    delay_seconds: float = 0.0


class Meter(Protocol):
    """One way to hold a limit."""

    @property
    def limit(self) -> float:
        """How much may come in a window."""

    def decide(self, state: State, cost: float, now: float) -> Decision:
        """Return whether something of this cost may come now."""

    def give_back(self, state: State, unused: float, taken_at: float, now: float) -> State:
        """Return the state when a part of what was taken at a time turns out unused."""


@dataclass(frozen=True)
class TokenBucket:
    """State: level, time of that level."""

    limit: float
    window: float = MINUTE_SECONDS

    def decide(self, state: State, cost: float, now: float) -> Decision:
        """Take from the bucket what is in it."""
        level = self._level(state, now)
        rate = self.limit / self.window
        if cost > level + 1e-9:  # filled by many small steps, a full bucket is a hair less than full
            return Decision(False, [level, now], level, (self.limit - level) / rate, (cost - level) / rate)
        level = max(0.0, level - cost)
        return Decision(True, [level, now], level, (self.limit - level) / rate)

    def give_back(self, state: State, unused: float, taken_at: float, now: float) -> State:
        """Pour it back; the bucket never overflows."""
        return [min(self.limit, self._level(state, now) + unused), now]

    def _level(self, state: State, now: float) -> float:
        if not state:
            return self.limit
        level, since = state
        return min(self.limit, level + max(0.0, now - since) * self.limit / self.window)


@dataclass(frozen=True)
class SlidingLog:
    """State: time, cost, time, cost, ... of all that came in the last window."""

    limit: float
    window: float = MINUTE_SECONDS

    def decide(self, state: State, cost: float, now: float) -> Decision:
        """Add to the log what fits beside the rest of it."""
        entries = self._recent(state, now)
        used = sum(amount for _, amount in entries)
        if used + cost > self.limit + 1e-9:
            return Decision(
                False, _flat(entries), self.limit - used, self._reset(entries, now), self._retry(entries, cost, now)
            )
        entries.append((now, cost))
        return Decision(True, _flat(entries), self.limit - used - cost, self._reset(entries, now))

    def give_back(self, state: State, unused: float, taken_at: float, now: float) -> State:
        """Enter the opposite at the time when it was taken, so that both leave the log together."""
        if now - taken_at >= self.window:
            return state
        return _flat(sorted([*self._recent(state, now), (taken_at, -unused)]))

    def _recent(self, state: State, now: float) -> list[tuple[float, float]]:
        return [(at, cost) for at, cost in zip(state[::2], state[1::2], strict=True) if now - at < self.window]

    def _reset(self, entries: list[tuple[float, float]], now: float) -> float:
        return entries[-1][0] + self.window - now if entries else 0.0

    def _retry(self, entries: list[tuple[float, float]], cost: float, now: float) -> float:
        """Return when enough of the log has left; a whole window when it can never be enough."""
        used = sum(amount for _, amount in entries)
        for at, amount in entries:
            used -= amount
            if used + cost <= self.limit:
                return at + self.window - now
        return self.window


@dataclass(frozen=True)
class FixedWindow:
    """State: number of the window, what was used in it."""

    limit: float
    window: float = MINUTE_SECONDS

    def decide(self, state: State, cost: float, now: float) -> Decision:
        """Count within the present window."""
        number = math.floor(now / self.window)
        used = self._used(state, number)
        left = (number + 1) * self.window - now
        if used + cost > self.limit:
            return Decision(False, [number, used], self.limit - used, left, left)
        return Decision(True, [number, used + cost], self.limit - used - cost, left)

    def give_back(self, state: State, unused: float, taken_at: float, now: float) -> State:
        """Count down, when the window is still the one in which it was taken."""
        number = math.floor(taken_at / self.window)
        return [number, max(0.0, state[1] - unused)] if state and state[0] == number else state

    def _used(self, state: State, number: int) -> float:
        return state[1] if state and state[0] == number else 0.0


@dataclass(frozen=True)
class LeakyBucket:
    """State: when the next one may leave. The queue holds as much as the limit."""

    limit: float
    window: float = MINUTE_SECONDS

    def decide(self, state: State, cost: float, now: float) -> Decision:
        """Give it the next free moment, unless the queue before that moment is full."""
        seconds_each = self.window / self.limit
        turn = max(now, state[0]) if state else now
        waiting = (turn - now) / seconds_each
        over = waiting + cost - 1 - self.limit
        if over > 1e-9:
            return Decision(False, [turn], max(0.0, self.limit - waiting), turn - now, over * seconds_each)
        after = turn + cost * seconds_each
        remaining = max(0.0, self.limit + 1 - (after - now) / seconds_each)
        return Decision(True, [after], remaining, after - now, delay_seconds=turn - now)

    def give_back(self, state: State, unused: float, taken_at: float, now: float) -> State:
        """Move the next free moment forward."""
        return [state[0] - unused * self.window / self.limit] if state else state


@dataclass(frozen=True)
class CalendarMonth:
    """A fixed window as long as the present month of UTC. State: number of the month, what was used in it."""

    limit: float

    def decide(self, state: State, cost: float, now: float) -> Decision:
        """Count within the month."""
        number, end = _month(now)
        used = state[1] if state and state[0] == number else 0.0
        if used + cost > self.limit:
            return Decision(False, [number, used], self.limit - used, end - now, end - now)
        return Decision(True, [number, used + cost], self.limit - used - cost, end - now)

    def give_back(self, state: State, unused: float, taken_at: float, now: float) -> State:
        """Count down, when the month is still the one in which it was taken."""
        number, _ = _month(taken_at)
        return [number, max(0.0, state[1] - unused)] if state and state[0] == number else state


METERS: Mapping[str, type[TokenBucket | SlidingLog | FixedWindow | LeakyBucket]] = {
    "token_bucket": TokenBucket,
    "sliding_log": SlidingLog,
    "fixed_window": FixedWindow,
    "leaky_bucket": LeakyBucket,
}


def _month(now: float) -> tuple[int, float]:
    """Return a number for the month of UTC and the time at which it ends."""
    day = datetime.datetime.fromtimestamp(now, datetime.UTC)
    following = datetime.datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=datetime.UTC)
    return day.year * 12 + day.month, following.timestamp()


def _flat(entries: Sequence[tuple[float, float]]) -> State:
    return [number for entry in entries for number in entry]
