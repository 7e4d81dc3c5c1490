import math

import pytest

from caslon.report.numbers import readable, readable_bytes, readable_seconds, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (True, "yes"), (False, "no"), (1234567, "1,234,567"), (0.03125, "0.03125"), (1.54782, "1.548"),
        (0.0, "0"), (123456.7, "123,457"), (1.2345e-5, "1.234e-05"), (999.96, "1,000"), (math.inf, "∞"),
        (math.nan, "not a number"), ("text", "text"),
    ],
)  # fmt: skip
def test_readable(value, text):
    assert readable(value) == text


def test_bytes_and_seconds():
    assert readable_bytes(1023) == "1023 B"
    assert readable_bytes(1536) == "1.5 KiB"
    assert readable_bytes(2 * 1024**3) == "2.0 GiB"
    assert readable_seconds(0.42) == "0.42 s"
    assert readable_seconds(125) == "2 min 05 s"
    assert readable_seconds(7620) == "2 h 07 min"


def test_share_of_nothing_is_a_dash():
    assert share(1, 3) == "33.3 %"
    assert share(0, 0) == "–"
