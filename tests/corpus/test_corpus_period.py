import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import document, prose

from caslon.corpus.document import Document, Origin, Reject
from caslon.corpus.period import WORD, YEAR, evidence, later_terms, period
from caslon.corpus.settings import CorpusSettings

LONDON = CorpusSettings(period=(1500, 1850))
MODERN = (
    "Install the software from our website at https://example.org and download the app to your laptop. "
    "The API returns JSON, and the email address is your username. See https://example.org/docs for the database. "
) * 4


def verdict(found: Document | Reject) -> str:
    return found.code if isinstance(found, Reject) else str(found.metadata["period"])


def test_without_a_period_nothing_is_judged() -> None:
    made = document(MODERN)
    assert period(made, CorpusSettings()) is made


@pytest.mark.parametrize(
    ("year", "expected"), [(1500, "in"), (1850, "in"), (1851, "out_of_period"), (1499, "out_of_period")]
)
def test_a_structured_date_decides(year: int, expected: str) -> None:
    assert verdict(period(document(prose(1), year=year), LONDON)) == expected


def test_a_date_on_top_of_a_modern_text_does_not_save_it() -> None:
    assert verdict(period(document("LONDON, printed in the Year 1702.\n\n" + MODERN), LONDON)) == "out_of_period"


def test_strong_evidence_beats_a_wrong_registered_year() -> None:
    assert verdict(period(document(MODERN, year=1702), LONDON)) == "out_of_period"


def test_the_year_of_a_modern_edition_does_not_condemn_an_old_work() -> None:
    edition = replace(document(prose(1), year=2015), metadata={"time_period": (1580, 1616)})
    assert verdict(period(edition, LONDON)) == "in"
    trial = replace(edition, origin=Origin("source", "a.xml", record="t19040418-1"))
    assert verdict(period(trial, LONDON)) == "out_of_period"
    modern = replace(document(MODERN, year=2015), metadata={"time_period": (1580, 1616)})
    assert verdict(period(modern, LONDON)) == "out_of_period"


def test_registered_years_decide_where_the_text_has_no_date() -> None:
    inside = replace(document(prose(1)), metadata={"time_period": (1700, 1800)})
    outside = replace(document(prose(1)), metadata={"time_period": (1900, 1950)})
    assert verdict(period(inside, LONDON)) == "in"
    assert verdict(period(outside, LONDON)) == "out_of_period"


def test_an_unknown_period_is_kept_unless_asked() -> None:
    assert verdict(period(document(prose(1)), LONDON)) == "unknown"
    strict = CorpusSettings(period=(1500, 1850), unknown_period="drop")
    assert verdict(period(document(prose(1)), strict)) == "out_of_period"


def test_evidence_counts_years_terms_and_marks() -> None:
    found = evidence(
        "In 1702, 1850 and 1999; price 1800 l. and 12/1900. The software of 2001, ISBN 3.\nwww.example.org", 1850
    )
    assert (found.years, found.later_years) == (5, 2)
    assert found.later_terms == (("software", 1),)
    assert found.apparatus >= 2


def test_a_repeated_line_is_one_piece_of_evidence() -> None:
    line = "Cheap elixir at http://example.org\n"
    assert evidence(line * 900, 1850).apparatus == evidence(line, 1850).apparatus


def test_text_that_names_only_years_of_the_period_is_in() -> None:
    text = prose(2) + " It happened in 1641, in 1642, again in 1643, then in 1660 and at last in 1666."
    assert verdict(period(document(text), LONDON)) == "in"
    later = prose(2) + " It happened in 1941, in 1942, again in 1943, then in 1960 and at last in 1966."
    assert verdict(period(document(later), LONDON)) == "out_of_period"


def test_later_terms_are_single_words_with_years() -> None:
    assert all(term == term.lower() and 1800 < year < 2030 for term, year in later_terms().items())


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=800), st.none() | st.integers(-3000, 3000))
def test_period_raises_on_no_text(text: str, year: int | None) -> None:
    assert isinstance(period(document(text, year=year), LONDON), Document | Reject)


def test_two_late_years_are_enough_when_nothing_else_is_known() -> None:
    text = prose(3) + " The report of 1851 was printed in 1852."
    assert verdict(period(document(text), LONDON)) == "out_of_period"
    registered = replace(document(text), metadata={"time_period": (1700, 1800)})
    assert verdict(period(registered, LONDON)) == "in"


@settings(max_examples=120, deadline=None)
@given(st.text(st.sampled_from("1205689 .,/£$a\n"), max_size=30))
def test_years_are_found_as_the_plain_pattern_finds_them(text: str) -> None:
    plain = re.compile(r"(?<![\d.,/£$])(1[0-9]{3}|20[0-9]{2})(?![\d/]|[.,]\d)")
    assert YEAR.findall(text) == plain.findall(text)


@settings(max_examples=120, deadline=None)
@given(st.text(st.sampled_from("abK é19-_.\n\x1fİ"), max_size=40))
def test_words_are_counted_as_the_plain_pattern_finds_them(text: str) -> None:
    assert evidence(text, 1850).words == len(WORD.findall("\n".join(dict.fromkeys(text.split("\n"))).lower()))


@pytest.mark.parametrize(
    "mark", ["ISBN 0", "https://a", "www.x", "© 1", "copyright 1999", "(c) 2001", "all rights reserved", "cookie policy",
             "enable javascript", "```", "run --fast", "main.py", "example.com"],
)  # fmt: skip
def test_every_mark_of_modern_publishing_is_found(mark: str) -> None:
    assert evidence(f"A text with\n{mark} in it.", 1850).apparatus == 1
