"""Parquet: turns every row into a document, row group by row group.

A Parquet file has no text of its own, so the plain text that ranges count in is its rows as JSON lines (columns in their order,
what JSON does not know as a string), and the rows are then read as those lines. Row names count from 1 in the whole file.
"""

import json
from collections.abc import Iterator
from typing import Any

from caslon.corpus.document import Reject
from caslon.corpus.read.reading import Extracted, ReadSettings, Source, Unreadable
from caslon.corpus.read.records import JSON_ESCAPE, Row, documents

ROWS_AT_ONCE = 256


def parquet_text(data: bytes) -> str:
    """Return the rows as JSON lines. Raises `Unreadable`."""
    return "".join(line + "\n" for _, line in _lines(data))


def read_parquet(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield a document for each row."""
    waiting: dict[str, str] = {}  # the line of each row that is on its way; few at a time

    def rows() -> Iterator[Row]:
        start = 0
        for number, (value, line) in enumerate(_lines(source.data), 1):
            waiting[f"row-{number}"] = line
            yield Row(f"row-{number}", start, start + len(line), value)
            start += len(line) + 1

    for item in documents(source, rows(), lambda row: waiting[row.name], JSON_ESCAPE):
        yield item
        waiting.pop(item.record if isinstance(item, Extracted) else item.origin.record, None)


def _lines(data: bytes) -> Iterator[tuple[dict[str, Any], str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False):
            for row in batch.to_pylist():
                yield row, json.dumps(row, ensure_ascii=False, default=_as_text)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable("truncated", f"the Parquet file is damaged or cut off: {error}") from error


def _as_text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
