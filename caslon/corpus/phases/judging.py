"""Phase 2, documents as read to documents that may stay: repaired from OCR, judged by every filter, and fingerprinted."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from caslon.corpus.boilerplate import line_hashes, paragraph_hashes
from caslon.corpus.contamination import Contamination
from caslon.corpus.dedup import fingerprint
from caslon.corpus.document import Document, Reject
from caslon.corpus.filters import quality
from caslon.corpus.language import language
from caslon.corpus.lexicon import Lexicon
from caslon.corpus.ocr import repair_ocr
from caslon.corpus.period import period
from caslon.corpus.phases.reading import PHASE as READ_PHASE
from caslon.corpus.phases.reading import PLACED_DOCUMENTS, PLACED_REJECTS
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import document_of_row, document_row, reject_row, rows_of_file
from caslon.corpus.split import group_key, group_position
from caslon.corpus.steps import Step, StepCounts, through
from caslon.corpus.work import Summary, digest_of_parts, finish, finished, rows_path

PHASE = "judge"
JUDGED_DOCUMENTS = pa.schema(
    [
        *PLACED_DOCUMENTS,
        ("exact", pa.binary()),
        ("signature", pa.binary()),
        ("sketch", pa.list_(pa.uint64())),
        ("shingles", pa.int64()),
        ("lines", pa.list_(pa.uint64())),
        ("paragraphs", pa.list_(pa.uint64())),
        ("group_key", pa.uint64()),
        ("group_position", pa.float64()),
    ]
)


@dataclass(frozen=True)
class JudgeTask:
    """What phase 2 needs besides the number and digest of a batch that was read."""

    settings: CorpusSettings
    seed: int
    work: Path
    base: Path
    lexicon: Path
    lexicon_digest: str
    formulaic: frozenset[str]  # sources whose repeated wording is meant


def judge_batch(read: Summary, task: JudgeTask) -> Summary:
    """Return the summary of a batch whose documents are judged, by this call or by an earlier one."""
    digest = digest_of_parts(read.digest, task.lexicon_digest)
    known = finished(task.work, PHASE, read.number, digest)
    if known:
        return known
    steps = steps_of(task.settings, _lexicon(task.lexicon, task.lexicon_digest), task.base)
    counts = {name: StepCounts() for name in steps}
    documents: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    for row in rows_of_file(rows_path(task.work, READ_PHASE, read.number, "documents")):
        place = {"place": row["place"]}
        result = through(document_of_row(row), steps, counts)
        if isinstance(result, Reject):
            rejects.append(reject_row(result) | place)
        else:
            documents.append(_judged_row(result, task, counts) | place)
    return finish(
        task.work,
        PHASE,
        Summary(read.number, digest, len(documents), counts, {"rejects": len(rejects)}),
        {"documents": (documents, JUDGED_DOCUMENTS), "rejects": (rejects, PLACED_REJECTS)},
    )


def steps_of(settings: CorpusSettings, lexicon: Lexicon, base: Path) -> Mapping[str, Step]:
    """Return the steps every document takes after reading, in order."""
    steps: dict[str, Step] = {}
    if settings.ocr_repair != "off":
        steps["ocr"] = partial(_ocr, lexicon=lexicon, always=settings.ocr_repair == "apply")
    steps["language"] = partial(language, settings=settings, detector=settings.language_detector)
    steps["period"] = partial(period, settings=settings)
    steps["quality"] = partial(quality, settings=settings)
    if settings.decontaminate:
        steps["contamination"] = _contamination(tuple(base / name for name in settings.decontaminate)).reject_if_shared
    return steps


def _ocr(document: Document, lexicon: Lexicon, always: bool) -> Document:
    if document.tier == "code":
        return document
    return repair_ocr(document, lexicon, apply=always or bool(document.metadata.get("ocr")))


@cache
def _lexicon(path: Path, digest: str) -> Lexicon:
    del digest  # part of the key only
    return Lexicon.load(path)


@cache
def _contamination(files: tuple[Path, ...]) -> Contamination:
    return Contamination.load(files)


def _judged_row(document: Document, task: JudgeTask, counts: dict[str, StepCounts]) -> dict[str, Any]:
    begun = time.process_time()
    found = fingerprint(document.text, task.settings.near_duplicates)
    counts.setdefault("near duplicates", StepCounts()).seconds += time.process_time() - begun
    group = _group(document, task.settings)
    repeats = task.settings.boilerplate
    looked_at = repeats.enabled and (repeats.formulaic or document.origin.source not in task.formulaic)
    return {
        **document_row(replace(document, group=group)),
        "exact": found.exact,
        "signature": found.signature,
        "sketch": found.sketch if document.origin.source not in task.formulaic else found.sketch[:0],
        "shingles": found.shingles,
        "lines": line_hashes(document, repeats) if looked_at else [],
        "paragraphs": paragraph_hashes(document, repeats) if looked_at else [],
        "group_key": group_key(group),
        "group_position": group_position(group, task.seed),
    }


def _group(document: Document, settings: CorpusSettings) -> str:
    author = str(document.metadata.get("author") or "")
    if settings.split_by_author and author:
        return f"author:{' '.join(author.casefold().split())}"
    return document.group or f"{document.origin.source}:{replace(document.origin, record='').address}"
