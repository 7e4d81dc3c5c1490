from hypothesis import given
from hypothesis import strategies as st

from caslon.corpus.differences import COMPARED_CLAUSES, clauses, differences


@given(st.text())
def test_clauses_are_the_text(text: str) -> None:
    assert "".join(clauses(text)) == text


@given(st.text(), st.text())
def test_any_two_texts_can_be_compared(before: str, after: str) -> None:
    found = differences(before, after, shown_lines=5)
    assert bool(found.lines) == (before != after)
    assert len(found.lines) <= 5
    assert all(line[0] in "-+ @" for line in found.lines)


def test_only_what_changed_is_shown_with_a_clause_around_it() -> None:
    before = "The king rode out. The mer-\nchant stayed at home, and wept. The end."
    after = "The king rode out. The merchant stayed at home, and wept. The end."
    assert differences(before, after).lines == (
        "@@", " The king rode out. ", "-The mer-↵", "-chant stayed at home, ", "+The merchant stayed at home, ", " and wept. ",
    )  # fmt: skip


def test_long_texts_are_compared_in_part_and_the_rest_is_counted() -> None:
    before = "One clause, " * 3 * COMPARED_CLAUSES
    found = differences(before, before.replace("One", "Two"), shown_lines=10)
    assert len(found.lines) == 10
    assert found.left_out == 2 * COMPARED_CLAUSES - 10 + 2 * 2 * COMPARED_CLAUSES + 1
