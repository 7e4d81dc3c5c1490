"""Work units: a batch of raw files becomes two files of cleaned documents and rejects, kept until the corpus is written.

A batch is done when its files stand under their final names, so work that is killed goes on after the last whole batch. What
a batch holds depends on its raw files and the settings alone.
"""

import json
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from caslon.corpus.collect import RawFile
from caslon.corpus.dedup import fingerprint
from caslon.corpus.document import Document, Reject
from caslon.corpus.filters import quality, reject
from caslon.corpus.language import language
from caslon.corpus.period import period
from caslon.corpus.read import read
from caslon.corpus.repair import repair
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import DOCUMENT_SCHEMA, REJECT_SCHEMA, ROW_GROUP_BYTES, document_row, reject_row
from caslon.errors import StorageError

Step = Callable[[Document], Document | Reject]
BATCH_BYTES = 1 << 20
BATCH_FILES = 256
PLACE = pa.field("place", pa.int64())  # of a document or reject among all that its batch found
WORK_REJECT_SCHEMA = REJECT_SCHEMA.append(PLACE)
WORK_DOCUMENT_SCHEMA = pa.schema(
    [*DOCUMENT_SCHEMA, PLACE, pa.field("exact", pa.binary()), pa.field("bands", pa.binary())]
)


@dataclass
class StepCounts:
    """What one step did: in = out + rejected, and for characters also + removed + changed."""

    documents_in: int = 0
    documents_out: int = 0
    documents_rejected: int = 0
    characters_in: int = 0
    characters_out: int = 0
    characters_rejected: int = 0
    characters_removed: int = 0
    characters_changed: int = 0  # what rewriting (white space, hyphens, separators) took away or, below zero, added
    seconds: float = 0.0

    def add(self, other: "StepCounts") -> None:
        """Add another count of the same step."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    def note(self, before: Document, after: Document | Reject) -> None:
        """Count one document that went through the step."""
        characters = len(before.text)
        self.documents_in += 1
        self.characters_in += characters
        if isinstance(after, Reject):
            self.documents_rejected += 1
            self.characters_rejected += characters
            return
        removed = sum(removal.characters for removal in after.removals[len(before.removals) :])
        left = len(after.text) if after.blocks is not before.blocks else characters
        self.documents_out += 1
        self.characters_out += left
        self.characters_removed += removed
        self.characters_changed += characters - left - removed


@dataclass(frozen=True)
class Batch:
    """Raw files that are worked on together."""

    number: int
    raw_files: tuple[RawFile, ...]

    @property
    def digest(self) -> str:
        """What the batch's raw files are, whatever their bytes are called on disk."""
        names = (f"{raw.source}\0{raw.path}\0{raw.member}\0{raw.sha256}" for raw in self.raw_files)
        return sha256("\n".join(names).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class BatchSummary:
    """What is known about a finished batch without reading it."""

    number: int
    digest: str
    documents: int
    rejects: int
    raw_files: int
    raw_bytes: int
    raw_files_per_source: dict[str, int]
    counts: dict[str, StepCounts]

    def to_json(self) -> str:
        """Return the summary as JSON text."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "BatchSummary":
        """Return the summary that `to_json` wrote."""
        data = json.loads(text)
        data["counts"] = {name: StepCounts(**counts) for name, counts in data["counts"].items()}
        return BatchSummary(**data)


def batches(raw_files: Iterable[RawFile], size_bytes: int = BATCH_BYTES) -> Iterator[Batch]:
    """Yield the raw files in batches of about a megabyte, in their order."""
    waiting: list[RawFile] = []
    number = size = 0
    for raw in raw_files:
        waiting.append(raw)
        size += len(raw.bytes)
        if size >= size_bytes or len(waiting) >= BATCH_FILES:
            yield Batch(number, tuple(waiting))
            waiting, size, number = [], 0, number + 1
    if waiting:
        yield Batch(number, tuple(waiting))


def documents_path(work: Path, number: int) -> Path:
    """Return the file of a batch's documents."""
    return work / f"batch-{number:06d}.documents.parquet"


def rejects_path(work: Path, number: int) -> Path:
    """Return the file of a batch's rejects."""
    return work / f"batch-{number:06d}.rejects.parquet"


def finished(work: Path, batch: Batch) -> BatchSummary | None:
    """Return the summary of a batch that an earlier call finished, or None."""
    path = documents_path(work, batch.number)
    if not path.is_file() or not rejects_path(work, batch.number).is_file():
        return None
    with pq.ParquetFile(path) as file:
        summary = BatchSummary.from_json(file.schema_arrow.metadata[b"caslon"].decode())
    return summary if summary.digest == batch.digest else None


@dataclass
class _Output:
    documents: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, StepCounts] = field(default_factory=dict)


def clean(batch: Batch, settings: CorpusSettings, work: Path) -> BatchSummary:
    """Read, repair, judge and fingerprint the documents of a batch, write both its files, and return its summary."""
    output = _Output()
    steps = steps_of(settings)
    for raw in batch.raw_files:
        for item in _documents_of(raw, output.counts):
            result = _through(item, steps, output.counts)
            place = {"place": len(output.rejects) + len(output.documents)}
            if isinstance(result, Reject):
                output.rejects.append(reject_row(result) | place)
            else:
                output.documents.append(_work_row(result, settings, output.counts) | place)
    summary = BatchSummary(
        number=batch.number,
        digest=batch.digest,
        documents=len(output.documents),
        rejects=len(output.rejects),
        raw_files=len(batch.raw_files),
        raw_bytes=sum(len(raw.bytes) for raw in batch.raw_files),
        raw_files_per_source=dict(Counter(raw.source for raw in batch.raw_files)),
        counts=output.counts,
    )
    _write(rejects_path(work, batch.number), output.rejects, WORK_REJECT_SCHEMA)
    schema = WORK_DOCUMENT_SCHEMA.with_metadata({"caslon": summary.to_json()})
    _write(documents_path(work, batch.number), output.documents, schema)
    return summary


def steps_of(settings: CorpusSettings) -> dict[str, Step]:
    """Return the steps every document takes after reading, in order."""
    return {
        "repair": partial(_repaired, long_s=settings.long_s),
        "language": partial(language, settings=settings),
        "period": partial(period, settings=settings),
        "quality": partial(quality, settings=settings),
    }


def _repaired(document: Document, long_s: str) -> Document | Reject:
    return repair(document, long_s=long_s)  # type: ignore[arg-type]


def _documents_of(raw: RawFile, counts: dict[str, StepCounts]) -> Iterator[Document | Reject]:
    """Yield what the readers find; a reader that fails gives a `step_failed` reject for the rest of the file."""
    count = counts.setdefault("read", StepCounts())
    found = _read(raw)
    while True:
        begun = time.process_time()
        try:
            item = next(found, None)
        except Exception as error:
            text = raw.bytes.decode("utf-8", "replace")
            item = Reject(raw.origin, "read", "step_failed", failure(error), text, 0, len(text))
            found = _nothing()
        count.seconds += time.process_time() - begun
        if item is None:
            return
        characters = len(item.text)
        count.documents_in += 1
        count.characters_in += characters
        if isinstance(item, Reject):
            count.documents_rejected += 1
            count.characters_rejected += characters
        else:
            count.documents_out += 1
            count.characters_out += characters
        yield item


def _read(raw: RawFile) -> Iterator[Document | Reject]:
    yield from read(raw)


def _nothing() -> Iterator[Document | Reject]:
    yield from ()


def _through(item: Document | Reject, steps: dict[str, Step], counts: dict[str, StepCounts]) -> Document | Reject:
    """Return the document after all steps, or the reject of the step that dropped it."""
    for name, step in steps.items():
        if isinstance(item, Reject):
            return item
        count = counts.setdefault(name, StepCounts())
        begun = time.process_time()
        after = _guarded(name, step, item)
        count.seconds += time.process_time() - begun
        count.note(item, after)
        item = after
    return item


def _guarded(name: str, step: Step, document: Document) -> Document | Reject:
    try:
        result = step(document)
    except Exception as error:
        return reject(document, name, "step_failed", failure(error))
    if isinstance(result, Document) and not result.blocks:
        return reject(document, name, "no_text", f"nothing was left after {name}")
    return result


def failure(error: BaseException) -> str:
    """Return an exception and where it came from, without the paths of this machine."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    trail = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__}: {error} (at {trail})"


def _work_row(document: Document, settings: CorpusSettings, counts: dict[str, StepCounts]) -> dict[str, Any]:
    begun = time.process_time()
    found = fingerprint(document.text, settings.near_duplicates)
    counts.setdefault("near duplicates", StepCounts()).seconds += time.process_time() - begun
    group = document.group or f"{document.origin.source}:{replace(document.origin, record='').address}"
    return {**document_row(replace(document, group=group)), "exact": found.exact, "bands": found.bands}


def _write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
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


def _row_groups(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        part.append(row)
        size += len(row["text"])
        if size >= ROW_GROUP_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
