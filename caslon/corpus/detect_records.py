"""What a text of records is: turns its first characters into JSON, JSON lines or a table with its delimiter, or into nothing.

A name such as `.csv` or `.jsonl` lowers what the content must show, and never replaces it: prose named `.csv` stays prose.
"""

import csv
import json
import re
from collections import Counter

JSON_SUFFIXES = ("json", "jsonl", "ndjson")
CSV_SUFFIXES = ("csv", "tsv", "tab")
DELIMITERS = ",\t;|"
LINES_LOOKED_AT = 100
MIN_EVEN_SHARE = 0.9  # of rows with the same number of cells, where the name says nothing
MIN_EVEN_SHARE_NAMED = 0.5
MAX_HEADER_WORDS = 4
HEADER_CELL = re.compile(r"[^\W\d][\w .()/#&?:-]{0,63}")
CUT_OFF_SHARE = 0.98  # an error so near the end of a sample comes from the sample's end


def json_kind(sample: str, suffix: str, *, is_cut: bool) -> str | None:
    """Return `json` or `jsonl`, or None. `is_cut` says that the file goes on after the sample."""
    if sample.lstrip()[:1] not in ("{", "["):
        return None
    lines = [line for line in sample.split("\n")[:LINES_LOOKED_AT] if line.strip()]
    if is_cut and len(lines) > 1:
        lines = lines[:-1]
    rows = sum(map(_is_object, lines))
    if rows >= 2 and rows >= 0.5 * len(lines):
        return "jsonl"
    if rows == 1 and len(lines) == 1 and not is_cut:
        return "jsonl" if suffix in ("jsonl", "ndjson") else "json"
    if _is_json(sample, is_cut=is_cut):
        return "jsonl" if suffix in ("jsonl", "ndjson") else "json"
    if suffix in JSON_SUFFIXES and re.match(r"\s*(?:\[\s*)?\{\s*\"", sample):
        return "json" if suffix == "json" else "jsonl"  # damaged; the reader says where
    return None


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_json(sample: str, *, is_cut: bool) -> bool:
    text = sample.lstrip()
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        # A string that the sample cuts in two is reported where it begins.
        is_open_string = "Unterminated" in error.msg
        return is_cut and (error.pos >= CUT_OFF_SHARE * len(text) or is_open_string) and text[1:].lstrip()[:1] in '{["'
    except RecursionError:
        return True
    if not value or not (isinstance(value, dict) or any(isinstance(item, dict) for item in value)):
        return False
    return not text[end:].strip() or text[end:].lstrip()[:1] in "{["


def csv_delimiter(sample: str, suffix: str = "") -> str | None:
    """Return what parts the cells of a table, or None when the text is no table."""
    is_named = suffix in CSV_SUFFIXES
    lines = sample.split("\n")[:LINES_LOOKED_AT]
    if len(lines) > 2 and lines[-1]:
        lines = lines[:-1]  # the sample may end in the middle of it
    best: tuple[float, int, str] = (0.0, 0, "")
    for delimiter in DELIMITERS:
        if sum(delimiter in line for line in lines) < MIN_EVEN_SHARE_NAMED * len(lines):
            continue
        rows = [row for row in _rows(lines, delimiter) if row]
        if len(rows) < (2 if is_named else 5):
            continue
        width, count = Counter(map(len, rows)).most_common(1)[0]
        share = count / len(rows)
        wanted = MIN_EVEN_SHARE_NAMED if is_named else MIN_EVEN_SHARE
        if width > 1 and share >= wanted and (is_named or _is_surely_a_table(rows, width, delimiter, lines)):
            best = max(best, (share, width, delimiter))
    return best[2] or None


def _rows(lines: list[str], delimiter: str) -> list[list[str]]:
    rows = []
    try:
        for row in csv.reader((line.rstrip("\r") + "\n" for line in lines), delimiter=delimiter):
            rows.append([cell.strip("\n") for cell in row])
    except csv.Error:
        return rows
    if rows and sum(line.count('"') for line in lines) % 2:
        rows.pop()  # cut in the middle of a quoted cell
    return rows


def _is_surely_a_table(rows: list[list[str]], width: int, delimiter: str, lines: list[str]) -> bool:
    """Without a telling name: a header, three columns (two with tabs), and no space after the commas as in prose."""
    if not is_header(rows[0]) or len(rows[0]) != width or width < (2 if delimiter == "\t" else 3):
        return False
    text = "\n".join(lines)
    return delimiter != "," or text.count(", ") <= 0.5 * text.count(",")


def is_header(cells: list[str]) -> bool:
    """Return whether a row names columns: short, different names that begin with a letter."""
    return len(set(cells)) == len(cells) and all(
        HEADER_CELL.fullmatch(cell.strip()) and len(cell.split()) <= MAX_HEADER_WORDS for cell in cells
    )
