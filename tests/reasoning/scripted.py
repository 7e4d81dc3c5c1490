"""A generate function that says what it is told, a token a word, and remembers what it was asked."""

import random
from collections.abc import Callable, Sequence

from caslon.reasoning.branch import Ask, Written


class Scripted:
    """Answers the i-th ask with `script(ask, i)`: a text, cut where max_tokens or a stop string ends it."""

    def __init__(self, script: Callable[[Ask, int], str] | Sequence[str], logprob: float = -1.0) -> None:
        self.script = script if callable(script) else (lambda _ask, number: script[number % len(script)])
        self.logprob = logprob
        self.asks: list[Ask] = []
        self.waves: list[int] = []

    def __call__(self, asks: Sequence[Ask]) -> list[Written]:
        self.waves.append(len(asks))
        return [self.written(ask) for ask in asks]

    def written(self, ask: Ask) -> Written:
        self.asks.append(ask)
        text = self.script(ask, len(self.asks) - 1)
        stopped_by = next((stop for stop in ask.stop if stop in text), None)
        if stopped_by:
            text = text.partition(stopped_by)[0]
        words = text.split(" ")
        cut = len(words) > ask.max_tokens
        kept = words[: ask.max_tokens]
        return Written(
            text=" ".join(kept),
            tokens=len(kept),
            finish_reason="length" if cut else "stop",
            stopped_by=None if cut else stopped_by,
            logprobs=(self.logprob,) * len(kept),
            first_tokens=tuple((word, -1.0) for word in ("Aa", "Bb", "Cc"))[: ask.first_tokens],
        )


def noisy(right: str, share_right: float) -> Scripted:
    """Return what is right in that share of its answers, by the seed of the ask alone."""

    def script(ask: Ask, _number: int) -> str:
        draw = random.Random(ask.seed)
        return f"#### {right}" if draw.random() < share_right else f"#### {draw.randrange(1000)}"

    return Scripted(script)
