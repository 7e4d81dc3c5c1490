"""PDF: turns the text layer of the pages into paragraphs, without running heads and page numbers.

A PDF holds lines, no paragraphs: a paragraph ends where a line stops well before the margin. What stands at the top or foot of
many pages is a running head; page numbers differ from page to page only in their digits. Titles in capitals stand once, so
they stay. A hyphen at a line's end stays too, with its line break, for `repair` to judge. Reads with PDFium (pypdfium2).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from caslon.corpus.document import Block, Reject, Removal
from caslon.corpus.read.reading import Extracted, Opened, ReadSettings, Source, Unreadable, joined_parts

PAGE_BREAK = "\f"
EDGE_LINES = 3  # at the top and the foot of a page in which running heads stand
MIN_REPEATS = 3
MIN_REPEAT_SHARE = 0.4  # of the pages from the first with a head to the last: heads of left pages are on every second
MAX_HEAD_CHARACTERS = 120
SHORT_LINE = 0.8  # of the page's width in characters; a shorter line ends its paragraph
MIN_LETTERS_PER_PAGE = 4
LINE = re.compile(r"[^\n\f]+")
NUMBER = re.compile(r"\d+|\b[ivxlc]+\b", re.IGNORECASE)
BARE_NUMBER = re.compile(r"\W*(?:page\s+)?(\d+|[ivxlc]+)(?:\s+of\s+\d+)?\W*", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?:][\"'”’)\]]*$")
YEAR = re.compile(r"D:(\d{4})")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page with its range in the plain text; `edge` counts from the top (1, 2, 3) or the foot (-1, -2, -3)."""

    text: str
    start: int
    end: int
    page: int
    edge: int


def open_pdf(data: bytes) -> Opened:
    """Return the text layer, pages parted by form feeds. Raises `Unreadable`: `encrypted`, `scanned_pdf` or damaged."""
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        raise _refusal(data, str(error)) from error
    try:
        texts = [_page_text(pdf, number) for number in range(len(pdf))]
        facts = pdf.get_metadata_dict()
    finally:
        pdf.close()
    letters = sum(character.isalpha() for text in texts for character in text)
    if letters < MIN_LETTERS_PER_PAGE * max(1, len(texts)):
        raise Unreadable("scanned_pdf", f"{len(texts)} pages without a text layer: pictures that nobody has read yet")
    text, parts = joined_parts(((str(number), text) for number, text in enumerate(texts, 1)), PAGE_BREAK)
    metadata: dict[str, object] = {"pages": [part.start for part in parts]}
    if facts.get("Author"):
        metadata["author"] = facts["Author"]
    if empty := sum(not text.strip() for text in texts):
        metadata["pages_without_text"] = empty
    return Opened(text, parts, facts.get("Title", "").strip(), metadata)


def _refusal(data: bytes, message: str) -> Unreadable:
    if "password" in message.lower() or "security" in message.lower():
        return Unreadable("encrypted", "the PDF file is locked with a password")
    code = "decode_failed" if b"%%EOF" in data[-2048:] else "truncated"
    return Unreadable(code, f"the PDF file is damaged or cut off: {message}")


def _page_text(pdf: object, number: int) -> str:
    """Return a page's lines; PDFium writes U+FFFE for a hyphen at a line's end and leaves the line end out."""
    page = pdf[number]  # type: ignore[index]
    try:
        text: str = page.get_textpage().get_text_range()
    finally:
        page.close()
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\x00", " ")
    return text.replace("\ufffe", "-\n").replace("\x02", "-\n")


def read_pdf(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the one document of a PDF."""
    assert source.opened is not None
    pages = [list(_lines(source, number)) for number in range(len(source.opened.parts))]
    heads = running_heads(pages)
    removals = tuple(Removal("boilerplate_line", line.text, line.start, line.end) for line in heads)
    dropped = {line.start for line in heads}
    body = [[line for line in lines if line.start not in dropped] for lines in pages]
    yield Extracted(
        blocks=tuple(_block(lines) for lines in paragraphs(body)),
        title=source.opened.title,
        metadata=dict(source.opened.metadata),
        removals=removals,
    )


def _lines(source: Source, number: int) -> Iterator[Line]:
    assert source.opened is not None
    part = source.opened.parts[number]
    found = [match for match in LINE.finditer(source.text, part.start, part.end) if match[0].strip()]
    for at, match in enumerate(found):
        from_foot = at - len(found)
        edge = at + 1 if at < EDGE_LINES else from_foot if from_foot >= -EDGE_LINES else 0
        yield Line(match[0].strip(), match.start(), match.end(), number, edge)


def running_heads(pages: list[list[Line]]) -> list[Line]:
    """Return the lines at the edges of pages that repeat, but for numbers in them, and bare page numbers."""
    found: dict[str, list[Line]] = defaultdict(list)
    for lines in pages:
        for key, line in _edge_lines(lines):
            found[key].append(line)
    heads = []
    for lines in found.values():
        numbers = sorted({line.page for line in lines})
        span = numbers[-1] - numbers[0] + 1
        if len(numbers) >= MIN_REPEATS and len(numbers) >= MIN_REPEAT_SHARE * span:
            heads += [
                line for line in lines if line.page > 0 or _is_number(line)
            ]  # the title page has the title itself
        else:
            heads += [line for line in lines if _number(line) == line.page + 1]
    return sorted(heads, key=lambda line: line.start)


def _edge_lines(lines: list[Line]) -> Iterator[tuple[str, Line]]:
    """Yield the lines at both edges of a page under what they have in common with other pages'."""
    for line in lines:
        if line.edge and len(line.text) <= MAX_HEAD_CHARACTERS:
            place = "top" if line.edge > 0 else "foot"
            if len(lines) <= EDGE_LINES or abs(line.edge) == 1 or not _is_number(line):
                yield f"{place} {NUMBER.sub('#', ' '.join(line.text.casefold().split()))}", line


def _is_number(line: Line) -> bool:
    return BARE_NUMBER.fullmatch(line.text) is not None


def _number(line: Line) -> int | None:
    match = BARE_NUMBER.fullmatch(line.text)
    return int(match[1]) if match and match[1].isdecimal() and len(match[1]) < 7 and abs(line.edge) == 1 else None


def paragraphs(pages: Iterable[list[Line]]) -> Iterator[list[Line]]:
    """Yield the lines of each paragraph; one may go on over a page break."""
    waiting: list[Line] = []
    width = 0  # of the page of the line before, in characters
    for lines in pages:
        for line in lines:
            if waiting and not _goes_on(waiting[-1], line, width):
                yield waiting
                waiting = []
            if not waiting or line.page != waiting[-1].page:
                width = _width(lines)
            waiting.append(line)
    if waiting:
        yield waiting


def _width(lines: list[Line]) -> int:
    lengths = sorted(len(line.text) for line in lines)
    return lengths[int(0.8 * (len(lengths) - 1))]


def _goes_on(before: Line, line: Line, width: int) -> bool:
    """Return whether a line continues the paragraph of the one before it."""
    if before.text.endswith("-") or line.text[:1].islower():
        return True
    is_full = len(before.text) >= SHORT_LINE * width
    return is_full and (before.page == line.page or not SENTENCE_END.search(before.text))


def _block(lines: list[Line]) -> Block:
    parts = []
    for line in lines[:-1]:
        is_cut = line.text.endswith("-") and line.text[-2:-1].isalpha()
        parts.append(line.text + ("\n" if is_cut else " "))
    return Block("".join(parts) + lines[-1].text, lines[0].start, lines[-1].end)


def page_of(document_pages: list[int], place: int) -> int:
    """Return the number of the page (from 1) that a place in the plain text lies on, by a document's `pages`."""
    return Counter(start <= place for start in document_pages)[True]
