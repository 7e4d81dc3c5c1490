"""Training bytes to probabilities of test bytes: the interpolated n-gram model that a neural model has to beat.

Order n mixes contexts of 0 to n - 1 bytes: p_k = (c_k + t_k p_(k-1)) / (n_k + t_k), where c_k counts the byte after the context,
n_k the context and t_k its distinct followers; contexts never seen are skipped, and p below the shortest context is 1/256.
Source: Witten & Bell 1991, method C. Unusual: there is no table of counts. All grams of one length are packed into integers and
sorted, and a count is the distance between two places in that order.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SYMBOLS = 256
LONGEST_ORDER = 8  # bytes that fit into one 64-bit integer

Floats = NDArray[np.float64]
Grams = NDArray[np.uint64]


def witten_bell(train: bytes, test: bytes, orders: Sequence[int]) -> dict[int, Floats]:
    """Return for each order the probability of every test byte. The test text starts with the end of training as context."""
    longest = max(orders)
    assert 1 <= min(orders) <= longest <= LONGEST_ORDER, f"orders are 1 to {LONGEST_ORDER}"
    probability = np.full(len(test), 1 / SYMBOLS)
    wanted = {}
    for order in range(1, longest + 1):
        probability = _with_context(probability, train, test, order)
        if order in orders:
            wanted[order] = probability
    return wanted


def bits_per_byte(probabilities: Floats) -> float:
    """Return the mean number of bits an ideal coder needs for one byte."""
    return float(-np.log2(probabilities).mean()) if probabilities.size else 0.0


def _with_context(shorter: Floats, train: bytes, test: bytes, order: int) -> Floats:
    """Return the probabilities of one order from those of the order below."""
    trained = np.sort(packed_grams(train, order))
    if not trained.size:
        return shorter
    start = max(0, len(train) - (order - 1))
    asked = packed_grams(train[start:] + test, order)
    skipped = len(test) - asked.size  # first test bytes without a whole context, when training is that short
    unique, place = np.unique(asked, return_inverse=True)
    count, context_count, followers = (values[place].astype(np.float64) for values in _counts(trained, unique))
    seen = context_count > 0
    below = shorter[skipped:]
    mixed = (count + followers * below) / np.where(seen, context_count + followers, 1.0)
    return np.concatenate([shorter[:skipped], np.where(seen, mixed, below)])


def packed_grams(text: bytes, order: int) -> Grams:
    """Return every run of `order` bytes as an integer, first byte highest, so that integers sort as the bytes do."""
    symbols = np.frombuffer(text, dtype=np.uint8)
    length = max(0, symbols.size - order + 1)
    grams = np.zeros(length, dtype=np.uint64)
    for offset in range(order):
        grams <<= np.uint64(8)
        grams |= symbols[offset : offset + length]
    return grams


def _counts(trained: Grams, asked: Grams) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return c, n and t for each asked gram; `trained` and `asked` are sorted."""
    count = np.searchsorted(trained, asked, side="right") - np.searchsorted(trained, asked, side="left")
    lowest = asked & ~np.uint64(SYMBOLS - 1)  # the context followed by the first byte of all
    first = np.searchsorted(trained, lowest, side="left")
    after = np.searchsorted(trained, lowest | np.uint64(SYMBOLS - 1), side="right")
    changes = np.concatenate(
        [[0], np.cumsum(trained[1:] != trained[:-1], dtype=np.int64)]
    )  # distinct grams before each
    followers = np.where(
        after > first, changes[np.maximum(after - 1, 0)] - changes[np.minimum(first, trained.size - 1)] + 1, 0
    )
    return count, after - first, followers
