"""A text and a prompt to more text in the same hand: each byte is copied from behind the same bytes somewhere in the text.

A Markov chain without a table: choosing one of those places at random is drawing from c(ab) / c(a). Where the author never wrote
the last `order` bytes, fewer count.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caslon.evaluate.ngram import LONGEST_ORDER, Grams, packed_grams


@dataclass(frozen=True)
class Author:
    """An author's text with its runs of bytes in order: `runs[n]` are those of n bytes, `places[n]` where each begins."""

    text: bytes
    runs: tuple[Grams, ...]
    places: tuple[NDArray[np.int64], ...]

    @staticmethod
    def of(text: bytes, order: int) -> "Author":
        """Return the author of a text, with a memory of `order` bytes."""
        assert text, "an author has written something"
        assert 0 <= order <= LONGEST_ORDER
        packed = [packed_grams(text[:-1], length) for length in range(1, order + 1)]  # nothing follows the last byte
        places = tuple(np.argsort(grams, kind="stable") for grams in packed)
        return Author(text, tuple(grams[place] for grams, place in zip(packed, places, strict=True)), places)

    def write(self, prompt: bytes, length: int, seed: int) -> bytes:
        """Return `length` bytes after a prompt; the same seed writes the same."""
        random = np.random.Generator(np.random.PCG64(seed))
        written = bytearray(prompt)
        for _ in range(length):
            written.append(self.text[self._source(bytes(written[-len(self.runs) :]), random)])
        return bytes(written[len(prompt) :])

    def _source(self, before: bytes, random: np.random.Generator) -> int:
        """Return a random place of the text that stands behind the longest end of `before` the author wrote."""
        for length in range(min(len(before), len(self.runs)), 0, -1):
            wanted = np.uint64(int.from_bytes(before[-length:]))
            runs = self.runs[length - 1]
            first, after = np.searchsorted(runs, wanted, side="left"), np.searchsorted(runs, wanted, side="right")
            if first < after:
                return int(self.places[length - 1][random.integers(first, after)]) + length
        return int(random.integers(len(self.text)))
