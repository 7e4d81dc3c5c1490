"""Training bytes to models that only count runs of bytes: uniform, unigram, Markov chain and n-grams, smoothed three ways.

One class holds the counts of runs of 1 to n bytes; a smoothing says how counts become a probability. Laplace adds one to every
count of one length; its order 1 is the unigram model and its order 2 the Markov chain. Witten-Bell (1991, method C) and
Kneser-Ney (1995, interpolated as by Chen & Goodman 1998) mix all lengths down to 1/256.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from caslon.evaluate.ngram import (
    LONGEST_ORDER,
    Grams,
    GramTable,
    Mix,
    packed_grams,
    with_longer_context,
    witten_bell_mixed,
)
from caslon.ladder.rung import SYMBOLS, Floats

LEAST_DISCOUNT, MOST_DISCOUNT = 0.1, 0.9  # nothing taken from seen bytes would leave nothing for unseen ones


@dataclass(frozen=True)
class Level:
    """The counts of runs of one length, and how they are mixed with the probability of shorter ones."""

    order: int
    table: GramTable
    mix: Mix


@dataclass(frozen=True)
class CountedModel:
    """A mixture of counts, shortest runs first; without any level it is the uniform model."""

    levels: Sequence[Level] = ()

    @property
    def numbers(self) -> int:
        """How many different runs have a count."""
        return sum(int(level.table.distinct_before[-1]) + 1 for level in self.levels if level.table.grams.size)

    def probabilities(self, context: bytes, text: bytes) -> Floats:
        """Return the probability of each byte of `text` after `context` and the bytes before it."""
        asked = []
        for level in self.levels:
            asked.append(packed_grams(_last(context, level.order - 1) + text, level.order))
        return self._mixed(asked, len(text))

    def distribution(self, context: bytes) -> Floats:
        """Return the probability `[256]` of each byte to come next."""
        every = np.arange(SYMBOLS, dtype=np.uint64)
        asked = []
        for level in self.levels:
            before = _last(context, level.order - 1)
            whole = len(before) == level.order - 1
            asked.append((np.uint64(int.from_bytes(before) << 8) | every) if whole else every[:0])
        return self._mixed(asked, SYMBOLS)

    def _mixed(self, asked: Sequence[Grams], count: int) -> Floats:
        probability = np.full(count, 1 / SYMBOLS)
        for level, grams in zip(self.levels, asked, strict=True):
            probability = with_longer_context(level.mix, probability, level.table, grams)
        return probability


def _last(text: bytes, count: int) -> bytes:
    return text[len(text) - count :] if 0 < count <= len(text) else text if count else b""


def uniform(_text: bytes) -> CountedModel:
    """Return the model that knows nothing: eight bits a byte."""
    return CountedModel()


def laplace(text: bytes, order: int) -> CountedModel:
    """Return (c + 1) / (n + 256) of the last order - 1 bytes and the next: contexts never seen leave 1/256."""
    return CountedModel([Level(order, GramTable.of(packed_grams(text, order)), _add_one)])


def _add_one(_below: Floats, count: Floats, context_count: Floats, _followers: Floats) -> Floats:
    return (count + 1) / (context_count + SYMBOLS)


def witten_bell(text: bytes, order: int) -> CountedModel:
    """Return the interpolated model in which a context with many followers trusts itself less."""
    assert 1 <= order <= LONGEST_ORDER
    tables = [GramTable.of(packed_grams(text, length)) for length in range(1, order + 1)]
    return CountedModel([Level(length, table, witten_bell_mixed) for length, table in enumerate(tables, start=1)])


def kneser_ney(text: bytes, order: int) -> CountedModel:
    """Return the interpolated model whose shorter runs count in how many contexts they stand, not how often.

    A run of `order` bytes has its count less a discount. A shorter one counts the different bytes that stand before it: a byte
    that follows one context only, however often, is no good guess after others.
    """
    assert 1 <= order <= LONGEST_ORDER
    levels = []
    for length in range(1, order + 1):
        if length == order:
            table = GramTable.of(packed_grams(text, order))
        else:
            with_byte_before = np.unique(packed_grams(text, length + 1))
            table = GramTable.of(with_byte_before & np.uint64((1 << 8 * length) - 1))
        levels.append(Level(length, table, _discounting(discount(table))))
    return CountedModel(levels)


def _discounting(taken: float) -> Mix:
    def mix(below: Floats, count: Floats, context_count: Floats, followers: Floats) -> Floats:
        return (np.maximum(count - taken, 0) + taken * followers * below) / context_count

    return mix


def discount(table: GramTable) -> float:
    """Return n1 / (n1 + 2 n2), n1 and n2 being how many runs have a count of one and of two (Ney, Essen & Kneser 1994)."""
    _, counts = np.unique(table.grams, return_counts=True)
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    share = once / (once + 2 * twice) if once else 0.0
    return min(max(share, LEAST_DISCOUNT), MOST_DISCOUNT)
