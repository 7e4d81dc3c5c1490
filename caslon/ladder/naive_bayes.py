"""Training bytes to a naive Bayes model: the next byte's posterior from k bytes before it, each taken as evidence of its own.

p(y | x_1 .. x_k) is proportional to p(y) p(x_1 | y) .. p(x_k | y), with add-one counts per position. Unusual: more evidence makes
it worse. Neighbouring bytes say much the same, and counting them as independent makes the model too sure of itself.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caslon.ladder.rung import SYMBOLS, Floats

AT_ONCE = 8_192  # positions whose 256 posteriors are in memory


@dataclass(frozen=True)
class NaiveBayes:
    """Logarithms of prior `[256]` and of evidence `[k, 256, 256]` (position back, byte there, next byte)."""

    prior: Floats
    evidence: Floats

    @staticmethod
    def of(text: bytes, k: int) -> "NaiveBayes":
        """Return the model trained on a text."""
        symbols = np.frombuffer(text, dtype=np.uint8).astype(np.int64)
        counts = np.bincount(symbols, minlength=SYMBOLS)
        evidence = np.empty((k, SYMBOLS, SYMBOLS))
        for back in range(1, k + 1):
            pairs = symbols[:-back] * SYMBOLS + symbols[back:]
            table = np.bincount(pairs, minlength=SYMBOLS**2).reshape(SYMBOLS, SYMBOLS)
            evidence[back - 1] = np.log((table + 1) / (table.sum(axis=0) + SYMBOLS))
        return NaiveBayes(np.log((counts + 1) / (symbols.size + SYMBOLS)), evidence)

    @property
    def numbers(self) -> int:
        """How many counts there are: of bytes, and of pairs at each distance."""
        return self.prior.size + self.evidence.size

    def probabilities(self, context: bytes, text: bytes) -> Floats:
        """Return the probability of each byte of `text` after `context` and the bytes before it."""
        before = context[-len(self.evidence) :]
        symbols = np.frombuffer(before + text, dtype=np.uint8)
        found = np.empty(len(text))
        for start in range(0, len(text), AT_ONCE):
            places = np.arange(start, min(start + AT_ONCE, len(text))) + len(before)
            posterior = self._posterior(symbols, places)
            found[start : start + AT_ONCE] = posterior[np.arange(places.size), symbols[places]]
        return found

    def distribution(self, context: bytes) -> Floats:
        """Return the probability `[256]` of each byte to come next."""
        one_place = np.array([len(context)])
        return self._posterior(np.frombuffer(context, dtype=np.uint8), one_place).ravel()

    def _posterior(self, symbols: NDArray[np.uint8], places: NDArray[np.int64]) -> Floats:
        """Return the posterior `[places, 256]`; where there is no byte so far back, its evidence is left out."""
        score = np.repeat(self.prior[None], places.size, axis=0)
        for back, table in enumerate(self.evidence, start=1):
            there = places >= back
            score[there] += table[symbols[places[there] - back]]
        score -= score.max(axis=1, keepdims=True)
        shares: Floats = np.exp(score)
        shares /= shares.sum(axis=1, keepdims=True)
        return shares
