"""Training texts to a vector for each word, by what stands beside it: positive pointwise mutual information and its main axes.

The vectors are made once and frozen; a classifier learns above them. Row 0 stands for padding and row 1 for words not in the
list: neither is a real word, and both are zeros. Source: Levy & Goldberg 2014, as word2vec's equal by factorisation.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caslon.ladder.labelled import Labelled

PADDING, UNKNOWN = 0, 1
FIRST_WORD = 2
WINDOW = 4  # words to each side that count as beside
SPARE_AXES, ITERATIONS = 20, 8  # enough for the axes wanted to settle
FEWEST = 2  # times a word must occur to be listed


@dataclass(frozen=True)
class WordVectors:
    """A list of words, and a vector for each row: `[2 + words, width]`."""

    rows: dict[str, int]
    vectors: NDArray[np.float32]

    def ids(self, words: Sequence[str]) -> list[int]:
        """Return the rows of a text's words; never that of padding."""
        return [self.rows.get(word, UNKNOWN) for word in words]


def word_vectors(texts: Sequence[Labelled], width: int, most_words: int) -> WordVectors:
    """Return vectors for the commonest words of texts, each of length one."""
    counts = Counter(word for item in texts for word in item.words)
    listed = sorted((word for word, count in counts.items() if count >= FEWEST), key=lambda word: (-counts[word], word))
    rows = {word: number for number, word in enumerate(listed[:most_words], start=FIRST_WORD)}
    beside = _beside(texts, rows)
    total = max(float(beside.sum()), 1.0)
    expected = np.outer(beside.sum(axis=1), beside.sum(axis=0)) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.where(beside > 0, np.log(beside / expected), 0.0).clip(min=0.0)
    main = _main_axes(information, width)
    found = np.zeros((len(rows) + FIRST_WORD, width), dtype=np.float32)
    found[FIRST_WORD:, : main.shape[1]] = main
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return WordVectors(rows, (found / np.where(lengths > 0, lengths, 1.0)).astype(np.float32))


def _main_axes(symmetric: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the eigenvectors of the largest eigenvalues, each times the square root of its value, by subspace iteration."""
    random = np.random.Generator(np.random.PCG64(0))
    basis = random.normal(size=(len(symmetric), min(len(symmetric), width + SPARE_AXES)))
    for _ in range(ITERATIONS):
        basis, _ = np.linalg.qr(symmetric @ basis)
    values, turns = np.linalg.eigh(basis.T @ symmetric @ basis)
    order = np.argsort(-np.abs(values), kind="stable")[:width]
    main: NDArray[np.float64] = (basis @ turns[:, order]) * np.sqrt(np.abs(values[order]))
    return main


def _beside(texts: Sequence[Labelled], rows: dict[str, int]) -> NDArray[np.float64]:
    """Return how often two listed words stand within a window of each other."""
    size = len(rows)
    table = np.zeros((size, size))
    for item in texts:
        ids = np.array([rows.get(word, UNKNOWN) for word in item.words]) - FIRST_WORD
        for apart in range(1, WINDOW + 1):
            left, right = ids[:-apart], ids[apart:]
            known = (left >= 0) & (right >= 0)
            np.add.at(table, (left[known], right[known]), 1.0)
    symmetric: NDArray[np.float64] = table + table.T
    return symmetric
