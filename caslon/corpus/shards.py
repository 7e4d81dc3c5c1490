"""The corpus on disk: Parquet files that hold the same bytes whenever they hold the same rows, and their readers.

`documents/<split>-NNNNN.parquet` keeps whole cleaned documents with everything known about them, `segments/<split>-NNNNN.parquet`
the pieces, `rejects/` what was dropped, `signals/` the scores of every document that was judged, and `read/` the documents as
they were before, so that other thresholds need no raw files. Nested values are JSON text, so that any Parquet reader, and
Hugging Face `datasets` offline, can read the files.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from caslon.corpus.document import BLOCK_SEPARATOR, Block, Document, Origin, Reject, Removal
from caslon.errors import StorageError, UserError

SPLITS = ("train", "validation", "test")
SHARD_BYTES = 256 << 20  # of text, about 128 MB after zstd
ROW_GROUP_BYTES = 4 << 20  # of text, so that a reader holds few documents at a time
ROW_BYTES_WITHOUT_TEXT = 200
COMPRESSION_LEVEL = 3
LONE_SURROGATE = re.compile("[\ud800-\udfff]")

ORIGIN_FIELDS = [(name, pa.string()) for name in ("source", "path", "member", "record", "sha256")]
DOCUMENT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("title", pa.string()),
        ("year", pa.int32()),
        ("tier", pa.string()),
        ("licence", pa.string()),
        ("group", pa.string()),
        *ORIGIN_FIELDS,
        ("characters", pa.int64()),
        ("score", pa.float64()),
        ("scores", pa.string()),
        ("metadata", pa.string()),
        ("removals", pa.string()),
        ("block_characters", pa.list_(pa.int64())),
        ("block_starts", pa.list_(pa.int64())),
        ("block_ends", pa.list_(pa.int64())),
    ]
)
SEGMENT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("document_id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("raw_start", pa.int64()),
        ("raw_end", pa.int64()),
        *ORIGIN_FIELDS,
        ("title", pa.string()),
        ("year", pa.int32()),
        ("tier", pa.string()),
        ("licence", pa.string()),
    ]
)
REJECT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("step", pa.string()),
        ("code", pa.string()),
        ("reason", pa.string()),
        ("text", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        *ORIGIN_FIELDS,
        ("characters", pa.int64()),
        ("metadata", pa.string()),
        ("order", pa.int64()),  # among everything that was read
    ]
)
READ_SCHEMA = DOCUMENT_SCHEMA.append(pa.field("order", pa.int64()))
SIGNAL_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("tier", pa.string()),
        ("year", pa.int32()),
        ("verdict", pa.string()),  # `kept`, or the code of the reject
        ("characters", pa.int64()),
        ("scores", pa.map_(pa.string(), pa.float64())),
    ]
)
SHARD_KINDS = {"rejects": ("rejects",), "read": ("read",), "signals": ("signals",)}


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a document: the unit a reader of the corpus gets.

    `start` and `end` are characters of the cleaned document, `raw_start` and `raw_end` characters of the decoded raw text:
    the narrowest known passage that holds the whole segment.
    """

    id: str  # document id, a hyphen, the segment's number in the document
    text: str
    document_id: str
    start: int
    end: int
    raw_start: int
    raw_end: int
    origin: Origin
    title: str = ""
    year: int | None = None
    tier: str = "general"
    licence: str = ""


class ShardWriter:
    """Writes rows to `<folder>/<name>-NNNNN.parquet`. Where shards and row groups end depends on the texts alone."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.name, self.schema, self.shard_bytes = folder, name, schema, shard_bytes
        self.rows_written = 0
        self.text_bytes = 0
        self._waiting: list[pa.Table] = []
        self._group_bytes = 0
        self._shard_bytes_so_far = 0
        self._shard_number = 0
        self._writer: pq.ParquetWriter | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, *rows: dict[str, Any]) -> None:
        """Add rows; the bytes of their `text` count towards the size of row group and shard."""
        self.write_table(pa.Table.from_pylist(list(rows), schema=self.schema))

    def write_table(self, table: pa.Table) -> None:
        """Add the rows of a table that has at least the columns of the schema."""
        table = table.select(self.schema.names).cast(self.schema)
        sizes = _text_bytes(table)
        self.rows_written += len(table)
        self.text_bytes += int(sizes.sum())
        ends = np.cumsum(sizes) + self._group_bytes
        start = 0
        while len(full := np.flatnonzero(ends >= ROW_GROUP_BYTES)):
            end = start + int(full[0]) + 1
            self._wait(table.slice(start, end - start), int(ends[full[0]]))
            self._flush()
            ends = ends[full[0] + 1 :] - ends[full[0]]
            start = end
        if start < len(table):
            self._wait(table.slice(start), int(ends[-1]))

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._close_shard()

    def _wait(self, rows: pa.Table, group_bytes: int) -> None:
        self._waiting.append(rows)
        self._group_bytes = group_bytes

    def _flush(self) -> None:
        if not self._waiting:
            return
        if self._writer is None:
            path = self.folder / f"{self.name}-{self._shard_number:05d}.parquet"
            self._writer = pq.ParquetWriter(
                path, self.schema, compression="zstd", compression_level=COMPRESSION_LEVEL, write_statistics=False
            )
        try:
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks(), row_group_size=1 << 30)
        except OSError as error:
            raise _disk_error(error, self.folder) from error
        self._shard_bytes_so_far += self._group_bytes
        self._waiting, self._group_bytes = [], 0
        if self._shard_bytes_so_far >= self.shard_bytes:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except OSError as error:
            raise _disk_error(error, self.folder) from error
        self._writer = None
        self._shard_bytes_so_far = 0
        self._shard_number += 1


def _text_bytes(table: pa.Table) -> "NDArray[np.int64]":
    """Return the UTF-8 bytes of each row's text; a row without one (of numbers only) counts as 200."""
    if "text" not in table.column_names:
        return np.full(len(table), ROW_BYTES_WITHOUT_TEXT, dtype=np.int64)
    return np.asarray(pc.binary_length(table["text"]).to_numpy(), dtype=np.int64)


def _disk_error(error: OSError, folder: Path) -> StorageError:
    return StorageError(f"cannot write: {error.strerror or error}", where=str(folder), fix="free some disk space")


def document_row(document: Document) -> dict[str, Any]:
    """Return a document as a row of `DOCUMENT_SCHEMA`."""
    text = storable(document.text)
    return {
        "id": document.id,
        "text": text,
        "title": storable(document.title),
        "year": document.year,
        "tier": document.tier,
        "licence": document.licence,
        "group": document.group,
        **asdict(document.origin),
        "characters": len(text),
        "score": document.scores.get("score", 0.0),
        "scores": _json(document.scores),
        "metadata": _json(document.metadata),
        "removals": _json([asdict(removal) for removal in document.removals]),
        "block_characters": [len(block.text) for block in document.blocks],
        "block_starts": [block.start for block in document.blocks],
        "block_ends": [block.end for block in document.blocks],
    }


def document_of_row(row: Mapping[str, Any]) -> Document:
    """Return the document that `document_row` wrote."""
    return Document(
        origin=_origin(row),
        blocks=_blocks(row["text"], row["block_characters"], row["block_starts"], row["block_ends"]),
        tier=row["tier"],
        title=row["title"],
        year=row["year"],
        licence=row["licence"],
        group=row["group"],
        scores=json.loads(row["scores"]),
        metadata=json.loads(row["metadata"]),
        removals=tuple(Removal(**removal) for removal in json.loads(row["removals"])),
    )


def segment_row(segment: Segment) -> dict[str, Any]:
    """Return a segment as a row of `SEGMENT_SCHEMA`."""
    row = asdict(segment)
    return {**row, **row.pop("origin")}


def segment_of_row(row: Mapping[str, Any]) -> Segment:
    """Return the segment that `segment_row` wrote."""
    names = ("id", "text", "document_id", "start", "end", "raw_start", "raw_end", "title", "year", "tier", "licence")
    return Segment(origin=_origin(row), **{name: row[name] for name in names})


def reject_row(reject: Reject) -> dict[str, Any]:
    """Return a reject as a row of `REJECT_SCHEMA`."""
    return {
        "id": reject.id,
        "step": reject.step,
        "code": reject.code,
        "reason": storable(reject.reason),
        "text": storable(reject.text),
        "start": reject.start,
        "end": reject.end,
        **asdict(reject.origin),
        "characters": len(reject.text),
        "metadata": _json(reject.metadata),
        "order": 0,
    }


def reject_of_row(row: Mapping[str, Any]) -> Reject:
    """Return the reject that `reject_row` wrote."""
    names = ("step", "code", "reason", "text", "start", "end")
    return Reject(origin=_origin(row), metadata=json.loads(row["metadata"]), **{name: row[name] for name in names})


def read_documents(corpus_folder: Path, split: str | None = None) -> Iterator[Document]:
    """Yield the documents of a split (all splits: None) in the corpus's order. `UserError` when there is no corpus."""
    for row in _rows(corpus_folder, "documents", split):
        yield document_of_row(row)


def read_texts(corpus_folder: Path, split: str) -> Iterator[tuple[str, str]]:
    """Yield `(document id, text)` of a split in the corpus's order: the fast way when nothing else is wanted."""
    for row in _rows(corpus_folder, "documents", split, columns=["id", "text"]):
        yield row["id"], row["text"]


def read_segments(corpus_folder: Path, split: str | None = None) -> Iterator[Segment]:
    """Yield the segments of a split (all splits: None) in the corpus's order. `UserError` when there is no corpus."""
    for row in _rows(corpus_folder, "segments", split):
        yield segment_of_row(row)


def read_rejects(corpus_folder: Path) -> Iterator[Reject]:
    """Yield everything that was dropped, in the corpus's order."""
    for row in _rows(corpus_folder, "rejects", None):
        yield reject_of_row(row)


def find_document(corpus_folder: Path, identifier: str) -> tuple[Document, str] | None:
    """Return the document with this id and its split, or None."""
    for path, number in _places(corpus_folder, "documents", identifier):
        return document_of_row(_row_at(path, number)), path.name.split("-")[0]
    return None


def find_segment(corpus_folder: Path, identifier: str) -> tuple[Segment, str] | None:
    """Return the segment with this id and its split, or None."""
    for path, number in _places(corpus_folder, "segments", identifier):
        return segment_of_row(_row_at(path, number)), path.name.split("-")[0]
    return None


def find_rejects(corpus_folder: Path, identifier: str) -> tuple[Reject, ...]:
    """Return what was dropped under this document id: the document itself, or short segments of it."""
    return tuple(reject_of_row(_row_at(path, number)) for path, number in _places(corpus_folder, "rejects", identifier))


def shard_paths(corpus_folder: Path, kind: str, split: str | None = None) -> list[Path]:
    """Return the Parquet files of a kind (`documents`, `segments`, `rejects`, `read`, `signals`) in order."""
    names = SHARD_KINDS.get(kind) or (SPLITS if split is None else (split,))
    return [path for name in names for path in sorted((corpus_folder / kind).glob(f"{name}-*.parquet"))]


def _rows(
    corpus_folder: Path, kind: str, split: str | None, columns: list[str] | None = None
) -> Iterator[dict[str, Any]]:
    if split is not None and split not in SPLITS:
        raise UserError(f"there is no split '{split}'", where=str(corpus_folder), fix=f"use one of {', '.join(SPLITS)}")
    if not (corpus_folder / kind).is_dir():
        raise UserError("no corpus here", where=str(corpus_folder), fix="give the folder that the corpus stage wrote")
    for path in shard_paths(corpus_folder, kind, split):
        yield from rows_of_file(path, columns)


def rows_of_file(path: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of one Parquet file, one row group in memory at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns=columns, use_threads=False).to_pylist()


def _places(corpus_folder: Path, kind: str, identifier: str) -> Iterator[tuple[Path, int]]:
    for path in shard_paths(corpus_folder, kind):
        ids = pq.read_table(path, columns=["id"], use_threads=False)["id"].to_pylist()
        yield from ((path, number) for number, found in enumerate(ids) if found == identifier)


def _row_at(path: Path, number: int) -> dict[str, Any]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if number < rows:
                table = file.read_row_group(group, use_threads=False)
                return dict(table.slice(number, 1).to_pylist()[0])
            number -= rows
    raise AssertionError("the row number came from this file")


def _origin(row: Mapping[str, Any]) -> Origin:
    return Origin(row["source"], row["path"], row["member"], row["record"], row["sha256"])


def _blocks(text: str, characters: list[int], starts: list[int], ends: list[int]) -> tuple[Block, ...]:
    blocks, position = [], 0
    for length, start, end in zip(characters, starts, ends, strict=True):
        blocks.append(Block(text[position : position + length], start, end))
        position += length + len(BLOCK_SEPARATOR)
    return tuple(blocks)


def storable(text: str) -> str:
    """Return the text with U+FFFD for each lone surrogate, which UTF-8 cannot hold."""
    return text if text.isascii() else LONE_SURROGATE.sub("\ufffd", text)


def _json(value: object) -> str:
    return storable(json.dumps(value, sort_keys=True, ensure_ascii=False))
