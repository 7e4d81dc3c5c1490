"""What every program is asked: prompts of random ids, and how many tokens to answer with. Drawn by a seed, free of torch."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Measure = Literal["prompt tokens/s", "ms to first token", "tokens/s"]
SHORT_PROMPT = 64
MIXED_REQUESTS = 64
DECODE_BATCHES = (1, 8, 16, 32)
PREFILLS = (512, 2048)


@dataclass(frozen=True)
class Load:
    """Requests that come at once; `batch` of them may run together. `measure` says what their seconds are turned into."""

    name: str
    measure: Measure
    prompts: Sequence[Sequence[int]]
    new_tokens: Sequence[int]
    batch: int

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its answer."""
        return max(len(prompt) + new for prompt, new in zip(self.prompts, self.new_tokens, strict=True))

    def figure(self, seconds: float) -> float:
        """Return what was measured, in the unit of `measure`."""
        if self.measure == "ms to first token":
            return 1000 * seconds
        if self.measure == "prompt tokens/s":
            return sum(map(len, self.prompts)) / seconds
        return sum(self.new_tokens) / seconds

    @property
    def more_is_better(self) -> bool:
        """Whether a larger figure is the faster one."""
        return self.measure != "ms to first token"


def loads(vocab_size: int, context: int, *, answer_tokens: int = 128, seed: int = 1) -> Iterator[Load]:
    """Yield the loads that fit the model's context."""
    chooser = random.Random(seed)  # noqa: S311 - repeatable, not secret

    def prompts(count: int, shortest: int, longest: int) -> list[list[int]]:
        lengths = [chooser.randint(shortest, longest) for _ in range(count)]
        return [[chooser.randrange(vocab_size) for _ in range(length)] for length in lengths]

    answer = min(answer_tokens, context // 2)
    longest = min(2 * SHORT_PROMPT, context - answer)
    for tokens in PREFILLS:
        yield Load(f"prefill {tokens:,}", "prompt tokens/s", prompts(1, tokens, tokens), [1], 1)
    yield Load("first token", "ms to first token", prompts(1, longest // 2, longest // 2), [1], 1)
    for batch in DECODE_BATCHES:
        yield Load(f"decode, batch {batch}", "tokens/s", prompts(batch, 8, 8), [answer] * batch, batch)
    # Many short answers and few long ones, as people ask.
    mixed = [max(4, round(answer * chooser.random() ** 2)) for _ in range(MIXED_REQUESTS)]
    yield Load(f"{MIXED_REQUESTS} mixed requests", "tokens/s", prompts(MIXED_REQUESTS, 8, longest), mixed, 16)


def fitting(all_loads: Iterator[Load], context: int) -> tuple[list[Load], list[str]]:
    """Return the loads that fit a context, and the names of those that do not."""
    found = list(all_loads)
    return [load for load in found if load.longest <= context], [load.name for load in found if load.longest > context]
