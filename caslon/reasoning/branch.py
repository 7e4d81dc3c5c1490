"""What a strategy asks to have written, and what came of it: the border between strategies and whatever writes.

A `Generate` takes several asks at once, so that an engine can write them side by side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

MARKER_TOKENS = 2  # the two that open and close thinking


@dataclass(frozen=True)
class Ask:
    """One text to be written: the answer to a prompt, going on from `prefix`, which stands written already.

    `max_tokens` counts the tokens of the answer. With a `thinking_budget` thinking has so many to itself, and its two
    markers; without one it counts as part of the answer. `first_tokens` asks for that many likeliest first tokens.
    """

    prompt: str
    seed: int
    max_tokens: int
    temperature: float
    prefix: str = ""
    stop: tuple[str, ...] = ()
    thinking_budget: int | None = None
    first_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """The most tokens that can come."""
        return self.max_tokens + (0 if self.thinking_budget is None else self.thinking_budget + MARKER_TOKENS)

    def within(self, tokens: int) -> "Ask | None":
        """Return the ask cut down to so many tokens in all, thinking and answer in proportion; None where nothing fits."""
        if self.total_tokens <= tokens:
            return self
        if self.thinking_budget is None:
            return replace(self, max_tokens=tokens) if tokens > 0 else None
        free = tokens - MARKER_TOKENS
        thinking = free * self.thinking_budget // (self.thinking_budget + self.max_tokens)
        return replace(self, max_tokens=free - thinking, thinking_budget=thinking) if free > 0 else None


@dataclass(frozen=True)
class Written:
    """What was written. `text` leaves thinking and the prefix out; `tokens` counts all that came, thinking included.

    `stopped_by` is the stop string that ended it; `logprobs` are natural-log probabilities, one a token; `cached_tokens` of the
    prompt were computed before, for another branch or question.
    """

    text: str
    tokens: int
    finish_reason: str
    thinking: str = ""
    thinking_tokens: int = 0
    stopped_by: str | None = None
    logprobs: tuple[float, ...] = ()
    cached_tokens: int = 0
    first_tokens: tuple[tuple[str, float], ...] = ()


Generate = Callable[[Sequence[Ask]], Sequence[Written]]


@dataclass(frozen=True)
class Branch:
    """One line of thought of a question: what was asked, what was written, and the branch it goes on from."""

    number: int
    ask: Ask
    written: Written
    parent: "Branch | None" = None

    @property
    def text(self) -> str:
        """The whole answer so far."""
        return self.ask.prefix + self.written.text

    @property
    def thinking(self) -> str:
        """All that was thought on the way here."""
        return (self.parent.thinking if self.parent else "") + self.written.thinking

    @property
    def trace(self) -> str:
        """Thinking and answer, as a checker reads them."""
        return "\n".join(part for part in (self.thinking, self.text) if part)

    @cached_property
    def logprobs(self) -> tuple[float, ...]:
        """The log-probabilities of all tokens of the branch and of those it goes on from."""
        return (self.parent.logprobs if self.parent else ()) + self.written.logprobs

    @property
    def mean_logprob(self) -> float | None:
        """The log-probability divided by the number of tokens; None where none is known."""
        return fmean(self.logprobs) if self.logprobs else None
