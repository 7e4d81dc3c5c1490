"""The files a build works on: each phase turns a batch into Parquet files and a summary, found again after a kill.

`<phase>-NNNNNN.<kind>.parquet` holds rows, `<phase>-NNNNNN.json` the summary; it is written last, so a batch whose summary
exists and carries the wanted digest is finished.
"""

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from caslon.corpus.shards import ROW_GROUP_BYTES
from caslon.corpus.steps import StepCounts
from caslon.errors import StorageError
from caslon.folders import write_atomic

CACHED_COLUMNS = 4
Rows = Sequence[Mapping[str, Any]]
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Summary:
    """What is known about a finished batch without reading its files."""

    number: int
    digest: str  # of everything the batch was made from
    documents: int
    counts: dict[str, StepCounts]
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the summary as JSON text."""
        return json.dumps(asdict(self))  # the order of the steps is their order of work

    @staticmethod
    def from_json(text: str) -> "Summary":
        """Return the summary that `to_json` wrote."""
        data = json.loads(text)
        data["counts"] = {name: StepCounts(**counts) for name, counts in data["counts"].items()}
        return Summary(**data)


def digest_of_parts(*parts: object) -> str:
    """Return the digest of what a batch is made from."""
    return sha256("\n".join(map(str, parts)).encode("utf-8", "surrogatepass")).hexdigest()


def rows_path(work: Path, phase: str, number: int, kind: str) -> Path:
    """Return the file of a batch's rows of one kind."""
    return work / f"{phase}-{number:06d}.{kind}.parquet"


def summary_path(work: Path, phase: str, number: int) -> Path:
    """Return the file whose presence says that a batch is finished."""
    return work / f"{phase}-{number:06d}.json"


def finished(work: Path, phase: str, number: int, digest: str) -> Summary | None:
    """Return the summary of a batch that an earlier call finished from the same input, or None."""
    path = summary_path(work, phase, number)
    if not path.is_file():
        return None
    summary = Summary.from_json(path.read_text(encoding="utf-8"))
    return summary if summary.digest == digest else None


def finish(work: Path, phase: str, summary: Summary, tables: Mapping[str, tuple[Rows, pa.Schema]]) -> Summary:
    """Write a batch's rows and then its summary, which is returned."""
    summary_path(work, phase, summary.number).unlink(missing_ok=True)
    for kind, (rows, schema) in tables.items():
        _write(rows_path(work, phase, summary.number, kind), rows, schema)
    write_atomic(summary_path(work, phase, summary.number), summary.to_json())
    return summary


def remove_stray(work: Path, phase: str, batches_made: int) -> None:
    """Remove batches beyond the last that an interrupted call with other cuts may have left."""
    for path in work.glob(f"{phase}-*"):
        if int(path.name[len(phase) + 1 :][:6]) >= batches_made:
            with suppress(FileNotFoundError):
                path.unlink()


def _write(path: Path, rows: Rows, schema: pa.Schema) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with pq.ParquetWriter(
            temporary, schema, compression="zstd", compression_level=1, write_statistics=False
        ) as file:
            for part in _row_groups(rows):
                file.write_table(pa.Table.from_pylist(part, schema=schema), row_group_size=1 << 30)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write: {error.strerror or error}", where=str(path), fix="free some disk space"
        ) from error


def _row_groups(rows: Rows) -> Iterator[list[Mapping[str, Any]]]:
    part: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        part.append(row)
        size += len(row.get("text", ""))
        if size >= ROW_GROUP_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


class DocumentColumns:
    """The documents of a phase's batches, numbered through from 0 in the order of reading."""

    def __init__(self, work: Path, phase: str, summaries: Iterable[Summary], kind: str = "documents") -> None:
        self.work, self.phase, self.kind = work, phase, kind
        self.summaries = list(summaries)
        self.starts = [0, *accumulate(summary.documents for summary in self.summaries)]
        self._held: OrderedDict[tuple[int, str], list[Any]] = OrderedDict()

    def __len__(self) -> int:
        return self.starts[-1]

    def column(self, name: str) -> Iterator[Any]:
        """Yield one column of all documents in order."""
        for summary in self.summaries:
            yield from self._values(summary.number, name)

    def numbers(self, name: str, kind: type[Number]) -> NDArray[Number]:
        """Return a column of numbers of all documents in order."""
        parts = [table[name].to_numpy().astype(kind, copy=False) for _, table in self.tables(name)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=kind)

    def codes(self, name: str) -> tuple[list[str], NDArray[np.int64]]:
        """Return the distinct values of a column of names, sorted, and for every document which of them it has."""
        parts = [table[name].combine_chunks().dictionary_encode() for _, table in self.tables(name)]
        names = sorted({value for part in parts for value in part.dictionary.to_pylist()})
        place = {value: number for number, value in enumerate(names)}
        codes = np.zeros(len(self), dtype=np.int64)
        for start, part in zip(self.starts, parts, strict=False):
            of_part = np.array([place[value] for value in part.dictionary.to_pylist()], dtype=np.int64)
            codes[start : start + len(part)] = of_part[part.indices.to_numpy()] if len(part) else 0
        return names, codes

    def tables(self, *names: str) -> Iterator[tuple[int, pa.Table]]:
        """Yield, batch by batch, the number of its first document and a table of the named columns."""
        for start, summary in zip(self.starts, self.summaries, strict=False):
            yield start, self.table(summary.number, *names)

    def value(self, number: int, name: str) -> Any:
        """Return one value of a document by its number, with the batches used last held in memory."""
        place = bisect_right(self.starts, number) - 1
        key = (place, name)
        if key not in self._held:
            self._held[key] = self._values(self.summaries[place].number, name)
            if len(self._held) > CACHED_COLUMNS:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key][number - self.starts[place]]

    def table(self, batch: int, *names: str) -> pa.Table:
        """Return the named columns of one batch."""
        path = rows_path(self.work, self.phase, batch, self.kind)
        return pq.read_table(path, columns=list(names), use_threads=False)

    def _values(self, batch: int, name: str) -> list[Any]:
        return list(self.table(batch, name)[name].to_pylist())
