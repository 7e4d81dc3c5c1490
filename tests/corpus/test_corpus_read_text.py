import pytest

from caslon.corpus.document import Document, Reject
from caslon.corpus.read import raw_text, read

PROSE = """Mr Proctor, the chemist and druggist, kept his shop, and lived in the
Strand, London.  His children thought that there was never anything
pleasanter than the way they lived.  Their house was warm in winter, and
such a little distance from the church, that they had no difficulty.
"""
VERSE = """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date;
"""
BOOK = "CHAPTER I\n\n" + PROSE + "\n" + VERSE

HEADERS = [
    "The Project Gutenberg EBook of X, by Y\n\nTitle: X\nAuthor: Y\n\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n\n",
    "Title: X\n\n***START OF THE PROJECT GUTENBERG EBOOK, X***\n\nProduced by Jane Doe and the Online Team\n\n",
    "Project Gutenberg's Etext of X\n\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n",
    "Project Gutenberg's Etext\n\n*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.07.02.92*END*\n\n",
    "*** START OF THE PROJECT GUTENBERG EBOOK A VERY LONG\nTITLE THAT BREAKS ***\n\nE-text prepared by Z\n\n",
]
FOOTERS = [
    "\n\nEnd of the Project Gutenberg EBook of X, by Y\n\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\n\nlicence",
    "\n\n***END OF THE PROJECT GUTENBERG EBOOK X***\n\n***** This file should be named 1.txt\n",
    "\n\nEnd of Project Gutenberg's Etext of X\n\nsmall print\n",
    "\n\n*** START: FULL LICENSE ***\n\nTHE FULL PROJECT GUTENBERG LICENSE\n",
]


def only(found: list) -> Document:
    (document,) = found
    assert isinstance(document, Document)
    return document


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("footer", FOOTERS)
def test_gutenberg_wrapping_is_cut_in_all_spellings(make_raw, header: str, footer: str) -> None:
    document = only(list(read(make_raw(header + BOOK + footer))))
    assert document.blocks[0].text == "CHAPTER I"
    assert document.blocks[-1].text == VERSE.strip()
    raw = header + BOOK + footer
    for removal in document.removals:
        assert raw[removal.start : removal.end] == removal.text
    assert {removal.code for removal in document.removals} == {"boilerplate_line"}


def test_text_without_markers_passes_whole(make_raw) -> None:
    text = "He spoke of Project Gutenberg at length.\n\n" + BOOK + "\nThe end of the project was near.\n"
    document = only(list(read(make_raw(text))))
    assert document.removals == ()
    assert len(document.blocks) == 5


def test_licence_alone_is_no_text(make_raw) -> None:
    (reject,) = read(make_raw("\n*** START: FULL LICENSE ***\n\nTHE FULL PROJECT GUTENBERG LICENSE\nPLEASE READ\n"))
    assert isinstance(reject, Reject)
    assert reject.code == "no_text"


def test_wrapped_prose_is_joined_and_verse_lists_and_tables_are_not(make_raw) -> None:
    table = "Parish          Buried    Plague\nSt. Alban          200       121\nSt. Alphage        271       115\n"
    listed = "1. A gold watch of the value of ten pounds and a chain that was\n2. Six silver spoons\n3. A hat\n"
    document = only(list(read(make_raw("\n".join([PROSE, VERSE, table, listed])))))
    prose, verse, columns, items = (block.text for block in document.blocks)
    assert "\n" not in prose
    assert "lived in the Strand, London." in prose
    assert verse.count("\n") == 3
    assert columns.count("\n") == 2
    assert items.count("\n") == 2


def test_a_line_of_no_break_spaces_costs_no_text(make_raw) -> None:
    document = only(list(read(make_raw(PROSE.replace("\n", "\n\xa0\n", 2)))))
    assert " ".join(document.text.split()) == " ".join(PROSE.split())


def test_blocks_know_their_place(make_raw) -> None:
    raw = make_raw(BOOK.replace("\n", "\r\n"))
    document = only(list(read(raw)))
    text = raw_text(raw)
    for block in document.blocks:
        assert text[block.start : block.end].split() == block.text.split()


def test_hyphen_at_a_line_end_goes_only_when_the_text_knows_the_word(make_raw) -> None:
    text = (
        "likewise the servants of the house were there when we came to the other-\n"
        "wise empty hall, in which there was nothing to be seen, and we met a well-\n"
        "known man, who had been otherwise engaged for all of that time, and spoke\n"
        "to us and to all of the rest.\n"
    )
    (block,) = only(list(read(make_raw(text)))).blocks
    assert "the otherwise empty" in block.text
    assert "a well-known man" in block.text


def test_form_feed_is_a_page_break_and_no_paragraph(make_raw) -> None:
    half = PROSE.index("pleasanter")
    document = only(list(read(make_raw(PROSE[: half - 1] + "\f" + PROSE[half:]))))
    assert [block.text.count("\n") for block in document.blocks] == [0]
    assert "\f" not in document.text


def test_one_paragraph_per_line_gives_a_block_per_line(make_raw) -> None:
    line = "It was a dark night and the rain fell in torrents upon the roofs. " * 4
    assert len(only(list(read(make_raw("\n".join([line] * 5))))).blocks) == 5


def test_the_registry_knows_better_than_the_file(make_raw) -> None:
    raw = make_raw(
        HEADERS[0] + BOOK, title="Real", year=1841, licence="CC0-1.0", tier="gutenberg", group="w", role="train"
    )
    document = only(list(read(raw)))
    assert (document.title, document.year, document.licence, document.tier, document.group) == (
        "Real", 1841, "CC0-1.0", "gutenberg", "w",
    )  # fmt: skip
    assert document.metadata["role"] == "train"
    assert document.metadata["type"] == "text"


def test_long_paragraph_of_many_hyphens_takes_linear_time(make_raw) -> None:
    line = "a" * 30 + " " + "b" * 30 + "-\n"
    assert len(only(list(read(make_raw(line * 20_000)))).text) > 1_000_000
