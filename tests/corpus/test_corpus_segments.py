from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_documents import document, prose

from caslon.corpus.document import Block, Document, Origin, Reject
from caslon.corpus.segments import Piece, cut, pieces_of, segments_of, sentence_ends
from caslon.corpus.settings import SegmentSettings
from caslon.corpus.shards import Segment

SMALL = SegmentSettings(maximum_characters=200, minimum_characters=50)


def sentences(text: str) -> list[str]:
    parts, start = [], 0
    for end in sentence_ends(text + " "):
        parts.append(text[start:end].strip())
        start = end
    return parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rained. We left.", ["It rained.", "We left."]),
        ("Mr. Pepys met Dr. Hooke. They dined.", ["Mr. Pepys met Dr. Hooke.", "They dined."]),
        ("He paid 10 s. 6 d. for it. She paid more.", ["He paid 10 s. 6 d. for it.", "She paid more."]),
        ("John Smith, Esq. Lord Mayor, was there. God save him!", ["John Smith, Esq. Lord Mayor, was there.", "God save him!"]),
        ("Bread, cheese, &c. Then wine.", ["Bread, cheese, &c. Then wine."]),
        ("See No. 31 and vol. II. Page 3.", ["See No. 31 and vol. II. Page 3."]),
        ("Did he say no? No. He said yes.", ["Did he say no?", "No.", "He said yes."]),
        ('"Stop!" cried he. "I will."', ['"Stop!" cried he.', '"I will."']),
        ("In 1666. The fire began.", ["In 1666.", "The fire began."]),
        ("K. Charles the II. of England died. So it ended.", ["K. Charles the II. of England died.", "So it ended."]),
    ],
)  # fmt: skip
def test_sentences_of_the_period(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def assert_covers(made: Document, chosen: SegmentSettings) -> list[Segment | Reject]:
    """Check that segments, short pieces and the white space between them make up the document, once."""
    text, position = made.text, 0
    found = list(segments_of(made, chosen))
    for piece in found:
        start, end = (piece.start, piece.end) if isinstance(piece, Segment) else (
            piece.metadata["start"], piece.metadata["end"],
        )  # fmt: skip
        assert start >= position
        assert not text[position:start].strip()
        assert text[start:end] == piece.text
        position = end
    assert not text[position:].strip()
    return found


def test_paragraphs_are_packed_up_to_the_size() -> None:
    made = document(prose(1, 12, 2))
    found = assert_covers(made, SegmentSettings(maximum_characters=600, minimum_characters=50))
    assert all(len(piece.text) <= 600 for piece in found)
    assert len(found) < 12
    assert all(isinstance(piece, Segment) for piece in found)


def test_long_paragraphs_are_cut_at_sentence_ends() -> None:
    made = document(prose(2, 1, 40))
    found = assert_covers(made, SegmentSettings(maximum_characters=500, minimum_characters=50))
    assert len(found) > 5
    assert all(piece.text.endswith(".") for piece in found)


def test_a_long_sentence_is_cut_at_a_clause_and_a_long_word_hard() -> None:
    assert cut("aaa bbb, ccc ddd", Piece(0, 16), 10) == [Piece(0, 8), Piece(9, 16)]
    assert cut("x" * 25, Piece(0, 25), 10) == [Piece(0, 10), Piece(10, 20), Piece(20, 25)]


def test_code_is_cut_at_lines_and_keeps_its_indentation() -> None:
    text = "def first():\n    return 1\n\n\ndef second():\n" + "".join(f"    x{n} = {n}\n" for n in range(60))
    made = document(text.replace("\n\n", "\n \n"), tier="code")
    found = assert_covers(made, SMALL)
    assert all(piece.text.startswith(("def", "    ", " \n")) for piece in found)


def test_a_short_tail_joins_its_neighbour_or_shares_with_it() -> None:
    first = prose(3, 1, 3)[:190].rsplit(" ", 1)[0] + "."
    found = assert_covers(document(first + "\n\nA short tail."), SMALL)
    assert not any(isinstance(piece, Reject) for piece in found) or len(first) > 150
    alone = assert_covers(document("Only this."), SMALL)
    assert [piece.code for piece in alone if isinstance(piece, Reject)] == ["short_segment"]


def test_the_whole_document_can_be_one_segment() -> None:
    made = document(prose(4, 30))
    found = list(segments_of(made, SegmentSettings(unit="document")))
    assert [piece.text for piece in found] == [made.text]


def test_segments_know_their_place_in_the_raw_text() -> None:
    made = document(prose(5, 6))
    raw = made.text
    for segment in segments_of(made, SMALL):
        assert isinstance(segment, Segment)
        assert segment.text in raw[segment.raw_start : segment.raw_end]
        assert segment.id == f"{made.id}-{int(segment.id[-5:]):05d}"
    changed = Document(Origin("s", "p"), (Block("An edited block of text.", 100, 180),))
    (whole,) = segments_of(changed, SegmentSettings(maximum_characters=200, minimum_characters=0))
    assert (whole.raw_start, whole.raw_end) == (100, 180) if isinstance(whole, Segment) else False


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(alphabet=st.sampled_from("ab .,;!?\n\t—é'\"0I"), max_size=300), max_size=8),
    st.sampled_from(["general", "code"]),
    st.integers(100, 300),
)
def test_segments_cover_any_document_exactly(parts: list[str], tier: str, maximum: int) -> None:
    blocks, position = [], 0
    for part in parts:
        if part.strip():
            blocks.append(Block(part, position, position + len(part)))
            position += len(part) + 2
    made = Document(Origin("s", "p"), tuple(blocks), tier=tier)
    chosen = SegmentSettings(maximum_characters=maximum, minimum_characters=40)
    found = assert_covers(made, chosen)
    assert all(len(piece.text) <= maximum for piece in found)
    assert all(isinstance(piece, Reject) == (len(piece.text) < 40) for piece in found)
    assert pieces_of(made, chosen) == pieces_of(made, chosen)


def test_an_overlap_repeats_the_last_sentences_of_the_segment_before() -> None:
    made = document(prose(7, 12))
    chosen = SegmentSettings(maximum_characters=600, minimum_characters=50, overlap_characters=200)
    found = list(segments_of(made, chosen))
    assert len(found) > 5
    assert all(isinstance(segment, Segment) and len(segment.text) <= 600 for segment in found)
    repeated = [(before, after) for before, after in pairwise(found) if after.start < before.end]  # type: ignore[union-attr]
    assert len(repeated) >= len(found) // 2
    for before, after in repeated:
        shared = made.text[after.start : before.end]  # type: ignore[union-attr]
        assert len(shared) <= 200
        assert before.text.endswith(shared)
        assert after.text.startswith(shared)
        assert shared[0].isupper()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text(alphabet=st.sampled_from("ab .,;!?\n\t—é'\"0I"), max_size=300), max_size=8),
    st.sampled_from(["general", "code"]),
    st.integers(0, 100),
)
def test_segments_with_an_overlap_leave_no_gap(parts: list[str], tier: str, overlap: int) -> None:
    made = Document(Origin("s", "p"), tuple(Block(part, 0, 1) for part in parts if part.strip()), tier=tier)
    chosen = SegmentSettings(maximum_characters=200, minimum_characters=40, overlap_characters=overlap)
    end, kept = 0, False
    for number, (piece, own) in enumerate(zip(segments_of(made, chosen), pieces_of(made, chosen), strict=True)):
        start = piece.metadata["start"] if isinstance(piece, Reject) else piece.start
        assert not made.text[end:start].strip()
        assert start >= end - overlap
        assert start >= end or kept, number
        assert len(piece.text) <= 200
        assert piece.text == made.text[start : own.end]
        end, kept = own.end, isinstance(piece, Segment)
    assert not made.text[end:].strip()
