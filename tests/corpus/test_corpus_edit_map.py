import time

from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import prose

from caslon.corpus.edit_map import Edit, applied, edit_map, undone
from caslon.corpus.repair import normalised

WORDS = st.lists(
    st.sampled_from(["the", "king", " ", "\n", "ſaid", "other-\nwise", "\u00ad", "  ", "â€”", "."]), max_size=60
)


def test_edits_are_small_and_in_order() -> None:
    before = "The ſun roſe.\r\nIt was  warm."
    after = normalised(before, long_s="modern")
    assert after == "The sun rose.\nIt was warm."
    assert edit_map(before, after) == (
        Edit(4, "ſun roſ", "sun ros"), Edit(13, "\r", ""), Edit(22, " ", ""),
    )  # fmt: skip
    assert edit_map(after, after) == ()


@settings(max_examples=80, deadline=None)
@given(WORDS.map("".join), WORDS.map("".join))
def test_edits_lead_there_and_back(before: str, after: str) -> None:
    edits = edit_map(before, after)
    assert applied(before, edits) == after
    assert undone(after, edits) == before


@settings(max_examples=80, deadline=None)
@given(WORDS.map("".join))
def test_normalisation_can_be_undone(before: str) -> None:
    after = normalised(before, long_s="modern")
    assert undone(after, edit_map(before, after)) == before


def test_long_texts_are_compared_in_windows() -> None:
    before = "\n".join(prose(seed) for seed in range(40))
    after = before.replace("river", "riuer").replace("honest", "")
    begun = time.process_time()
    edits = edit_map(before, after)
    assert time.process_time() - begun < 10
    assert applied(before, edits) == after
    assert undone(after, edits) == before
    assert len(edits) <= before.count("river") + before.count("honest")
    other = "x y " * 4000
    assert applied(before, edit_map(before, other)) == other
