"""Prompts to texts at several temperatures, with what can be said of them by counting.

The sweep shows where a model turns from repeating itself to falling apart; one temperature alone hides both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from caslon.engine.engine import Engine
from caslon.engine.request import SamplingParams
from caslon.errors import UserError

OPENING_CHARACTERS = 60
COUNTED_RUN_WORDS = 4


@dataclass(frozen=True)
class WrittenText:
    """A text the model wrote, and everything needed to have it written again."""

    prompt: str
    text: str
    temperature: float
    top_p: float
    seed: int
    tokens: int
    finish_reason: str


@dataclass(frozen=True)
class SweepRow:
    """What the texts of one temperature have in common."""

    temperature: float
    texts: int
    ended_share: float  # ended by themselves rather than at the limit
    distinct_trigrams: float  # distinct / all runs of three words
    repeated_share: float  # runs of four words that stood earlier in the same text


def sweep(
    engine: Engine,
    prompts: Sequence[str],
    temperatures: Sequence[float],
    *,
    max_tokens: int,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[WrittenText]:
    """Return one text for each temperature and prompt. Prompts stand at the start of a document, as in training.

    Each text has its own seed, so adding a prompt changes no other text. `UserError` for a prompt that fills the context.
    """
    tokenizer = engine.tokenizer
    starts = [[tokenizer.end_of_text_id, *tokenizer.encode(prompt)] for prompt in prompts]
    room = engine.model_context - max(len(ids) for ids in starts)
    if room < 1:
        raise UserError(
            f"a prompt fills the model's context of {engine.model_context} tokens", fix="shorten the prompts"
        )
    asked = [
        (
            number,
            SamplingParams(max_tokens=min(max_tokens, room), temperature=temperature, top_p=top_p, seed=seed + number),
        )
        for temperature in temperatures
        for number in range(len(prompts))
    ]
    answers = engine.generate([starts[number] for number, _ in asked], [params for _, params in asked])
    return [
        WrittenText(
            prompts[number],
            answer.text,
            params.temperature,
            top_p,
            seed + number,
            len(answer.ids),
            answer.finish_reason,
        )
        for (number, params), answer in zip(asked, answers, strict=True)
    ]


def sweep_rows(texts: Sequence[WrittenText]) -> list[SweepRow]:
    """Return one row for each temperature, in order of appearance."""
    groups: dict[float, list[WrittenText]] = {}
    for text in texts:
        groups.setdefault(text.temperature, []).append(text)
    return [
        SweepRow(
            temperature,
            len(group),
            sum(text.finish_reason == "stop" for text in group) / len(group),
            distinct_share([text.text for text in group], 3),
            repeated_share([text.text for text in group], COUNTED_RUN_WORDS),
        )
        for temperature, group in groups.items()
    ]


def distinct_share(texts: Sequence[str], words: int) -> float:
    """Return distinct runs of `words` words as a share of all (distinct-n, arXiv:1510.03055); 0 when there are none."""
    runs = [run for text in texts for run in _runs(text, words)]
    return len(set(runs)) / len(runs) if runs else 0.0


def repeated_share(texts: Sequence[str], words: int) -> float:
    """Return the share of runs of `words` words that stood earlier in the same text."""
    runs = [_runs(text, words) for text in texts]
    total = sum(len(found) for found in runs)
    return sum(len(found) - len(set(found)) for found in runs) / total if total else 0.0


def _runs(text: str, words: int) -> list[tuple[str, ...]]:
    parts = text.split()
    return [tuple(parts[start : start + words]) for start in range(len(parts) - words + 1)]


def spread(texts: Sequence[str], count: int) -> list[str]:
    """Return `count` texts from all over a sequence (all, where it is shorter): neighbours are often alike."""
    if len(texts) <= count:
        return list(texts)
    return [texts[number * len(texts) // count] for number in range(count)]


def opening(text: str, characters: int = OPENING_CHARACTERS) -> str:
    """Return the start of a text up to a whole word, without the space after it."""
    start = text.lstrip()[: characters + 1]
    if len(start) <= characters:
        return start.rstrip()
    cut = start.rstrip() if start[-1].isspace() else start[: max(start.rfind(" "), start.rfind("\n"))]
    return cut.rstrip() or start[:characters]
