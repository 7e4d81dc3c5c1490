from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.corpus.lexicon import Lexicon, merged, word_counts
from caslon.corpus.lexicon_build import held_out, implied_forms, lexicon_of
from caslon.errors import UserError


def test_words_are_counted_in_lower_case_with_a_modern_s_and_without_their_punctuation() -> None:
    text = "The king's ſon—THE son’s well-known “coat”, 1st of 10l. L0nd0n _x_ (mother-in-law's), 'tis Æsop É."
    assert word_counts(text) == Counter(
        {
            "the": 2,
            "king's": 1,
            "son": 1,
            "son's": 1,
            "well-known": 1,
            "coat": 1,
            "of": 1,
            "mother-in-law's": 1,
            "tis": 1,
        }
        | {"æsop": 1, "é": 1}
    )


@settings(deadline=None)
@given(st.text(max_size=400))
def test_counting_raises_on_no_text_and_counts_only_lower_case_words(text: str) -> None:
    counts = word_counts(text)
    assert all(times > 0 and any(map(str.isalpha, word)) for word, times in counts.items())
    assert word_counts(text + " " + text) == counts + counts


def test_the_shipped_list_knows_the_spelling_of_the_period_and_of_today() -> None:
    words = Lexicon.shipped()
    assert len(words) > 50_000
    for word in ("king", "shew", "publick", "compleat", "otherwise", "to-day", "london", "born", "walked", "o'clock"):
        assert word in words, word
        assert words.count(word) > 0
    for word in ("l0nd0n", "fhall", "tbe", "clcrk"):
        assert word not in words
        assert words.count(word) == 0


def test_the_shipped_list_is_small_and_holds_words_and_counts_only() -> None:
    import caslon.corpus

    path = Path(caslon.corpus.__file__).with_name("english_words.txt.gz")
    assert path.stat().st_size < 600_000
    words = Lexicon.shipped()
    assert all(word == word.lower() and " " not in word and len(word) <= 40 for word in words.words)


@pytest.mark.parametrize("name", ["words.txt", "words.txt.gz"])
def test_a_saved_list_is_read_back_and_equal_lists_give_equal_bytes(tmp_path: Path, name: str) -> None:
    one, two = Lexicon({"b": 2, "a": 1}), Lexicon({"a": 1, "b": 2})
    one.save(tmp_path / name)
    two.save(tmp_path / f"other-{name}")
    assert (tmp_path / name).read_bytes() == (tmp_path / f"other-{name}").read_bytes()
    assert {word: Lexicon.load(tmp_path / name).count(word) for word in one.words} == {"a": 1, "b": 2}


def test_a_file_that_is_no_word_list_is_a_users_mistake_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    with pytest.raises(UserError):
        Lexicon.load(path)
    path.write_text("hello\n")
    with pytest.raises(UserError, match="not a word list"):
        Lexicon.load(path)
    Lexicon({"a": 1}).save(path)
    path.write_text(path.read_text() + "no count\n")
    with pytest.raises(UserError) as error:
        Lexicon.load(path)
    assert str(error.value).find(":3") > 0


def test_words_seen_often_enough_join_the_shipped_ones() -> None:
    counted = Lexicon.from_counts({"quidnunc": 5, "hapax": 4, "king": 7})
    assert set(counted.words) == {"quidnunc", "king"}
    both = merged(Lexicon({"king": 3, "queen": 2}), counted)
    assert {word: both.count(word) for word in both.words} == {"king": 10, "queen": 2, "quidnunc": 5}


def test_a_list_is_made_of_words_that_several_works_use_with_rounded_counts() -> None:
    works = [(group, "the wherry " * 3 + "the watermen ") for group in "ab"] + [("d", "private " * 50)]
    made = lexicon_of(works)
    assert {word: made.count(word) for word in made.words} == {"the": 8, "wherry": 4}


def test_a_missing_form_is_implied_by_the_other_three() -> None:
    counts = {
        "carry": 40,
        "carries": 40,
        "carrying": 40,
        "walk": 40,
        "walked": 40,
        "hope": 40,
        "hopes": 40,
        "hoping": 40,
    }
    assert implied_forms(counts) == {"carried", "hoped"}


def test_about_a_sixteenth_of_the_works_is_held_out() -> None:
    assert 70 < sum(held_out(f"source:{number}") for number in range(1600)) < 130
