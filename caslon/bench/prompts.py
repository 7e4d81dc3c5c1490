"""Draws prompts as token ids by a seed: all distinct, no two with a shared beginning, so that no cache can help.

The first ids of a prompt are its number, written in a shuffled alphabet of ids; the rest is drawn evenly.
"""

import random

from caslon.errors import UserError


def drawn_prompts(count: int, tokens: int, vocab_size: int, seed: int) -> list[list[int]]:
    """Return `count` prompts of `tokens` ids each.

    Special tokens stand at either end of nearly every vocabulary: the outer eighths are left out.
    """
    chooser = random.Random(seed)  # noqa: S311 - repeatable, not secret
    alphabet = list(range(vocab_size // 8, vocab_size - vocab_size // 8))
    if len(alphabet) < 2:
        raise UserError(f"a vocabulary of {vocab_size} entries is too small to draw prompts from")
    chooser.shuffle(alphabet)
    digits = _digits_for(count, len(alphabet))
    if tokens < digits:
        raise UserError(f"{count} prompts of {tokens} tokens cannot all begin differently", fix="use longer prompts")
    return [
        [*_number(index, len(alphabet), digits, alphabet), *chooser.choices(alphabet, k=tokens - digits)]
        for index in range(count)
    ]


def _digits_for(count: int, base: int) -> int:
    digits = 1
    while base**digits < count:
        digits += 1
    return digits


def _number(index: int, base: int, digits: int, alphabet: list[int]) -> list[int]:
    """Return a number as ids, the digit that changes fastest first."""
    return [alphabet[index // base**place % base] for place in range(digits)]
