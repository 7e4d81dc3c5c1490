from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.corpus.advertisements import (
    FAMILIES,
    FAMILY_STEMS,
    PATTERNS,
    begins_as_list_of_books,
    word_spans,
    words_of_the_trade,
)
from caslon.corpus.text_words import TextWords

LIST = "Printed for J. Osborn, in Paternoster Row. In four volumes 12mo. Price bound 12s. The third edition. "
EXAMPLES = (
    "This day is published", "just ready", "elegantly bound", "new novels", "advertisements", "price 3s. 6d.",
    "Paternoster-Row", "at the corner of Fleet", "sold by", "the second edition",
)  # fmt: skip


@pytest.mark.parametrize(("family", "example"), enumerate(EXAMPLES))
def test_every_family_finds_its_example(family: int, example: str) -> None:
    assert PATTERNS[family].search(example)
    assert any(stem in example.lower() for stem in FAMILY_STEMS[family])


@pytest.mark.parametrize("family", range(len(FAMILIES)))
def test_a_stem_stands_in_whatever_a_family_finds(family: int) -> None:
    @settings(max_examples=60, deadline=None)
    @given(st.from_regex(PATTERNS[family], fullmatch=True))
    def check(phrase: str) -> None:
        assert any(stem in phrase.lower().replace("ſ", "s") for stem in FAMILY_STEMS[family])

    check()


def test_the_words_of_a_window_that_phrases_cover_are_counted() -> None:
    prose = "The old king walked slowly over the bridge and looked at the ships below him. " * 14
    words = TextWords(prose + LIST * 10)
    count = len(words)
    windows = [(0, 200), (200, count)]
    found = words_of_the_trade(words, windows)
    assert set(found) == {200}
    assert found[200] > 0.3 * (count - 200)
    assert words_of_the_trade(TextWords(prose), [(0, len(TextWords(prose)))]) == {}
    assert words_of_the_trade(TextWords(" "), []) == {}


def test_a_heading_announces_a_list() -> None:
    assert begins_as_list_of_books("BOOKS lately printed for J. Osborn")
    assert not begins_as_list_of_books("Chapter the first")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "bcd", "\n\n", "ef", "  "]), min_size=1, max_size=900))
def test_spans_are_those_of_the_words(parts: list[str]) -> None:
    text = " ".join(parts)
    words = text.split()
    borders = sorted({0, len(words) // 3, len(words) // 2, len(words)})
    windows = list(pairwise(borders))[::2]
    for (first, end), spans in zip(windows, word_spans(text, windows), strict=True):
        assert [text[start:stop] for start, stop in spans] == words[first:end]
