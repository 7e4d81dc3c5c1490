"""JSON lines, JSON and CSV: turns every row into a document; a bad row is rejected by its line, the rest is kept.

Lines count from 1 in the whole file, also where the file came in parts (`line_offset`). A CSV row may take several lines; one
whose quotes never close, or with more or fewer cells than the header, is bad, and reading goes on after its first line.
"""

import csv
import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any

from caslon.corpus.collect.raw_file import PART
from caslon.corpus.detect_records import csv_delimiter, is_header
from caslon.corpus.document import Reject
from caslon.corpus.read.reading import Extracted, ReadSettings, Source, Unreadable
from caslon.corpus.read.records import CSV_ESCAPE, JSON_ESCAPE, Row, documents

LINE = re.compile(r"[^\n]*\n|[^\n]+")
BLANK = re.compile(r"[\s,]*")
MAX_CELL_CHARACTERS = 64 << 20
MAX_READ_AGAIN = 4  # times the length of the text that may be read again behind rows whose quotes never close
SAMPLE_CHARACTERS = 65_536


def read_jsonl(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield a document for each line."""
    yield from documents(source, _json_lines(source), _slice(source), JSON_ESCAPE)


def read_json(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield a document for each item of the list, or for the one object that the file holds."""
    yield from documents(source, _json_values(source), _slice(source), JSON_ESCAPE)


def read_csv(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield a document for each row below the header. Without a header the columns are called `1`, `2`, `3`."""
    yield from documents(source, _csv_rows(source), _slice(source), CSV_ESCAPE)


def _slice(source: Source) -> Any:
    return lambda row: source.text[row.start : row.end]


def _first_line(source: Source) -> int:
    """The number of the line before the text's first one, in the whole file."""
    return int(source.metadata.get("line_offset", 0))


def _json_lines(source: Source) -> Iterator[Row]:
    for number, match in enumerate(LINE.finditer(source.text), _first_line(source) + 1):
        line = match[0].strip("\ufeff \t\r\n\x00")
        if line:
            start = match.start() + match[0].index(line)
            yield _json_row(f"line-{number}", line, start)


def _json_row(name: str, line: str, start: int) -> Row:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(name, start, start + len(line), problem=f"{name} is no JSON: {error or 'nested too deep'}")
    problem = "" if isinstance(value, dict | str) else f"{name} holds no object but {type(value).__name__}"
    return Row(name, start, start + len(line), value, problem)


def _json_values(source: Source) -> Iterator[Row]:
    """Yield the items of a list, or the values that follow one another; damage ends the reading with a bad row."""
    text = source.text
    decoder = json.JSONDecoder()
    at = BLANK.match(text.replace("\ufeff", " ", 1)[:1] + text[1:]).end()  # type: ignore[union-attr]
    is_list = text[at : at + 1] == "["
    at += is_list
    line_ends = [match.start() for match in re.finditer("\n", text)]
    while (at := BLANK.match(text, at).end()) < len(text) and not (is_list and text[at] == "]"):  # type: ignore[union-attr]
        name = f"line-{_first_line(source) + bisect_right(line_ends, at - 1) + 1}"
        if at and text.rfind("\n", 0, at) < text.rfind("{", 0, at):
            name += f"-{at - text.rfind(chr(10), 0, at)}"  # several items on a line: their column too
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield Row(name, at, len(text), problem=f"{name} is no JSON: {error or 'nested too deep'}")
            return
        problem = "" if isinstance(value, dict | str) else f"{name} holds no object but {type(value).__name__}"
        yield Row(name, at, end, value, problem)
        at = end


def _csv_rows(source: Source) -> Iterator[Row]:
    delimiter = csv_delimiter(source.text[:SAMPLE_CHARACTERS], source.name.lower().rpartition(".")[2]) or ","
    rows = _csv_cells(source.text, delimiter)
    part = PART.search(source.origin.member) if "line_offset" in source.metadata else None
    header: list[str] | None = None
    for number, start, end, cells, problem in rows:
        name = f"line-{_first_line(source) + number}"
        if header is None and cells:
            header = [cell.strip("\ufeff ") for cell in cells]
            has_names = is_header(header)
            if not has_names:
                header = [str(column) for column in range(1, len(cells) + 1)]
            _check_field(source, header)
            if has_names or (part is not None and int(part[1])):
                continue  # a later part repeats the file's first row, whatever that is
        if problem:
            yield Row(name, start, end, problem=f"{name}: {problem}")
        elif header is not None and len(cells) != len(header):
            yield Row(name, start, end, problem=f"{name} has {len(cells)} cells where the first row has {len(header)}")
        elif header is not None:
            yield Row(name, start, end, dict(zip(header, cells, strict=True)))


def _check_field(source: Source, header: list[str]) -> None:
    field = source.metadata.get("text_field")
    if field and field not in header:
        raise Unreadable("malformed_record", f"the table has no column '{field}' but {', '.join(header[:20])}")


def _csv_cells(text: str, delimiter: str) -> Iterator[tuple[int, int, int, list[str], str]]:
    """Yield `(line, start, end, cells, problem)` for each row that is not blank; lines count from 1."""
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    lines = [match.span() for match in LINE.finditer(text)]
    first = 0
    budget = MAX_READ_AGAIN * len(text)
    while first < len(lines):
        begin = first
        reader = csv.reader((text[start:end] for start, end in lines[first:]), delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                after = first + reader.line_num
                if any(cell.strip() for cell in cells):
                    yield begin + 1, lines[begin][0], _without_line_end(text, lines[after - 1]), cells, ""
                begin = after
            return
        except csv.Error as error:
            seen = lines[min(first + reader.line_num, len(lines)) - 1][1]
            budget -= seen - lines[begin][0]
            is_last = budget < 0
            end = len(text) if is_last else _without_line_end(text, lines[begin])
            yield begin + 1, lines[begin][0], end, [], f"damaged: {error}"
            if is_last:
                return
        first = begin + 1


def _without_line_end(text: str, line: tuple[int, int]) -> int:
    return line[0] + len(text[line[0] : line[1]].rstrip("\r\n"))
