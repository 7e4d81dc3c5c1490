"""Large files of records: turns a JSONL, CSV or XML stream of any length into parts that end where a record ends.

A part of a CSV file repeats the header line, a part of an XML file the document's head and root tag, so every part can be
read alone. Cutting needs no parser: lines for JSONL, lines outside quotes for CSV (RFC 4180), and for XML the end tag of
the element that repeats below the root, counted so that a nested element of the same name cuts nothing.
"""

import lzma
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO
from xml.parsers import expat

from caslon.corpus.collect.raw_file import Problem
from caslon.corpus.detect import detect

SINGLE_BYTES = 64 << 20  # files up to this size stay whole
PART_BYTES = 16 << 20
MAX_FILE_BYTES = 100 << 20
HEAD_BYTES = 1 << 16
CHUNK_BYTES = 1 << 20
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")  # line feeds are two bytes there: such files are not cut
LONGEST_TAG_BYTES = 256  # looked at again where two chunks meet
BLANK = re.compile(rb"\s*")
LINE_END = re.compile(rb"\n")
XML_HEAD = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>)*+<([\w:.-]+)(?:\s[^>]*)?>",
    re.DOTALL,
)


@dataclass(frozen=True)
class Limits:
    """Above which size a file is read in parts, how large these are, and when a file is too large."""

    single_bytes: int = SINGLE_BYTES
    part_bytes: int = PART_BYTES
    file_bytes: int = MAX_FILE_BYTES


@dataclass(frozen=True)
class Part:
    """Some records of a file; `start` and `end` count bytes of the file."""

    bytes: bytes
    start: int
    end: int
    line_offset: int
    byte_offset: int
    problem: Problem | None = None


@dataclass(frozen=True)
class Records:
    """How the records of one file are told apart, and what a part repeats before and after them."""

    border: Callable[[bytearray, int], int]  # (buffer, bytes of it to look at) -> end of the last whole record, or 0
    record_end: re.Pattern[bytes]  # where a record that is too large is taken to end
    prefix: bytes = b""
    suffix: bytes = b""
    tail: re.Pattern[bytes] = BLANK  # what may follow the last record


def records_of(head: bytes, name: str) -> Records | None:
    """Return how a file that begins with `head` can be cut, or None when it is no file of records."""
    if head.startswith(UTF_16_MARKS):
        return None
    kind = detect(head, name).kind
    if kind == "jsonl":
        return Records(_last_line, LINE_END)
    if kind == "csv" or (kind == "text" and PurePosixPath(name).suffix.lower() in (".csv", ".tsv")):
        return _csv_records(head)
    return _xml_records(head, "page" if kind == "mediawiki" else None) if kind in ("mediawiki", "xml") else None


def parts_of(stream: IO[bytes], buffer: bytearray, records: Records, limits: Limits) -> Iterator[Part]:
    """Yield the parts of a stream whose first bytes, already read, are `buffer` (which is used up).

    An error of the stream passes through after what came before it was yielded; a record above `limits.file_bytes` gives a
    part without bytes and with a problem.
    """
    cutter = _Cutter(stream, buffer, records, limits)
    while cutter.has_more:
        try:
            size = cutter.next_size()
        except Exception:
            if buffer:
                yield cutter.take(len(buffer), last=True)
            raise
        if size:
            yield cutter.take(size, last=cutter.ended and size == len(buffer))
        elif buffer:
            yield cutter.skip_record()


class _Cutter:
    def __init__(self, stream: IO[bytes], buffer: bytearray, records: Records, limits: Limits) -> None:
        self._stream, self._buffer, self._records, self._limits = stream, buffer, records, limits
        self._start = self._lines = 0
        self.ended = False

    @property
    def has_more(self) -> bool:
        if not self.ended:
            return True
        return bool(self._buffer) and not (self._start and self._records.tail.fullmatch(self._buffer))

    def next_size(self) -> int:
        """Return how many bytes the next part takes; 0 when its first record is too large, or nothing is left."""
        target = self._limits.part_bytes
        while True:
            self._fill(target + 1)
            if self.ended and len(self._buffer) <= target:
                return len(self._buffer)
            size = self._records.border(self._buffer, target)
            if size or target >= self._limits.file_bytes:
                return size
            target = min(2 * target, self._limits.file_bytes)

    def take(self, size: int, *, last: bool) -> Part:
        data = bytes(self._buffer[:size])
        part = _part(data, self._records, self._start, self._lines, last=last)
        self._advance(size)
        return part

    def skip_record(self) -> Part:
        """Drop the record that stands first, however long, and return what is to be said of it."""
        start, lines = self._start, self._lines
        while (found := self._records.record_end.search(self._buffer)) is None and not self.ended:
            self._advance(max(0, len(self._buffer) - LONGEST_TAG_BYTES))
            self._fill(CHUNK_BYTES)
        self._advance(found.end() if found else len(self._buffer))
        reason = (
            f"a record of {self._start - start:,} bytes at byte {start:,}; the limit is {self._limits.file_bytes:,}"
        )
        return Part(b"", start, self._start, lines, start, ("too_large", reason))

    def _advance(self, size: int) -> None:
        self._lines += self._buffer.count(b"\n", 0, size)
        self._start += size
        del self._buffer[:size]

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size and not self.ended:
            chunk = read_some(self._stream, min(CHUNK_BYTES, size - len(self._buffer)))
            self._buffer += chunk
            self.ended = not chunk


def part_between(stream: IO[bytes], start: int, end: int, name: str) -> Part:
    """Return the part of a file again, by its bytes; the stream stands at its beginning.

    Raises EOFError when the file ends before `end`, ValueError when it is no file of records any more.
    """
    head = _exactly(stream, HEAD_BYTES)
    records = records_of(head, name)
    if records is None:
        raise ValueError("the file is no file of records any more")
    at, lines, kept = len(head), head.count(b"\n", 0, start), bytearray(head[start:end])
    while at < end:
        chunk = read_some(stream, min(CHUNK_BYTES, end - at))
        if not chunk:
            break
        before = min(max(0, start - at), len(chunk))
        lines += chunk.count(b"\n", 0, before)
        kept += chunk[before:]
        at += len(chunk)
    if at < end:
        raise EOFError(f"the file ends at byte {at:,}")
    return _part(bytes(kept), records, start, lines, last=at == end and _is_at_end(stream))


def read_some(stream: IO[bytes], size: int) -> bytes:
    """Return up to `size` bytes; of a damaged stream, all that come before the damage (a buffered `read` would lose some)."""
    read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
    return read(size)


def _is_at_end(stream: IO[bytes]) -> bool:
    try:
        return not stream.read(1)
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError):
        return True  # a cut-off archive: the part was the last that could be read


def _part(data: bytes, records: Records, start: int, lines: int, *, last: bool) -> Part:
    prefix = records.prefix if start else b""
    suffix = b"" if last else records.suffix
    offsets = (lines - prefix.count(b"\n"), start - len(prefix))
    return Part(prefix + data + suffix, start, start + len(data), *offsets)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    buffer = bytearray()
    while len(buffer) < size and (chunk := read_some(stream, size - len(buffer))):
        buffer += chunk
    return bytes(buffer)


# --- lines -------------------------------------------------------------------------------------------------------------


def _last_line(buffer: bytearray, size: int) -> int:
    return buffer.rfind(b"\n", 0, size) + 1


def _csv_records(head: bytes) -> Records | None:
    end = head.find(b"\n") + 1
    while end and head.count(b'"', 0, end) % 2:
        end = head.find(b"\n", end) + 1
    return Records(_last_line_outside_quotes, LINE_END, prefix=head[:end]) if end else None


def _last_line_outside_quotes(buffer: bytearray, size: int) -> int:
    end = buffer.rfind(b"\n", 0, size) + 1
    quotes = buffer.count(b'"', 0, end)
    while end and quotes % 2:
        before = buffer.rfind(b"\n", 0, end - 1) + 1
        quotes -= buffer.count(b'"', before, end)
        end = before
    return end


# --- XML ---------------------------------------------------------------------------------------------------------------


def _xml_records(head: bytes, record: str | None) -> Records | None:
    found = XML_HEAD.match(head)
    record = record or _repeated_child(head)
    if found is None or record is None:
        return None
    root, name = re.escape(found[1]), re.escape(record.encode())
    tag = re.compile(rb"<(/?)" + name + rb"(?:\s[^>]*?)?(/?)>")

    def border(buffer: bytearray, size: int) -> int:
        depth = end = 0
        for match in tag.finditer(buffer, 0, size):
            depth += -1 if match[1] else not match[2]
            if depth == 0:
                end = match.end()
        return end

    tail = re.compile(rb"\s*</" + root + rb"\s*>\s*")
    return Records(border, re.compile(rb"</" + name + rb"\s*>"), found[0], b"</" + found[1] + b">", tail)


def _repeated_child(head: bytes) -> str | None:
    """The element that most often stands directly below the root in the first bytes, or the first one still open there."""
    open_tags: list[str] = []
    children: Counter[str] = Counter()

    def start(name: str, _attributes: dict[str, str]) -> None:
        if len(open_tags) == 1:
            children[name] += 1
        open_tags.append(name)

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _name: open_tags.pop()
    try:
        parser.Parse(head, False)
    except expat.ExpatError:
        return None  # the reader says what is wrong with it
    if children and children.most_common(1)[0][1] > 1:
        return children.most_common(1)[0][0]
    return open_tags[1] if len(open_tags) > 1 else None
