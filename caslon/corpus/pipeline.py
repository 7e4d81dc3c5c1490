"""Sources in, corpus folder out: read and clean in batches, find duplicates, split, cut into segments, write.

Memory stays bounded: documents wait in batch files, only numbers about them are held. Every phase gives the same bytes for
any number of workers and however often it was killed; finished batches are not redone.
"""

import heapq
import json
import shutil
import time
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from caslon.corpus.batches import (
    Batch,
    BatchSummary,
    StepCounts,
    batches,
    clean,
    documents_path,
    finished,
    rejects_path,
)
from caslon.corpus.collect import raw_files
from caslon.corpus.dedup import Duplicate, Groups, Index, Shingles, find_duplicates, shingles, words_of
from caslon.corpus.document import Document, Origin, Reject
from caslon.corpus.filters import reject
from caslon.corpus.registry import SourceEntry
from caslon.corpus.segments import segments_of
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import (
    DOCUMENT_SCHEMA,
    REJECT_SCHEMA,
    SEGMENT_SCHEMA,
    SPLITS,
    Segment,
    ShardWriter,
    document_of_row,
    document_row,
    reject_row,
    rows_of_file,
    segment_row,
)
from caslon.corpus.split import split_groups
from caslon.corpus.workers import available_cores, in_order
from caslon.errors import CaslonError
from caslon.folders import write_atomic
from caslon.observe.events import EventLog

WORK = "work"
DATASET_FILE = "dataset.json"
SMALL_CORPUS_BATCHES = 3  # fewer are done sooner than processes start
PRIORITIES = {"high": 0, "medium": 1, "low": 2}
CACHED_BATCHES = 4


@dataclass
class Totals:
    """The figures of a finished corpus."""

    dataset_id: str = ""
    documents: Counter[str] = field(default_factory=Counter)
    segments: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    text_bytes: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    raw_files: Counter[str] = field(default_factory=Counter)  # by source
    raw_bytes: int = 0
    groups: int = 0
    duplicate_clusters: int = 0
    steps: dict[str, StepCounts] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the totals that depend on the content alone: no times."""
        steps = {name: asdict(counts) for name, counts in self.steps.items()}
        for counts in steps.values():
            counts.pop("seconds")
        return {
            "dataset_id": self.dataset_id,
            "documents": sum(self.documents.values()),
            "segments": sum(self.segments.values()),
            "characters": sum(self.characters.values()),
            "text_bytes": sum(self.text_bytes.values()),
            "splits": {
                split: {
                    "documents": self.documents[split],
                    "segments": self.segments[split],
                    "characters": self.characters[split],
                    "text_bytes": self.text_bytes[split],
                }
                for split in SPLITS
            },
            "rejects": dict(sorted(self.rejects.items())),
            "raw_files": dict(sorted(self.raw_files.items())),
            "raw_bytes": self.raw_bytes,
            "groups": self.groups,
            "duplicate_clusters": self.duplicate_clusters,
            "steps": steps,
        }


def build(
    entries: Sequence[SourceEntry], settings: CorpusSettings, seed: int, folder: Path, events: EventLog
) -> Totals:
    """Write the corpus below `folder` and return its figures. Safe to kill and call again at any moment.

    The batch files stay below `folder/work` until `remove_work` is called.
    """
    entries = sorted(entries, key=lambda entry: entry.id)
    work = folder / WORK
    work.mkdir(parents=True, exist_ok=True)
    summaries = _clean_all(entries, settings, work, events)
    store = BatchStore(work, summaries)
    totals = Totals()
    for summary in summaries:
        totals.raw_files.update(summary.raw_files_per_source)
        totals.raw_bytes += summary.raw_bytes
        for name, counts in summary.counts.items():
            totals.steps.setdefault(name, StepCounts()).add(counts)
    duplicates = _duplicates(store, entries, settings, totals, events)
    _check_reject_share(store, duplicates, settings)
    splits = _splits(store, duplicates, settings, seed, totals)
    _write(store, duplicates, splits, settings, folder, totals, events)
    write_atomic(folder / DATASET_FILE, json.dumps(totals.to_json(), indent=2, sort_keys=True) + "\n")
    return totals


def remove_work(folder: Path) -> None:
    """Remove the batch files once everything that is made from them is written."""
    shutil.rmtree(folder / WORK, ignore_errors=True)


class BatchStore:
    """The batch files of all documents, numbered through from 0 in the order of reading."""

    def __init__(self, work: Path, summaries: Sequence[BatchSummary]) -> None:
        self.work, self.summaries = work, summaries
        self._starts = [0, *accumulate(summary.documents for summary in summaries)]
        self._held: OrderedDict[tuple[int, str], list[Any]] = OrderedDict()

    def __len__(self) -> int:
        return self._starts[-1]

    def column(self, name: str) -> Iterator[Any]:
        """Yield one column of all documents in order."""
        for summary in self.summaries:
            yield from self._values(summary.number, name)

    def value(self, number: int, name: str) -> Any:
        """Return one value of a document by its number, with the batches used last held in memory."""
        place = bisect_right(self._starts, number) - 1
        key = (place, name)
        if key not in self._held:
            self._held[key] = self._values(self.summaries[place].number, name)
            if len(self._held) > CACHED_BATCHES:
                self._held.popitem(last=False)
        self._held.move_to_end(key)
        return self._held[key][number - self._starts[place]]

    def address(self, number: int) -> str:
        """Return where a document came from."""
        return Origin("", *(self.value(number, name) for name in ("path", "member", "record"))).address

    def rows(self, batch: BatchSummary) -> Iterator[dict[str, Any]]:
        """Yield the rows of a batch's documents and rejects (these have a `code`) in the order they were found."""
        documents = rows_of_file(documents_path(self.work, batch.number), [*DOCUMENT_SCHEMA.names, "place"])
        rejects = rows_of_file(rejects_path(self.work, batch.number))
        yield from heapq.merge(documents, rejects, key=lambda row: int(row["place"]))

    def _values(self, batch: int, name: str) -> list[Any]:
        table = pq.read_table(documents_path(self.work, batch), columns=[name], use_threads=False)
        return list(table[name].to_pylist())


# --- reading and cleaning ----------------------------------------------------------------------------------------------


def _clean_all(
    entries: Sequence[SourceEntry], settings: CorpusSettings, work: Path, events: EventLog
) -> list[BatchSummary]:
    found = batches(raw_files(entries))
    first = list(islice(found, SMALL_CORPUS_BATCHES))
    workers = settings.workers or available_cores() if len(first) == SMALL_CORPUS_BATCHES else 1
    progress = _CleanProgress(events)
    summaries = []
    work_on = partial(_clean_or_keep, settings=settings, work=work)
    for summary in in_order(work_on, chain(first, found), workers):
        summaries.append(summary)
        progress.add(summary)
    progress.end()
    _remove_stray(work, len(summaries))
    return summaries


def _clean_or_keep(batch: Batch, settings: CorpusSettings, work: Path) -> BatchSummary:
    return finished(work, batch) or clean(batch, settings, work)


def _remove_stray(work: Path, batches_made: int) -> None:
    """Remove what an interrupted call with other cuts may have left, so that only this call's batches are read."""
    wanted = {path(work, number) for number in range(batches_made) for path in (documents_path, rejects_path)}
    for path in work.iterdir():
        if path not in wanted:
            with suppress(FileNotFoundError):
                path.unlink()


class _CleanProgress:
    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._begun = time.monotonic()
        self._files = self._documents = self._rejects = self._bytes = 0

    def add(self, summary: BatchSummary) -> None:
        self._files += summary.raw_files
        self._documents += summary.documents
        self._rejects += summary.rejects
        self._bytes += summary.raw_bytes
        seconds = max(time.monotonic() - self._begun, 1e-3)
        detail = (
            f"{self._documents:,} documents, {self._rejects:,} rejects, "
            f"{self._documents / seconds:,.0f} documents/s, {self._bytes / seconds / 1e6:.2f} MB/s"
        )
        self._events.progress("read and clean", self._files, 0, "files", detail)

    def end(self) -> None:
        self._events.progress(
            "read and clean",
            self._files,
            self._files,
            "files",
            f"{self._documents:,} documents, {self._rejects:,} rejects",
        )


# --- duplicates --------------------------------------------------------------------------------------------------------


def _duplicates(
    store: BatchStore,
    entries: Sequence[SourceEntry],
    settings: CorpusSettings,
    totals: Totals,
    events: EventLog,
) -> dict[int, Duplicate]:
    begun = time.process_time()
    near = settings.near_duplicates
    index = _index(store, entries, near.bands if near.enabled else 0)
    found = find_duplicates(index, lambda number: _shingles(store, number, near.shingle_words), near)
    totals.duplicate_clusters = len({duplicate.kept for duplicate in found.values()})
    seconds = time.process_time() - begun
    sizes = np.fromiter(store.column("characters"), dtype=np.int64, count=len(store))
    documents, characters = len(store), int(sizes.sum())
    fingerprints = totals.steps.pop("near duplicates", StepCounts())
    for name, exact in (("exact duplicates", True), ("near duplicates", False)):
        gone = [number for number, duplicate in found.items() if duplicate.exact == exact]
        lost = int(sizes[gone].sum()) if gone else 0
        totals.steps[name] = StepCounts(
            documents_in=documents,
            documents_out=documents - len(gone),
            documents_rejected=len(gone),
            characters_in=characters,
            characters_out=characters - lost,
            characters_rejected=lost,
            seconds=0.0 if exact else seconds + fingerprints.seconds,
        )
        documents, characters = documents - len(gone), characters - lost
    events.progress("find duplicates", len(store), len(store), "documents", f"{len(found):,} duplicates")
    return found


def _index(store: BatchStore, entries: Iterable[SourceEntry], bands: int) -> Index:
    """Return the numbers duplicates are found by; the band hashes lie in a file when there are many."""
    count = len(store)
    priority_of = {entry.id: PRIORITIES[entry.priority] for entry in entries}
    columns = np.lib.format.open_memmap(store.work / "bands.npy", mode="w+", dtype=np.uint64, shape=(bands, count))
    exact = np.empty((count, 2), dtype=np.uint64)
    for number, (key, packed) in enumerate(zip(store.column("exact"), store.column("bands"), strict=True)):
        exact[number] = np.frombuffer(key[:16], dtype="<u8")
        columns[:, number] = np.frombuffer(packed, dtype="<u8") if packed else 0
    return Index(
        ids=np.fromiter((int(identifier, 16) for identifier in store.column("id")), dtype=np.uint64, count=count),
        priorities=np.fromiter((priority_of[name] for name in store.column("source")), dtype=np.uint8, count=count),
        scores=np.fromiter(store.column("score"), dtype=np.float64, count=count),
        exact=exact,
        bands=columns,
    )


def _shingles(store: BatchStore, number: int, size: int) -> Shingles:
    return shingles(words_of(store.value(number, "text")), size)


def _check_reject_share(store: BatchStore, duplicates: dict[int, Duplicate], settings: CorpusSettings) -> None:
    dropped = sum(summary.rejects for summary in store.summaries) + len(duplicates)
    found = len(store) + sum(summary.rejects for summary in store.summaries)
    if found and dropped / found > settings.maximum_reject_share:
        raise CaslonError(
            f"{dropped:,} of {found:,} documents were rejected ({dropped / found:.0%})",
            where="corpus.maximum_reject_share",
            fix="look at the sources and thresholds, or raise the limit",
        )


# --- split and write ---------------------------------------------------------------------------------------------------


def _splits(
    store: BatchStore, duplicates: dict[int, Duplicate], settings: CorpusSettings, seed: int, totals: Totals
) -> dict[str, tuple[str, str]]:
    """Return `(joined group, split)` for each group: groups that hold copies of one text stay together."""
    groups = Groups()
    for number, duplicate in duplicates.items():
        groups.join(store.value(number, "group"), store.value(duplicate.kept, "group"))
    names = [group for number, group in enumerate(store.column("group")) if number not in duplicates]
    joined = {name: groups.find(name) for name in names}
    splits = split_groups(sorted(set(joined.values())), settings.split, seed)
    totals.groups = len(splits)
    return {name: (group, splits[group]) for name, group in joined.items()}


def _write(
    store: BatchStore,
    duplicates: dict[int, Duplicate],
    splits: dict[str, tuple[str, str]],
    settings: CorpusSettings,
    folder: Path,
    totals: Totals,
    events: EventLog,
) -> None:
    begun = time.process_time()
    output = _CorpusWriter(folder, totals)
    number = 0
    for batch in store.summaries:
        for row in store.rows(batch):
            if "code" in row:
                output.reject_row(row)
                continue
            document = document_of_row(row)
            if number in duplicates:
                output.reject_row(reject_row(_duplicate_reject(document, duplicates[number], store)))
            else:
                group, split = splits[document.group]
                output.document(replace(document, group=group), split, settings)
            number += 1
        events.progress("write", number, len(store), "documents")
    output.close()
    output.counts.seconds = time.process_time() - begun
    totals.steps["segments"] = output.counts


def _duplicate_reject(document: Document, duplicate: Duplicate, store: BatchStore) -> Reject:
    kept = store.value(duplicate.kept, "id")
    where = store.address(duplicate.kept)
    if duplicate.exact:
        found = reject(document, "duplicates", "exact_duplicate", f"the same text as {kept} ({where})")
    else:
        reason = f"{duplicate.jaccard:.1%} of its word runs are those of {kept} ({where})"
        found = reject(document, "duplicates", "near_duplicate", reason)
    evidence = {"kept": kept, "kept_address": where, "jaccard": round(duplicate.jaccard, 4), "cluster": kept}
    return replace(found, metadata={**found.metadata, **evidence})


class _CorpusWriter:
    """Writes documents, segments and rejects, counts them and digests what was written."""

    def __init__(self, folder: Path, totals: Totals) -> None:
        for name in ("documents", "segments", "rejects"):
            shutil.rmtree(folder / name, ignore_errors=True)
        self._documents = {split: ShardWriter(folder / "documents", split, DOCUMENT_SCHEMA) for split in SPLITS}
        self._segments = {split: ShardWriter(folder / "segments", split, SEGMENT_SCHEMA) for split in SPLITS}
        self._rejects = ShardWriter(folder / "rejects", "rejects", REJECT_SCHEMA)
        self._digest = sha256()
        self._totals = totals
        self.counts = StepCounts()

    def document(self, document: Document, split: str, settings: CorpusSettings) -> None:
        row = document_row(document)
        self._documents[split].write(row)
        self._totals.documents[split] += 1
        self._totals.characters[split] += row["characters"]
        self._totals.text_bytes[split] += len(row["text"].encode())
        self._digest.update(f"{split}\0{row['id']}\0{sha256(row['text'].encode()).hexdigest()}\n".encode())
        covered = 0
        self.counts.documents_in += 1
        self.counts.documents_out += 1
        self.counts.characters_in += row["characters"]
        for piece in segments_of(document, settings.segments):
            covered += len(piece.text)
            if isinstance(piece, Segment):
                self._segments[split].write(segment_row(piece))
                self._digest.update(f"{piece.start}:{piece.end}\n".encode())
                self._totals.segments[split] += 1
                self.counts.characters_out += len(piece.text)
            else:
                self.reject_row(reject_row(piece))
                self.counts.characters_rejected += len(piece.text)
        self.counts.characters_changed += row["characters"] - covered  # the white space between segments

    def reject_row(self, row: dict[str, Any]) -> None:
        self._rejects.write({name: row[name] for name in REJECT_SCHEMA.names})
        self._totals.rejects[row["code"]] += 1

    def close(self) -> None:
        for writer in (*self._documents.values(), *self._segments.values(), self._rejects):
            writer.close()
        self._totals.dataset_id = self._digest.hexdigest()
