"""Training bytes to probabilities of test bytes: the interpolated n-gram model that a neural model has to beat.

Order n mixes contexts of 0 to n - 1 bytes: p_k = (c_k + t_k p_(k-1)) / (n_k + t_k), where c_k counts the byte after the context,
n_k the context and t_k its distinct followers; contexts never seen are skipped, and p below the shortest context is 1/256.
Source: Witten & Bell 1991, method C. Unusual: there is no table of counts. All grams of one length are packed into integers and
sorted, and a count is the distance between two places in that order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SYMBOLS = 256
LONGEST_ORDER = 8  # bytes that fit into one 64-bit integer

Floats = NDArray[np.float64]
Grams = NDArray[np.uint64]
Mix = Callable[[Floats, Floats, Floats, Floats], Floats]
"""`(p_(k-1), c, n, t) -> p_k` of contexts that were seen."""


@dataclass(frozen=True)
class GramTable:
    """All grams of one length of a text, sorted: what is needed to look up c, n and t of any gram."""

    grams: Grams
    distinct_before: NDArray[np.int64]  # how many different grams stand before each place

    @staticmethod
    def of(grams: Grams) -> "GramTable":
        """Return the table of grams in any order."""
        ordered = np.sort(grams)
        changes = np.cumsum(ordered[1:] != ordered[:-1], dtype=np.int64)
        return GramTable(ordered, np.concatenate([np.zeros(min(1, ordered.size), np.int64), changes]))

    def counts(self, asked: Grams) -> tuple[Floats, Floats, Floats]:
        """Return c, n and t for each asked gram."""
        unique, place = np.unique(asked, return_inverse=True)
        if not self.grams.size:
            nothing = np.zeros(asked.size)
            return nothing, nothing, nothing
        count = self._before(unique, "right") - self._before(unique, "left")
        lowest = unique & ~np.uint64(SYMBOLS - 1)  # the context followed by the first byte of all
        first, after = self._before(lowest, "left"), self._before(lowest | np.uint64(SYMBOLS - 1), "right")
        last_place = self.grams.size - 1
        distinct = self.distinct_before[np.maximum(after - 1, 0)] - self.distinct_before[np.minimum(first, last_place)]
        followers = np.where(after > first, distinct + 1, 0)
        c, n, t = (values[place].astype(np.float64) for values in (count, after - first, followers))
        return c, n, t

    def _before(self, grams: Grams, side: Literal["left", "right"]) -> NDArray[np.int64]:
        return np.searchsorted(self.grams, grams, side=side).astype(np.int64)


def witten_bell(train: bytes, test: bytes, orders: Sequence[int]) -> dict[int, Floats]:
    """Return for each order the probability of every test byte. The test text starts with the end of training as context."""
    longest = max(orders)
    assert 1 <= min(orders) <= longest <= LONGEST_ORDER, f"orders are 1 to {LONGEST_ORDER}"
    probability = np.full(len(test), 1 / SYMBOLS)
    wanted = {}
    for order in range(1, longest + 1):
        table = GramTable.of(packed_grams(train, order))
        start = max(0, len(train) - (order - 1))
        probability = with_longer_context(
            witten_bell_mixed, probability, table, packed_grams(train[start:] + test, order)
        )
        if order in orders:
            wanted[order] = probability
    return wanted


def witten_bell_mixed(below: Floats, count: Floats, context_count: Floats, followers: Floats) -> Floats:
    """Return the mixture of a seen context's counts with the shorter context's probability."""
    return (count + followers * below) / (context_count + followers)


def with_longer_context(mix: Mix, shorter: Floats, table: GramTable, asked: Grams) -> Floats:
    """Return probabilities with one byte more of context: `mix` of those seen in `table`, the shorter ones elsewhere.

    The grams asked for may be fewer than the probabilities: the first bytes then have no whole context.
    """
    skipped = shorter.size - asked.size
    count, context_count, followers = table.counts(asked)
    seen = context_count > 0
    longer = shorter.copy()
    longer[skipped:][seen] = mix(shorter[skipped:][seen], count[seen], context_count[seen], followers[seen])
    return longer


def bits_per_byte(probabilities: Floats) -> float:
    """Return the mean number of bits an ideal coder needs for one byte."""
    return float(-np.log2(probabilities).mean()) if probabilities.size else 0.0


def packed_grams(text: bytes, order: int) -> Grams:
    """Return every run of `order` bytes as an integer, first byte highest, so that integers sort as the bytes do."""
    symbols = np.frombuffer(text, dtype=np.uint8)
    length = max(0, symbols.size - order + 1)
    grams = np.zeros(length, dtype=np.uint64)
    for offset in range(order):
        grams <<= np.uint64(8)
        grams |= symbols[offset : offset + length]
    return grams
