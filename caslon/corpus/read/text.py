"""Plain text: turns lines into paragraphs, verse groups, lists and tables.

Hard-wrapped prose is joined to whole paragraphs; a line break is taken for a wrap when the next word would not have fitted
on the line. Verse, lists and tables break where they mean to and keep their lines. A form feed is a page break, which ends
a line and nothing more. Project Gutenberg's wrapping is cut off (`gutenberg.py`).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from caslon.corpus.document import Block, Reject, Removal
from caslon.corpus.read.gutenberg import body_range, header_fields, is_credit
from caslon.corpus.read.reading import Extracted, ReadSettings, Source

LINE = re.compile(r"([^\n\r\f]*)(\r\n|\n|\r|\f|$)")
LIST_ITEM = re.compile(r"\s*(?:[-*•—]\s|\(?\d{1,3}[.)]\s|\(?[a-zA-Z][.)]\s)")
COLUMN_GAP = "   "  # or a tab: stands in every match of the next
COLUMNS = re.compile(r"\S(?: {3,}|\t)\S")
WORD_END = re.compile(r"(\w+)-$")
WORD_START = re.compile(r"[a-z]\w*")
WORDS = re.compile(r"\w+(?:-\w+)*")
MIN_WRAP_WIDTH = 35  # narrower columns are verse or lists
MAX_WRAP_WIDTH = 150  # longer lines are paragraphs of their own
SLACK = 8  # editors wrapped by hand, up to this many characters short of the widest line
CREDIT_PARAGRAPHS = 8
MAX_WORD = 40


class Line(NamedTuple):
    """A line without its end, and its range in the text."""

    text: str
    start: int
    end: int


def read_text(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the one document of a plain text."""
    start, end = body_range(source.text)
    removals = [_boiler_plate(source.text, 0, start), _boiler_plate(source.text, end, len(source.text))]
    paragraphs = list(paragraphs_of(source.text, start, end))
    if start > 0:
        credited = [p for p in paragraphs[:CREDIT_PARAGRAPHS] if is_credit(" ".join(line.text.strip() for line in p))]
        removals += [_boiler_plate(source.text, p[0].start, p[-1].end) for p in credited]
        paragraphs = [p for p in paragraphs[:CREDIT_PARAGRAPHS] if p not in credited] + paragraphs[CREDIT_PARAGRAPHS:]
    fields = header_fields(source.text, start)
    metadata = {"author": fields["author"]} if "author" in fields else {}
    yield Extracted(
        blocks=tuple(blocks_of(paragraphs)),
        title=fields.get("title", ""),
        metadata=metadata,
        removals=tuple(removal for removal in removals if removal.text.strip()),
    )


def _boiler_plate(text: str, start: int, end: int) -> Removal:
    return Removal("boilerplate_line", text[start:end], start, end)


def paragraphs_of(text: str, start: int, end: int) -> Iterator[list[Line]]:
    """Yield the groups of lines between blank lines."""
    lines: list[Line] = []
    for match in LINE.finditer(text, start, end):
        line = match[1]
        if line.strip("\ufeff \t\x0b\x00"):
            lines.append(Line(line.rstrip(), *match.span(1)))
        elif lines and match[2] != "\f":
            yield lines
            lines = []
    if lines:
        yield lines


def blocks_of(paragraphs: Iterable[list[Line]]) -> Iterator[Block]:
    """Yield a block for each paragraph, its lines joined where they were only wrapped."""
    groups = list(paragraphs)
    width = wrap_width(groups)
    words: set[str] | None = None
    for lines in groups:
        if len(lines) > 1 and max([len(line.text) for line in lines]) > MAX_WRAP_WIDTH:
            yield from (Block(line.text.strip(), line.start, line.end) for line in lines)
            continue
        texts = [line.text.strip() for line in lines]
        if len(lines) > 1 and is_wrapped(lines, texts, width):
            if words is None and any(text.endswith("-") for text in texts[:-1]):
                words = _words(groups)
            text = joined(texts, words or set())
        else:
            text = "\n".join(texts)
        yield Block(text, lines[0].start, lines[-1].end)


def wrap_width(groups: Iterable[list[Line]]) -> int:
    """Return the column at which a document wraps: nineteen of twenty lines inside paragraphs are no longer."""
    lengths = sorted([len(line.text) for lines in groups for line in lines[:-1]])
    if not lengths:
        return 0
    return lengths[int(0.95 * (len(lengths) - 1))]


def is_wrapped(lines: list[Line], texts: list[str], width: int) -> bool:
    """Return whether the breaks between the lines, given also without their indents, stand only where a line was full."""
    if not MIN_WRAP_WIDTH <= width <= MAX_WRAP_WIDTH:
        return False
    count = len(texts)
    if any(COLUMN_GAP in text or "\t" in text for text in texts) and _matches(COLUMNS.search, texts) / count > 0.3:
        return False
    if _matches(LIST_ITEM.match, [text for text in texts if not text[:2].isalpha()]) / count > 0.5:
        return False
    if count > 3 and sum([text.lstrip("\"'“‘(")[:1].isupper() for text in texts]) / count > 0.8:
        return False  # verse begins each line with a capital
    indent = max([len(line.text) - len(text) for line, text in zip(lines[1:], texts[1:], strict=True)])
    room = width - SLACK - indent - 1  # for a line and the first word of the next
    full = sum([len(line) >= room or len(line) + _first_word(after) > room for line, after in pairwise(texts)])
    return full >= 0.7 * (count - 1)


def _matches(test: Callable[[str], object], texts: Iterable[str]) -> int:
    return sum(map(bool, map(test, texts)))


def _first_word(text: str) -> int:
    """Return the length of the first word; 0 for a line of rare blanks."""
    return len(next(iter(text.split(None, 1)), ""))


def _words(groups: Iterable[list[Line]]) -> set[str]:
    whole = "\n".join([line.text for lines in groups for line in lines])
    return set(map(str.lower, set(WORDS.findall(whole))))


def joined(lines: list[str], words: set[str]) -> str:
    """Return the lines as one. A hyphen at a line's end goes only when the document knows the word without it."""
    parts = [lines[0]]
    for before, line in pairwise(lines):
        if not before.endswith(("-", "—")):
            parts.append(" " + line)
            continue
        left, right = WORD_END.search(before[-MAX_WORD:]), WORD_START.match(line)
        if left is None or right is None:
            closed = before.endswith(("—", "--")) and before[-3:-2] != " "
            parts.append(line if closed else " " + line)
            continue
        if (left[1] + right[0]).lower() in words and f"{left[1]}-{right[0]}".lower() not in words:
            parts[-1] = parts[-1][:-1]
        parts.append(line)
    return "".join(parts)
