import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import document, prose

from caslon.corpus.document import Block, Document, Origin, Reject
from caslon.corpus.filters import (
    cut_advertisements,
    ocr_signs,
    quality,
    quality_score,
    repeated_share,
    with_measures,
)
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.text_words import TextWords

SETTINGS = CorpusSettings()
ADVERTISEMENT = (
    "BOOKS printed for J. Osborn, in Paternoster Row.\n\n"
    "1. Pamela; or, Virtue Rewarded. In four volumes 12mo. Price bound 12 s.\n\n"
    "2. Letters written to particular friends. The third edition. Price 3 s. sew'd.\n\n"
    "3. A plain account of the fever, by the same author. To which is added, a treatise on tar water. Price 1 s. 6 d.\n\n"
    "4. The travels of a gentleman in Italy. In two volumes 8vo. Just published, price 10 s."
)


def code_of(result: Document | Reject) -> str:
    return result.code if isinstance(result, Reject) else "kept"


def test_ratio_counts_words_and_not_their_punctuation() -> None:
    assert TextWords("The king, (of) England. 10").meaningful_ratio == pytest.approx(3 / 5)
    assert TextWords("").meaningful_ratio == 0.0


def test_ocr_signs_are_counted_by_kind() -> None:
    assert ocr_signs(TextWords("LONDON BRIDGE is falling")) == ("capital_runs",)
    assert ocr_signs(TextWords("a b c d and $#@ and 1a2 and ----------")) == (
        "spaced_letters", "shell_symbols", "digits_in_words", "symbol_run",
    )  # fmt: skip
    assert ocr_signs(TextWords("A plain sentence of 1666, priced 10l. 6d.")) == ()


def test_score_follows_the_published_formula() -> None:
    assert quality_score(0, 0.0, 1.0) == 100.0
    assert quality_score(2, 0.1, 0.5) == pytest.approx(100 - 6 - 5 - 10)
    assert quality_score(5, 1.0, 0.0) == pytest.approx(15.0)


def test_repetition_shares() -> None:
    assert repeated_share(["abc", "abc", "def"]) == pytest.approx(1 / 3)
    assert repeated_share(["", ""]) == 0.0
    assert TextWords("a b c a b c d").top_3gram_share == pytest.approx(2 * 3 / 13)
    assert TextWords("a b c d").top_3gram_share == 0.0


def test_good_prose_is_kept_with_its_scores() -> None:
    kept = quality(document(prose(1)), SETTINGS)
    assert isinstance(kept, Document)
    assert kept.scores["meaningful_ratio"] > 0.8
    assert kept.scores["score"] > 95


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Too short.", "too_short"),
        ("extraordinarily " * 13 + "notwithstanding", "garbled"),
        ("x" * 5000, "garbled"),
        ("A line that comes again and again.\n" * 40, "repetitive"),
        (" ".join(str(number * 7919 % 10007) for number in range(400)), "low_meaningful_ratio"),
        (prose(3, 1, 2), "too_short"),
        (" ".join(["word~ #"] * 100), "garbled"),
    ],
)
def test_bad_text_is_rejected_with_its_code(text: str, code: str) -> None:
    assert code_of(quality(document(text), SETTINGS)) == code


def test_a_reject_keeps_the_text_the_places_and_the_scores() -> None:
    text = "A line that comes again and again.\n" * 40
    found = quality(document(text, title="Spam", year=1700), SETTINGS)
    assert isinstance(found, Reject)
    assert (found.text, found.start, found.end) == (text, 0, len(text))
    assert found.metadata["scores"]["repeated_lines"] > 0.9
    assert found.metadata["year"] == 1700


def test_tiers_have_thresholds_of_their_own() -> None:
    text = prose(2, 1, 5)
    assert code_of(quality(document(text, tier="general"), SETTINGS)) == "kept"
    assert code_of(quality(document(text, tier="historical"), SETTINGS)) == "too_short"
    changed = CorpusSettings(tiers={"historical": (100, 10, 0.3)})
    assert code_of(quality(document(text, tier="historical"), changed)) == "kept"
    assert code_of(quality(document(text, tier="unheard-of"), SETTINGS)) == "kept"


def test_code_is_not_judged_as_prose() -> None:
    source = "x = {}\n" * 40
    assert code_of(quality(document(source, tier="code"), SETTINGS)) == "kept"
    assert code_of(quality(document(source, tier="general"), SETTINGS)) != "kept"
    assert code_of(quality(document("x = 1", tier="code"), SETTINGS)) == "too_short"


def test_a_list_of_books_is_ad_dense() -> None:
    found = quality(document(ADVERTISEMENT), SETTINGS)
    assert code_of(found) == "ad_dense"
    assert isinstance(found, Reject)
    assert found.metadata["scores"]["ad_density"] > 0.1


def test_advertisements_behind_a_text_are_cut_out_and_kept_as_removals() -> None:
    text = prose(4, 40, 6) + "\n\n" + "\n\n".join([ADVERTISEMENT] * 4)
    before = document(text)
    found = cut_advertisements(before, 0.1)
    assert isinstance(found, Document)
    assert found.removals
    assert {removal.code for removal in found.removals} == {"ad_block"}
    for part in (*found.blocks, *found.removals):
        assert text[part.start : part.end] == part.text
    assert "Pamela" not in found.text
    assert before.text.startswith(found.text[:2000])
    letters = sum(len(part.text.split()) for part in (*found.blocks, *found.removals))
    assert letters == len(text.split())


def test_prose_with_a_price_in_it_stays_whole() -> None:
    text = (
        prose(5, 10) + "\n\nThe prisoner was indicted for stealing a watch, value 40 s. and one gold ring, price 10 s."
    )
    found = cut_advertisements(document(text), 0.1)
    assert isinstance(found, Document)
    assert found.text == text


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=3000), st.sampled_from(["general", "historical", "gutenberg", "web", "code"]))
def test_no_filter_raises_on_any_text(text: str, tier: str) -> None:
    result = quality(document(text, tier=tier), SETTINGS)
    assert isinstance(result, Document | Reject)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=12))
def test_measures_are_finite_numbers(parts: list[str]) -> None:
    blocks = tuple(Block(part, 0, 1) for part in parts)
    scores = with_measures(Document(Origin("s", "p"), blocks)).scores
    assert all(math.isfinite(value) for value in scores.values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([*ADVERTISEMENT.split("\n\n"), *prose(6, 3).split("\n\n"), "", "İ \ud7ff ß"]), max_size=30)
)
def test_cutting_loses_no_word(parts: list[str]) -> None:
    before = document("\n\n".join(parts))
    found = cut_advertisements(before, 0.1)
    if isinstance(found, Document):
        after = [word for part in (*found.blocks, *found.removals) for word in part.text.split()]
        assert sorted(after) == sorted(before.text.split())


def test_minimum_score_drops_what_is_under_it() -> None:
    strict = replace_setting(minimum_score=99.9)
    assert code_of(quality(document(prose(1) + " 10l. of"), strict)) == "garbled"


def replace_setting(**values: object) -> CorpusSettings:
    return SETTINGS.model_copy(update=values)


def test_web_pages_need_sentences() -> None:
    words = "home contact products services gallery opening hours about imprint basket " * 12
    page = replace(document(words), tier="web")
    assert code_of(quality(page, replace_setting(tiers={"web": (50, 10, 0.1)}))) in {"too_short", "repetitive"}


def test_one_phrase_again_and_again_is_no_advertisement() -> None:
    sentence = "I saw him at the corner of Drury-lane, and he ran to the corner of the lace shop near the corner of Long-acre. "
    found = cut_advertisements(document(sentence * 20), 0.1)
    assert isinstance(found, Document)
    assert not found.removals


def test_marks_of_transcribers_for_unread_words_are_no_garbage() -> None:
    text = prose(7, 3).replace(" the ", " [...] ")
    assert code_of(quality(document(text), SETTINGS)) == "kept"
    assert code_of(quality(document(text.replace("[...]", "~#")), SETTINGS)) == "garbled"
