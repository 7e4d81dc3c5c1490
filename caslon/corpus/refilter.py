"""The stored documents of a finished corpus back to the first phase of a build, so that new thresholds need no raw files.

A corpus keeps, in `read/`, every document as it was before it was judged, and in `dataset.json` a key of all that they depend on:
the raw files and the settings that reading obeys. A build with the same key starts from them.
"""

import json
from collections.abc import Iterator, Sequence
from heapq import merge
from pathlib import Path
from typing import Any

from caslon.corpus.collect import Store, source_paths
from caslon.corpus.phases.reading import PHASE, PLACED_DOCUMENTS, PLACED_REJECTS, WORD_COUNTS
from caslon.corpus.registry import SourceEntry
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import ROW_GROUP_BYTES, rows_of_file, shard_paths
from caslon.corpus.steps import StepCounts
from caslon.corpus.work import Summary, digest_of_parts, finish, finished
from caslon.folders import digest_of, sha256_of_file

READ_VERSION = 1  # raised when readers or normalisation give other documents
READ_STEPS = ("read", "forget", "repair")
READ_SETTINGS = (
    "sources", "roles", "only", "enable", "tier_of", "commercial_use", "maximum_files", "long_s", "forget", "limits",
)  # fmt: skip


def read_key(entries: Sequence[SourceEntry], settings: CorpusSettings, base: Path, store: Store | None = None) -> str:
    """Return the digest of everything that the documents before judging depend on."""
    values = settings.model_dump(mode="json")
    forget = sha256_of_file(base / settings.forget) if settings.forget else ""
    return digest_of(
        {
            "version": READ_VERSION,
            "settings": {name: values[name] for name in READ_SETTINGS},
            "forget": forget,
            "file_bytes": settings.collect.max_file_bytes,
            "raw": sorted((path.name, sha256_of_file(path)) for path in source_paths(entries, store)),
        }
    )


def stored_with_key(folders: Sequence[Path], key: str) -> Path | None:
    """Return the first of some corpus folders whose stored documents have this key, or None."""
    for folder in folders:
        dataset = folder / "dataset.json"
        if dataset.is_file() and json.loads(dataset.read_text(encoding="utf-8")).get("read_key") == key:
            return folder
    return None


def restore(corpus_folder: Path, work: Path) -> list[Summary]:
    """Write the stored documents of a corpus as finished batches of the first phase, and return their summaries."""
    stored = json.loads((corpus_folder / "dataset.json").read_text(encoding="utf-8"))
    counts = {name: StepCounts(**stored["steps"][name]) for name in READ_STEPS if name in stored["steps"]}
    facts: dict[str, Any] = {"raw_files": stored["raw_files"], "raw_bytes": stored["raw_bytes_of"]}
    summaries: list[Summary] = []
    for rows, rejects in _portions(corpus_folder):
        digest = digest_of_parts("restored", stored["dataset_id"], len(summaries))
        summaries.append(_restored(work, len(summaries), digest, rows, rejects, counts, facts))
        counts, facts = {}, {"raw_files": {}, "raw_bytes": {}}
    return summaries


def _restored(
    work: Path,
    number: int,
    digest: str,
    rows: list[dict[str, Any]],
    rejects: list[dict[str, Any]],
    counts: dict[str, StepCounts],
    facts: dict[str, Any],
) -> Summary:
    known = finished(work, PHASE, number, digest)
    if known:
        return known
    first = min(row["order"] for row in (*rows, *rejects)) if rows or rejects else 0
    return finish(
        work,
        PHASE,
        Summary(number, digest, len(rows), counts, {"rejects": len(rejects), **facts}),
        {
            "documents": ([{**row, "place": row["order"] - first} for row in rows], PLACED_DOCUMENTS),
            "rejects": ([{**row, "place": row["order"] - first} for row in rejects], PLACED_REJECTS),
            "words": ([], WORD_COUNTS),
        },
    )


def _portions(corpus_folder: Path) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Yield the stored documents and what reading dropped between them, in portions of about a row group's text."""
    documents = _rows(corpus_folder, "read")
    dropped = (row for row in _rows(corpus_folder, "rejects") if row["step"] in READ_STEPS)
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    size = 0
    for row in merge(documents, dropped, key=lambda row: int(row["order"])):
        (rejects if "code" in row else rows).append(row)
        size += len(row["text"])
        if size >= ROW_GROUP_BYTES:
            yield rows, rejects
            rows, rejects, size = [], [], 0
    yield rows, rejects


def _rows(corpus_folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    for path in shard_paths(corpus_folder, kind):
        yield from rows_of_file(path)
