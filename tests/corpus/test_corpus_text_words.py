import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.corpus import text_words
from caslon.corpus.filters import ocr_signs
from caslon.corpus.text_words import SYMBOL, TRANSCRIBERS_MARKS, TextWords, hashes_of, is_meaningful, words_of

# The signs of bad OCR as the published pipeline writes them, each over the whole text.
PLAIN_SIGNS = {
    "capital_runs": re.compile(r"\b[A-Z]{5,}\s+[A-Z]{5,}\b"),
    "spaced_letters": re.compile(r"(?<!\S)(?:[A-Za-z] ){3}[A-Za-z](?!\S)"),
    "shell_symbols": re.compile(r"[$#@^~|\\<>{}`]{3,}"),
    "digits_in_words": re.compile(r"\d+[A-Za-z]+\d+"),
    "symbol_run": re.compile(r"[^\w\s]{10,}"),
}
TEXTS = st.text(
    st.one_of(st.sampled_from("AB ab c1.#~…[]∣-'\n\t—é$^"), st.characters(exclude_categories=("Cs",))), max_size=120
)
FEW_WORDS = st.lists(st.sampled_from(["the", "king", "of", "LONDON", "BRIDGE", "a", "1a2", "...", "\n"]), max_size=60)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("the", True), ("of", False), ("London,", True), ("(king's)", True), ("well-known", True), ("10l.", False),
     ("L0nd0n", False), ("—", False), ("&c.", False), ("ſaid", True), ("d'ye", True), ("a.b.c.d", False)],
)  # fmt: skip
def test_a_meaningful_word_has_more_than_two_letters_and_nothing_else(word: str, expected: bool) -> None:
    assert is_meaningful(word) is expected


@settings(max_examples=120, deadline=None)
@given(TEXTS)
def test_words_of_near_copies_have_the_hashes_they_have_in_a_list(text: str) -> None:
    assert TextWords(text).hashes.tolist() == hashes_of(words_of(text)).tolist()


def test_a_text_keeps_its_numbers_when_the_known_words_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_words, "CACHED_WORDS", 3)
    first = TextWords("The king's men, and the king; London LONDON")
    second = TextWords("quite other words of London")
    assert first.lengths.tolist() == [3, 6, 4, 3, 3, 5, 6, 6]
    assert first.hashes.tolist() == hashes_of(words_of(first.text)).tolist()
    assert second.hashes.tolist() == hashes_of(words_of(second.text)).tolist()


@settings(max_examples=120, deadline=None)
@given(st.one_of(TEXTS, FEW_WORDS.map(" ".join)))
def test_sums_over_distinct_words_are_what_whole_texts_give(text: str) -> None:
    words = TextWords(text)
    assert len(words) == len(text.split())
    assert words.meaningful_ratio == pytest.approx(sum(map(is_meaningful, text.split())) / max(len(words), 1))
    assert words.symbols == len(SYMBOL.findall(TRANSCRIBERS_MARKS.sub("", text)))
    assert ocr_signs(words) == tuple(name for name, pattern in PLAIN_SIGNS.items() if pattern.search(text))


@settings(max_examples=200, deadline=None)
@given(FEW_WORDS.map(" ".join))
def test_the_top_run_of_three_words_is_the_first_of_the_most_frequent(text: str) -> None:
    words = text.split()
    runs = Counter(zip(words, words[1:], words[2:], strict=False))
    (run, most), *_ = sorted(runs.items(), key=lambda item: -item[1]) or [(("",), 1)]
    expected = min(1.0, most * sum(map(len, run)) / len(text)) if most > 1 and len(words) > 3 else 0.0
    assert TextWords(text).top_3gram_share == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "stems"),
    [
        ("Just published, price 10s.", [0, 1, 1, 0]),
        ("which may be had of him", [0, 0, 1, 0, 0, 0]),
        ("Paternoster Row, St. Paul's Church Yard", [1, 0, 0, 0, 1, 0]),
        ("who has also written", [0, 1, 0, 1]),
        ("plain prose", [0, 0]),
    ],
)
def test_stems_of_advertisements_are_counted_word_by_word(text: str, stems: list[int]) -> None:
    assert TextWords(text).stems.tolist() == stems
