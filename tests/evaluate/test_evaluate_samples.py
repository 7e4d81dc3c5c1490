import pytest

from caslon.evaluate.samples import WrittenText, distinct_share, opening, repeated_share, spread, sweep_rows


def text(words: str, temperature: float, reason: str = "length") -> WrittenText:
    return WrittenText("p", words, temperature, 1.0, 1, 3, reason)


def test_shares_by_hand():
    assert distinct_share(["a b c a b c"], 3) == 3 / 4  # abc bca cab abc
    assert repeated_share(["a b a b a b"], 2) == pytest.approx(3 / 5)  # ab ba ab ba ab: two distinct
    assert repeated_share(["a b", "a b"], 2) == 0.0  # the same run in another text is not a repetition
    assert distinct_share(["a b"], 3) == repeated_share([""], 4) == 0.0


def test_rows_group_by_temperature():
    rows = sweep_rows([text("a", 0.0, "stop"), text("b", 0.0), text("c", 1.0)])
    assert [(row.temperature, row.texts, row.ended_share) for row in rows] == [(0.0, 2, 0.5), (1.0, 1, 0.0)]


def test_an_opening_ends_with_a_word():
    assert opening("\n one two three", 8) == "one two"
    assert opening("one two three", 7) == "one two"
    assert opening("short", 60) == "short"
    assert opening("x" * 100, 60) == "x" * 60


def test_spread_takes_texts_from_everywhere():
    assert spread(list("abcdefgh"), 4) == ["a", "c", "e", "g"]
    assert spread(["a", "b"], 4) == ["a", "b"]
