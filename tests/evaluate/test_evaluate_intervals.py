import numpy as np
import pytest

from caslon.evaluate.intervals import ratio_interval


def test_no_interval_from_few_units():
    assert ratio_interval([1.0] * 19, [1.0] * 19, unit="documents") is None


def test_equal_units_leave_no_doubt():
    found = ratio_interval([3.0] * 25, [2.0] * 25, unit="documents")
    assert (found.low, found.high, found.units, found.unit) == (1.5, 1.5, 25, "documents")


def test_same_seed_same_interval_and_it_holds_the_ratio():
    random = np.random.default_rng(0)
    below = random.integers(100, 1000, size=50).astype(float)
    above = below * random.normal(2.0, 0.3, size=50)
    first, second = (ratio_interval(above, below, unit="documents", seed=7) for _ in range(2))
    assert first == second
    assert first.low < above.sum() / below.sum() < first.high


def test_coverage_is_about_what_it_says():
    random = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        below = random.integers(500, 1500, size=100).astype(float)
        above = below * random.normal(2.0, 0.5, size=100)
        interval = ratio_interval(above, below, unit="documents", seed=trial)
        hits += interval.low <= 2.0 <= interval.high
    assert hits / 200 == pytest.approx(0.95, abs=0.05)
