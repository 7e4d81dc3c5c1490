"""Counts of right answers to intervals around their share."""

import math

Z_95 = 1.959963984540054  # of the normal distribution


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), which stays within 0 and 1; `(0, 1)` when nothing was asked."""
    if not total:
        return 0.0, 1.0
    share, z = right / total, Z_95
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
