"""Many small sums to an interval around their ratio: the ratio bootstrap (Efron & Tibshirani 1993, chapter 14).

Bits per byte is one sum over another, so units (documents) are drawn with their bits and their bytes together. A mean of ratios
would be another number, pulled towards short documents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2_000
CONFIDENCE = 0.95
FEWEST_UNITS = 20  # an interval from fewer units says more about luck than about the model
DRAWS_AT_ONCE = 4_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A confidence interval and how it was found: from how many units of which kind."""

    low: float
    high: float
    units: int
    unit: str
    draws: int = DRAWS
    confidence: float = CONFIDENCE


def ratio_interval(
    numerators: Sequence[float] | Floats, denominators: Sequence[float] | Floats, *, unit: str, seed: int = 0
) -> Interval | None:
    """Return the bootstrap interval of sum(numerators) / sum(denominators), or None for fewer than 20 units."""
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    count = above.size
    if count < FEWEST_UNITS:
        return None
    generator = np.random.Generator(np.random.PCG64(seed))
    ratios: list[Floats] = []
    rows = max(1, DRAWS_AT_ONCE // count)
    for start in range(0, DRAWS, rows):
        drawn = generator.integers(0, count, size=(min(rows, DRAWS - start), count))
        ratios.append(above[drawn].sum(axis=1) / below[drawn].sum(axis=1))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(np.concatenate(ratios), [tail, 100 - tail])
    return Interval(float(low), float(high), count, unit)
