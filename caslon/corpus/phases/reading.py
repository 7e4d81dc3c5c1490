"""Phase 1, a batch of raw files to documents: read with limits, normalised, not yet judged."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from caslon.corpus.batches import Batch
from caslon.corpus.collect import RawFile
from caslon.corpus.document import Document, Reject
from caslon.corpus.forget import Forget
from caslon.corpus.lexicon import word_counts
from caslon.corpus.read import raw_text
from caslon.corpus.read.limited import LimitedReader
from caslon.corpus.repair import repair
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import DOCUMENT_SCHEMA, REJECT_SCHEMA, document_row, reject_row
from caslon.corpus.steps import Step, StepCounts, failure, through
from caslon.corpus.work import Summary, finish, finished

PHASE = "read"
PLACE = pa.field("place", pa.int64())  # of a document or reject among all that its batch found
PLACED_DOCUMENTS = DOCUMENT_SCHEMA.append(PLACE)
PLACED_REJECTS = REJECT_SCHEMA.append(PLACE)
DECODED_TYPES = ("text", "markdown", "html", "tei", "xml", "python", "code")
BEGINNING_CHARACTERS = 700
SAMPLED_ONE_IN = 8
WORD_COUNTS = pa.schema([("word", pa.string()), ("count", pa.int64())])


@dataclass(frozen=True)
class ReadTask:
    """What phase 1 needs besides the batch."""

    settings: CorpusSettings
    work: Path
    base: Path  # where a relative path in the settings starts
    count_words: bool  # of texts that were not recognised optically, for the lexicon


@dataclass
class _Output:
    documents: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, StepCounts] = field(default_factory=dict)
    words: Counter[str] = field(default_factory=Counter)

    def add(self, item: Document | Reject) -> None:
        place = {"place": len(self.rejects) + len(self.documents)}
        if isinstance(item, Reject):
            self.rejects.append(reject_row(item) | place)
        else:
            self.documents.append(document_row(item) | place)


def read_batch(batch: Batch, task: ReadTask) -> Summary:
    """Return the summary of a batch whose documents and rejects are written, by this call or by an earlier one."""
    known = finished(task.work, PHASE, batch.number, batch.digest)
    if known:
        return known
    output = _Output()
    forget = Forget.load(task.base / task.settings.forget) if task.settings.forget else None
    steps = _steps(task.settings, forget)
    with LimitedReader(task.settings.limits) as reader:
        for raw in batch.raw_files:
            text = cache(partial(raw_text, raw))  # a file of many documents is decoded once
            for item in _documents_of(raw, reader, forget, output.counts):
                result = through(item, steps, output.counts) if isinstance(item, Document) else item
                if isinstance(result, Document) and _is_sampled(result):
                    result = _with_beginning(result, text)
                output.add(result)
                if task.count_words and isinstance(result, Document) and _is_clean(result):
                    output.words.update(word_counts(result.text))
    return _finish(batch, task, output)


def _finish(batch: Batch, task: ReadTask, output: _Output) -> Summary:
    raw_files: Counter[str] = Counter()
    raw_bytes: Counter[str] = Counter()
    for raw in batch.raw_files:
        raw_files[raw.source] += 1
        raw_bytes[raw.source] += len(raw.bytes)
    facts = {"rejects": len(output.rejects), "raw_files": dict(raw_files), "raw_bytes": dict(raw_bytes)}
    words = [{"word": word, "count": count} for word, count in sorted(output.words.items())]
    return finish(
        task.work,
        PHASE,
        Summary(batch.number, batch.digest, len(output.documents), output.counts, facts),
        {
            "documents": (output.documents, PLACED_DOCUMENTS),
            "rejects": (output.rejects, PLACED_REJECTS),
            "words": (words, WORD_COUNTS),
        },
    )


def _steps(settings: CorpusSettings, forget: Forget | None) -> dict[str, Step]:
    steps: dict[str, Step] = {"forget": forget.check} if forget else {}
    return {**steps, "repair": lambda document: repair(document, long_s=settings.long_s)}


def _is_clean(document: Document) -> bool:
    return not document.metadata.get("ocr") and document.tier != "code"


def _is_sampled(document: Document) -> bool:
    """Whether the report may show how the text began in its raw file: one in eight of those that are only decoded."""
    return document.metadata.get("type") in DECODED_TYPES and int(document.id[:8], 16) % SAMPLED_ONE_IN == 0


def _with_beginning(document: Document, text: Callable[[], str]) -> Document:
    start = min(block.start for block in document.blocks)
    begins = text()[start : start + BEGINNING_CHARACTERS]
    return replace(document, metadata={**document.metadata, "raw_begins": begins})


def _documents_of(
    raw: RawFile, reader: LimitedReader, forget: Forget | None, counts: dict[str, StepCounts]
) -> Iterator[Document | Reject]:
    """Yield what the reader finds; a reader that fails gives a `step_failed` reject for the rest of the file."""
    count = counts.setdefault("read", StepCounts())
    if forget and (forgotten := forget.check_raw(raw)):
        count.note_passed(0)
        counts.setdefault("forget", StepCounts()).note_reject(0)
        yield forgotten
        return
    found = _read(raw, reader)
    while True:
        begun = time.monotonic()
        item = next(found, None)
        count.seconds += time.monotonic() - begun
        if item is None:
            return
        if isinstance(item, Reject):
            count.note_reject(len(item.text))
        else:
            count.note_passed(len(item.text))
        yield item


def _read(raw: RawFile, reader: LimitedReader) -> Iterator[Document | Reject]:
    try:
        yield from reader.read(raw)
    except Exception as error:
        text = raw.bytes.decode("utf-8", "replace")
        yield Reject(raw.origin, "read", "step_failed", failure(error), text, 0, len(text))
