"""Records of data files: turns the named field of a row into the blocks of a document, each with its place in the file.

A field may be nested (`data.answer.text`); lists on the way are gone through, and what is found is joined by blank lines.
Without a name the field is guessed: `text` and its kin first, else the one with most text in the first rows.
"""

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from caslon.corpus.document import Block, Reject
from caslon.corpus.read.reading import Extracted, Source
from caslon.corpus.read.text import blocks_of, paragraphs_of

STEP = "read"
KNOWN_FIELDS = (
    "text", "content", "body", "article", "document", "passage", "context", "raw_content", "markdown", "abstract", "story",
    "messages.content", "conversations.value",
)  # fmt: skip
ROWS_LOOKED_AT = 100
MIN_MEAN_CHARACTERS = 10  # of a field that may be guessed to hold the text
MAX_DEPTH = 8  # of the fields that are looked at for a guess
JSON_ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.")
CSV_ESCAPE = re.compile(r'""')
YEAR = re.compile(r"\s*(1[0-9]\d\d|20\d\d)(?!\d)")
Place = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Row:
    """One record: its name (`line-7`), its range in the file's text, and its value or what is wrong with it."""

    name: str
    start: int
    end: int
    value: Any = None
    problem: str = ""


def documents(
    source: Source, rows: Iterator[Row], text: Callable[[Row], str], escape: re.Pattern[str]
) -> Iterator[Extracted | Reject]:
    """Yield a document for each row and a `malformed_record` reject for each that has no text in the field.

    `text` returns the source of a row, in which its values are looked up; `escape` matches what stands for one character there.
    """
    first: list[Row] = []
    for row in rows:
        first.append(row)
        if len(first) == ROWS_LOOKED_AT:
            break
    field = str(source.metadata.get("text_field") or "") or guessed_field([row.value for row in first])
    reader = _RowReader(source, field, text, escape)
    for row in first:
        yield reader.read(row)
    for row in rows:
        yield reader.read(row)


def guessed_field(values: Sequence[Any]) -> str:
    """Return the path of the field that most likely holds the text; empty when there is none."""
    rows = [value for value in values if isinstance(value, Mapping)]
    for field in KNOWN_FIELDS:
        if rows and sum(bool(strings_at(row, field)) for row in rows) >= 0.5 * len(rows):
            return field
    lengths: Counter[str] = Counter()
    for row in rows:
        for path, length in _string_lengths(row, "", 0):
            lengths[path] += length
    if not lengths:
        return ""
    path, length = max(lengths.items(), key=lambda item: (item[1], item[0]))
    return path if length >= MIN_MEAN_CHARACTERS * len(rows) else ""


def _string_lengths(value: Any, path: str, depth: int) -> Iterator[tuple[str, int]]:
    if isinstance(value, str):
        yield path, len(value)
    elif isinstance(value, Mapping) and depth < MAX_DEPTH:
        for key, inner in value.items():
            yield from _string_lengths(inner, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(value, list) and depth < MAX_DEPTH:
        for inner in value:
            yield from _string_lengths(inner, path, depth + 1)


def strings_at(value: Any, path: str) -> list[str]:
    """Return the texts a path leads to; lists on the way are gone through, numbers in a path count their items from 0."""
    if not path:
        found = value if isinstance(value, list) else [value]
        return [item for item in found if isinstance(item, str) and item.strip()]
    if isinstance(value, list):
        head, _, rest = path.partition(".")
        if head.isdecimal():
            return strings_at(value[int(head)], rest) if int(head) < len(value) else []
        return [text for item in value for text in strings_at(item, path)]
    if not isinstance(value, Mapping):
        return []
    if path in value:
        return strings_at(value[path], "")
    head, _, rest = path.partition(".")
    return strings_at(value[head], rest) if head in value and rest else []


class _RowReader:
    """Turns rows into documents, all by the same field."""

    def __init__(self, source: Source, field: str, text: Callable[[Row], str], escape: re.Pattern[str]) -> None:
        self._source, self._field, self._text, self._escape = source, field, text, escape
        self._is_code = source.metadata.get("tier") == "code"

    def read(self, row: Row) -> Extracted | Reject:
        """Return the document of a row, or its reject."""
        if row.problem:
            return self._reject(row, row.problem)
        if isinstance(row.value, str):
            texts = [row.value] if row.value.strip() else []
        else:
            texts = strings_at(row.value, self._field) if self._field else []
        if not texts:
            wanted = f"no text in the field '{self._field}'" if self._field else "no field that holds text"
            return self._reject(row, f"{row.name}: {wanted}")
        value = row.value if isinstance(row.value, Mapping) else {}
        metadata = {"author": value["author"]} if isinstance(value.get("author"), str) else {}
        return Extracted(
            blocks=tuple(self._blocks(row, texts)),
            title=value["title"] if isinstance(value.get("title"), str) else "",
            year=_year(value),
            record=row.name,
            group=f"{self._source.origin.source}:{replace(self._source.origin, record=row.name).address}",
            metadata={**metadata, "field": self._field} if self._field else metadata,
        )

    def _reject(self, row: Row, reason: str) -> Reject:
        origin = replace(self._source.origin, record=row.name)
        return Reject(origin, STEP, "malformed_record", reason, self._text(row), row.start, row.end)

    def _blocks(self, row: Row, texts: list[str]) -> Iterator[Block]:
        raw = self._text(row)
        after = 0
        for text in texts:
            found, after = places(raw, text, after, self._escape)
            if self._is_code:
                blocks: Iterator[Block] = iter([Block(text, 0, len(text))])
            else:
                blocks = blocks_of(paragraphs_of(text, 0, len(text)))
            for block in blocks:
                if found is None:
                    yield replace(block, start=row.start, end=row.end)
                else:
                    yield replace(block, start=row.start + found(block.start), end=row.start + found(block.end))


def places(raw: str, text: str, after: int, escape: re.Pattern[str]) -> tuple[Place | None, int]:
    """Return what turns a place in a value into one in the source of its row, and where the value ends there.

    None when the value cannot be found again, for it may be written in more ways than are tried.
    """
    for spelled in _spellings(text, escape):
        at = raw.find(spelled, after)
        if at >= 0:
            return _place(spelled, at, escape), at + len(spelled)
    return None, after


def _spellings(text: str, escape: re.Pattern[str]) -> Iterator[str]:
    if escape is CSV_ESCAPE:
        yield text.replace('"', '""')
        yield text
    else:
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1].replace("/", "\\/")


def _place(spelled: str, at: int, escape: re.Pattern[str]) -> Place:
    plain, written = [0], [0]
    for match in escape.finditer(spelled):
        plain.append(plain[-1] + match.start() - written[-1] + 1)
        written.append(match.end())

    def place(index: int) -> int:
        known = bisect_right(plain, index) - 1
        return at + written[known] + index - plain[known]

    return place


def _year(value: Mapping[str, Any]) -> int | None:
    for key in ("year", "date"):
        found = YEAR.match(str(value.get(key, "")))
        if found:
            return int(found[1])
    return None
