"""Phase 3, judged documents to what is written: without duplicates and repeats, masked, cut into segments, with all rejects."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from hashlib import blake2b, sha256
from heapq import merge
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from caslon.corpus.boilerplate import without_repeats
from caslon.corpus.dedup import stand_in
from caslon.corpus.document import Document, Reject
from caslon.corpus.filters import reject
from caslon.corpus.phases.judging import PHASE as JUDGE_PHASE
from caslon.corpus.phases.reading import PHASE as READ_PHASE
from caslon.corpus.phases.reading import PLACE, PLACED_REJECTS
from caslon.corpus.privacy import privacy
from caslon.corpus.segments import segments_of
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import (
    DOCUMENT_SCHEMA,
    SEGMENT_SCHEMA,
    SIGNAL_SCHEMA,
    Segment,
    document_of_row,
    document_row,
    reject_row,
    rows_of_file,
    segment_row,
)
from caslon.corpus.steps import Step, StepCounts, through, with_removals
from caslon.corpus.work import Summary, digest_of_parts, finish, finished, rows_path

PHASE = "finish"
ORDER = pa.field("order", pa.int64())  # of a document among the judged ones of its batch
FINISHED_DOCUMENTS = pa.schema([*DOCUMENT_SCHEMA, ORDER, pa.field("digest", pa.binary())])
FINISHED_SEGMENTS = pa.schema([*SEGMENT_SCHEMA, ORDER, pa.field("text_key", pa.uint64())])
FINISHED_SIGNALS = SIGNAL_SCHEMA.append(PLACE)
DROPPING_STEPS = ("exact duplicates", "near duplicates", "source share")
STEP_OF_CODE = {
    "exact_duplicate": "exact duplicates",
    "near_duplicate": "near duplicates",
    "source_surplus": "source share",
}


@dataclass(frozen=True)
class Gone:
    """Why a document leaves that was good in itself."""

    code: str
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What the whole corpus means for one batch, by the order of its judged documents."""

    number: int
    judged_digest: str
    gone: Mapping[int, Gone]
    paragraphs: Mapping[int, tuple[int, ...]]  # hashes of paragraphs that stand in another document

    @property
    def digest(self) -> str:
        """What the batch's output depends on."""
        gone = sorted((order, one.code, one.reason) for order, one in self.gone.items())
        return digest_of_parts(self.judged_digest, gone, sorted(self.paragraphs.items()))


@dataclass(frozen=True)
class FinishTask:
    """What phase 3 needs besides the decision on a batch."""

    settings: CorpusSettings
    work: Path
    lines: Path  # of repeated lines by source
    lines_digest: str


@dataclass
class _Output:
    documents: list[dict[str, Any]] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, StepCounts] = field(default_factory=dict)


def finish_batch(decision: Decision, task: FinishTask) -> Summary:
    """Return the summary of a batch that is ready to be written, by this call or by an earlier one."""
    digest = digest_of_parts(decision.digest, task.lines_digest)
    known = finished(task.work, PHASE, decision.number, digest)
    if known:
        return known
    output = _Output()
    lines = repeated_lines(task.lines, task.lines_digest)
    path = rows_path(task.work, JUDGE_PHASE, decision.number, "documents")
    for order, row in enumerate(rows_of_file(path)):
        document = document_of_row(row)
        wanted = _repeats(row, lines.get(document.origin.source), decision.paragraphs.get(order, ()))
        result = _finished(document, decision.gone.get(order), last_steps(task.settings, *wanted), output.counts)
        _add(output, result, order, row["place"], task.settings)
    rejects = list(_all_rejects(output, task.work, decision.number))
    signals = [*output.signals, *_signals_of_rejects(task.work, decision.number)]
    signals.sort(key=lambda row: int(row["place"]))
    return finish(
        task.work,
        PHASE,
        Summary(decision.number, digest, len(output.documents), output.counts, {"rejects": len(rejects)}),
        {
            "documents": (output.documents, FINISHED_DOCUMENTS),
            "segments": (output.segments, FINISHED_SEGMENTS),
            "rejects": (rejects, PLACED_REJECTS),
            "signals": (signals, FINISHED_SIGNALS),
        },
    )


def last_steps(settings: CorpusSettings, lines: frozenset[int], paragraphs: frozenset[int]) -> dict[str, Step]:
    """Return the steps that a document takes once the whole corpus is known."""
    return {
        "boilerplate": partial(without_repeats, lines=lines, paragraphs=paragraphs, settings=settings.boilerplate),
        "privacy": partial(privacy, settings=settings.privacy),
    }


def document_digest(text: str, pieces: list[tuple[int, int]]) -> bytes:
    """Return what the dataset id knows of a document: its text and where it was cut."""
    return sha256(f"{sha256(text.encode()).hexdigest()}\n{pieces}".encode()).digest()


@cache
def repeated_lines(path: Path, digest: str) -> dict[str, np.ndarray[Any, np.dtype[np.uint64]]]:
    """Return the sorted hashes of a corpus's repeated lines by source."""
    del digest  # part of the key only
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _repeats(
    row: Mapping[str, Any], lines: np.ndarray[Any, np.dtype[np.uint64]] | None, paragraphs: tuple[int, ...]
) -> tuple[frozenset[int], frozenset[int]]:
    own = np.array(row["lines"], dtype=np.uint64)
    repeated = own[stand_in(own, lines)] if lines is not None and len(own) else own[:0]
    return frozenset(repeated.tolist()), frozenset(paragraphs)


def _finished(
    document: Document, gone: Gone | None, steps: Mapping[str, Step], counts: dict[str, StepCounts]
) -> Document | Reject:
    characters = len(document.text)
    for name in DROPPING_STEPS:
        count = counts.setdefault(name, StepCounts())
        if gone and STEP_OF_CODE[gone.code] == name:
            count.note_reject(characters)
            dropped = with_removals(reject(document, name, gone.code, gone.reason), document)
            return replace(dropped, metadata={**dropped.metadata, **gone.evidence})
        count.note_passed(characters)
    return through(document, steps, counts)


def _add(output: _Output, result: Document | Reject, order: int, place: int, settings: CorpusSettings) -> None:
    if isinstance(result, Reject):
        output.rejects.append(reject_row(result) | {"place": place})
        output.signals.append(_signal(reject_row(result), result.metadata, result.code) | {"place": place})
        return
    row = document_row(result)
    count = output.counts.setdefault("segments", StepCounts())
    count.documents_in += 1
    count.documents_out += 1
    count.characters_in += row["characters"]
    pieces: list[tuple[int, int]] = []
    covered = 0
    for piece in segments_of(result, settings.segments):
        if isinstance(piece, Segment):
            text_key = int.from_bytes(blake2b(piece.text.encode(), digest_size=8).digest())
            output.segments.append({**segment_row(piece), "order": order, "text_key": text_key})
            own = piece.end - max(piece.start, pieces[-1][1] if pieces else 0)
            pieces.append((piece.start, piece.end))
            count.characters_out += own
            covered += own
        else:
            output.rejects.append(reject_row(piece) | {"place": place})
            count.characters_rejected += len(piece.text)
            covered += len(piece.text)
    count.characters_changed += row["characters"] - covered  # the white space between segments
    output.documents.append({**row, "order": order, "digest": document_digest(row["text"], pieces)})
    output.signals.append(_signal(row, {"scores": result.scores}, "kept") | {"place": place})


def _all_rejects(output: _Output, work: Path, number: int) -> Iterator[dict[str, Any]]:
    earlier = (rows_of_file(rows_path(work, phase, number, "rejects")) for phase in (READ_PHASE, JUDGE_PHASE))
    yield from merge(*earlier, output.rejects, key=lambda row: int(row["place"]))


def _signals_of_rejects(work: Path, number: int) -> Iterator[dict[str, Any]]:
    for row in rows_of_file(rows_path(work, JUDGE_PHASE, number, "rejects")):
        yield _signal(row, json.loads(row["metadata"]), row["code"]) | {"place": row["place"]}


def _signal(row: Mapping[str, Any], facts: Mapping[str, Any], verdict: str) -> dict[str, Any]:
    return {
        "id": row["id"],
        "source": row["source"],
        "tier": row.get("tier") or facts.get("tier") or "",
        "year": row.get("year") or facts.get("year"),
        "verdict": verdict,
        "characters": row["characters"],
        "scores": sorted((name, float(value)) for name, value in facts.get("scores", {}).items()),
    }
