"""Many parts of one row of bytes to a hash of each, all at once: equal parts have equal hashes, wherever they stand.

The hash is a polynomial of the bytes modulo 2^64 (Karp and Rabin 1987), taken as the difference of two running sums.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse
INVERSE_OF_BASE = pow(BASE, -1, 1 << 64)
FEWEST_POWERS = 1 << 16


def part_hashes(values: Hashes, starts: Numbers, ends: Numbers) -> Hashes:
    """Return the hash of each `values[start:end]`; a part that differs by zeros at its end has the same one."""
    sums = np.zeros(len(values) + 1, dtype=np.uint64)
    np.cumsum(values * _powers(BASE, len(values)), out=sums[1:])
    hashes: Hashes = (sums[ends] - sums[starts]) * _powers(INVERSE_OF_BASE, len(values))[starts]
    return hashes


def _powers(base: int, count: int) -> Hashes:
    return _powers_up_to(base, max(1 << count.bit_length(), FEWEST_POWERS))[:count]


@lru_cache(maxsize=2)
def _powers_up_to(base: int, count: int) -> Hashes:
    powers = np.full(count, base, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers)
