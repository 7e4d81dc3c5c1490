"""Sources in, corpus folder out: read, judge, decide, finish, split, write, and check that nothing leaked between the splits.

Memory stays bounded: documents wait in the files of their batch, only numbers about them are held. Every phase gives the same
bytes for any number of workers and however often it was killed; finished batches are not redone.
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from caslon.corpus.batches import batches
from caslon.corpus.collect import Limits, Store, raw_files
from caslon.corpus.deciding import (
    LARGE_GROUP_SHARE,
    Copies,
    Splits,
    decisions,
    find_copies,
    repeated_lines,
    repeated_paragraphs,
    save_lines,
    split_documents,
    surplus,
)
from caslon.corpus.leakage import Leakage, leakage
from caslon.corpus.lexicon import Lexicon, merged
from caslon.corpus.phases.finishing import PHASE as FINISH_PHASE
from caslon.corpus.phases.finishing import Decision, FinishTask, finish_batch
from caslon.corpus.phases.judging import PHASE as JUDGE_PHASE
from caslon.corpus.phases.judging import JudgeTask, judge_batch
from caslon.corpus.phases.reading import PHASE as READ_PHASE
from caslon.corpus.phases.reading import ReadTask, read_batch
from caslon.corpus.refilter import read_key, restore, stored_with_key
from caslon.corpus.registry import SourceEntry
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import SPLITS
from caslon.corpus.steps import StepCounts, add_counts
from caslon.corpus.work import DocumentColumns, Summary, remove_stray, rows_path
from caslon.corpus.workers import Workers, available_cores
from caslon.corpus.writing import Written, write_corpus
from caslon.errors import CaslonError
from caslon.folders import sha256_of_file, write_atomic
from caslon.observe.events import EventLog

WORK = "work"
DATASET_FILE = "dataset.json"
SPLIT_COLUMNS = ("documents", "segments", "characters", "text_bytes")
LEXICON_FILE = "lexicon.txt"
SMALL_CORPUS_BATCHES = 3  # fewer are done sooner than processes start
RARE_WORDS_FROM = 5_000_000  # distinct words in memory; beyond, those seen once are forgotten


@dataclass
class Totals:
    """The figures of a finished corpus."""

    dataset_id: str = ""
    read_key: str = ""  # of what the documents before judging depend on
    documents: Counter[str] = field(default_factory=Counter)
    segments: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    text_bytes: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    raw_files: Counter[str] = field(default_factory=Counter)  # by source
    raw_bytes_of: Counter[str] = field(default_factory=Counter)  # by source
    groups: int = 0
    duplicate_clusters: int = 0
    joined: dict[str, int] = field(default_factory=dict)  # groups brought together, by what they share
    steps: dict[str, StepCounts] = field(default_factory=dict)
    leakage: Leakage | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def raw_bytes(self) -> int:
        """The bytes of all raw files."""
        return self.raw_bytes_of.total()

    def to_json(self) -> dict[str, Any]:
        """Return the totals that depend on the content alone: no times."""
        steps = {name: asdict(counts) for name, counts in self.steps.items()}
        for counts in steps.values():
            counts.pop("seconds")
        return {
            "dataset_id": self.dataset_id,
            "read_key": self.read_key,
            "documents": sum(self.documents.values()),
            "segments": sum(self.segments.values()),
            "characters": sum(self.characters.values()),
            "text_bytes": sum(self.text_bytes.values()),
            "splits": {split: {name: getattr(self, name)[split] for name in SPLIT_COLUMNS} for split in SPLITS},
            "rejects": dict(sorted(self.rejects.items())),
            "raw_files": dict(sorted(self.raw_files.items())),
            "raw_bytes": self.raw_bytes,
            "raw_bytes_of": dict(sorted(self.raw_bytes_of.items())),
            "groups": self.groups,
            "duplicate_clusters": self.duplicate_clusters,
            "joined_groups": self.joined,
            "forgotten": self.rejects["forgotten"],
            "leakage": asdict(self.leakage) if self.leakage else None,
            "warnings": self.warnings,
            "steps": steps,
            "order_of_steps": list(steps),
        }


def build(
    entries: Sequence[SourceEntry],
    settings: CorpusSettings,
    seed: int,
    folder: Path,
    events: EventLog,
    base: Path | None = None,
    store: Store | None = None,
    earlier: Sequence[Path] = (),
) -> Totals:
    """Write the corpus below `folder` and return its figures. Safe to kill and call again at any moment.

    Relative paths in the settings start at `base` (the working folder when None); `store` holds fetched files. When one of the
    `earlier` corpus folders holds the documents of the same raw files, read under the same settings, nothing is read again.
    The batch files stay below `folder/work` until `remove_work` is called.
    """
    entries = sorted(entries, key=lambda entry: entry.id)
    builder = _Builder(entries, settings, seed, folder, events, base or Path.cwd(), store)
    return builder.build(stored_with_key(earlier, builder.totals.read_key))


def stored_totals(folder: Path) -> Totals:
    """Return the figures of a corpus that was built before; times are not among them."""
    data = json.loads((folder / DATASET_FILE).read_text(encoding="utf-8"))
    splits = data["splits"]
    columns = {name: Counter({split: splits[split][name] for split in SPLITS}) for name in SPLIT_COLUMNS}
    return Totals(
        dataset_id=data["dataset_id"],
        read_key=data["read_key"],
        rejects=Counter(data["rejects"]),
        raw_files=Counter(data["raw_files"]),
        raw_bytes_of=Counter(data["raw_bytes_of"]),
        groups=data["groups"],
        duplicate_clusters=data["duplicate_clusters"],
        joined=data["joined_groups"],
        steps={
            name: StepCounts(**counts)
            for name, counts in ((name, data["steps"][name]) for name in data["order_of_steps"])
        },
        leakage=Leakage(**data["leakage"]) if data["leakage"] else None,
        warnings=data["warnings"],
        **columns,
    )


def remove_work(folder: Path) -> None:
    """Remove the batch files once everything that is made from them is written."""
    shutil.rmtree(folder / WORK, ignore_errors=True)


class _Builder:
    """The order of the phases, with what they share."""

    def __init__(
        self,
        entries: Sequence[SourceEntry],
        settings: CorpusSettings,
        seed: int,
        folder: Path,
        events: EventLog,
        base: Path,
        store: Store | None,
    ) -> None:
        self.entries, self.settings, self.seed, self.base, self.store = entries, settings, seed, base, store
        self.folder, self.work, self.events = folder, folder / WORK, events
        self.totals = Totals(read_key=read_key(entries, settings, base, store))

    def build(self, stored: Path | None) -> Totals:
        self.work.mkdir(parents=True, exist_ok=True)
        with Workers(self.settings.workers or available_cores(), self.settings.backend) as workers:
            if stored:
                self.events.note(f"the documents of {stored.name} are used again; no raw file is read")
            read = restore(stored, self.work) if stored else self._read(workers)
            lexicon = Lexicon.load(stored / LEXICON_FILE) if stored else self._lexicon(read)
            judged = DocumentColumns(self.work, JUDGE_PHASE, self._judge(read, lexicon, workers))
            copies, decided, lines_digest = self._decide(judged)
            done = self._finish(decided, lines_digest, workers)
            splits = self._split(judged, copies, done)
            self.events.progress("write", 0, len(judged), "documents")
            begun = time.process_time()
            self._count(read, judged.summaries, done, splits, write_corpus(self.folder, judged, splits))
            self.totals.steps["segments"].seconds += time.process_time() - begun
            self.events.progress("write", len(judged), len(judged), "documents")
            self._check_leakage(workers)
        write_atomic(self.folder / DATASET_FILE, json.dumps(self.totals.to_json(), indent=2, sort_keys=True) + "\n")
        return self.totals

    def _read(self, workers: Workers) -> list[Summary]:
        found = batches(raw_files(self.entries, self.store, Limits(file_bytes=self.settings.collect.max_file_bytes)))
        first = list(islice(found, SMALL_CORPUS_BATCHES))
        if len(first) < SMALL_CORPUS_BATCHES and workers.backend == "local":
            workers.count = 1
        task = ReadTask(self.settings, self.work, self.base, count_words=_any_ocr(self.entries))
        return self._phase(READ_PHASE, workers, partial(read_batch, task=task), chain(first, found), 0)

    def _judge(self, read: Sequence[Summary], lexicon: Lexicon, workers: Workers) -> list[Summary]:
        path = self.folder / LEXICON_FILE
        lexicon.save(path)
        formulaic = frozenset(entry.id for entry in self.entries if entry.formulaic)
        task = JudgeTask(self.settings, self.seed, self.work, self.base, path, sha256_of_file(path), formulaic)
        return self._phase(JUDGE_PHASE, workers, partial(judge_batch, task=task), read, len(read))

    def _lexicon(self, read: Sequence[Summary]) -> Lexicon:
        """Return the shipped words and those that the clean sources use."""
        counts: Counter[str] = Counter()
        for summary in read:
            table = pq.read_table(rows_path(self.work, READ_PHASE, summary.number, "words"), use_threads=False)
            for word, count in zip(table["word"].to_pylist(), table["count"].to_pylist(), strict=True):
                counts[word] += count
            if len(counts) > RARE_WORDS_FROM:
                counts = Counter({word: count for word, count in counts.items() if count > 1})
        return merged(Lexicon.shipped(), Lexicon.from_counts(counts))

    def _decide(self, judged: DocumentColumns) -> tuple[Copies, Iterator[Decision], str]:
        settings = self.settings
        self.events.progress("find duplicates", 0, len(judged), "documents")
        copies = find_copies(judged, self.entries, settings)
        self.totals.duplicate_clusters = len({duplicate.kept for duplicate in copies.duplicates.values()})
        detail = f"{len(copies.duplicates):,} duplicates"
        self.events.progress("find duplicates", len(judged), len(judged), "documents", detail)
        aside: set[int] = set()
        if settings.max_share:
            aside, warning = surplus(judged, copies.duplicates, settings.max_share)
            self._warn(warning)
        gone = {*copies.duplicates, *aside}
        lines = repeated_lines(judged, gone, settings.boilerplate.minimum_documents)
        lines_digest = save_lines(self.work / "lines.npz", lines)
        paragraphs = repeated_paragraphs(judged, gone, copies.ranks)
        return copies, decisions(judged, copies, aside, paragraphs, settings), lines_digest

    def _finish(self, decided: Iterable[Decision], lines_digest: str, workers: Workers) -> list[Summary]:
        task = FinishTask(self.settings, self.work, self.work / "lines.npz", lines_digest)
        return self._phase(FINISH_PHASE, workers, partial(finish_batch, task=task), decided, 0)

    def _split(self, judged: DocumentColumns, copies: Copies, done: list[Summary]) -> Splits:
        finished = DocumentColumns(self.work, FINISH_PHASE, done)
        segments = DocumentColumns(self.work, FINISH_PHASE, done, "segments")
        splits = split_documents(judged, finished, segments, copies, self.settings)
        self.totals.groups = splits.groups
        self.totals.joined = {
            "copies": splits.joined_by_copies,
            "equal segments": splits.joined_by_segments,
            "likeness": splits.joined_by_likeness,
        }
        if splits.largest_group_share > LARGE_GROUP_SHARE:
            self._warn(
                f"one group of texts that share passages holds {splits.largest_group_share:.0%} of the documents: "
                "the shares of the splits cannot be met closely"
            )
        return splits

    def _phase(
        self,
        name: str,
        workers: Workers,
        function: Callable[[Any], Summary],
        tasks: Iterable[Any],
        total: int,
    ) -> list[Summary]:
        progress = _PhaseProgress(self.events, name, total)
        summaries = []
        for summary in workers.in_order(function, tasks):
            summaries.append(summary)
            progress.add(summary)
        progress.end()
        remove_stray(self.work, name, len(summaries))
        return summaries

    def _count(
        self,
        read: Sequence[Summary],
        judged: Sequence[Summary],
        done: Sequence[Summary],
        splits: Splits,
        written: Written,
    ) -> None:
        totals = self.totals
        for summary in read:
            totals.raw_files.update(summary.facts["raw_files"])
            totals.raw_bytes_of.update(summary.facts["raw_bytes"])
        near_seconds = 0.0
        for summaries in (read, judged, done):
            for summary in summaries:
                counts = dict(summary.counts)
                if summaries is judged:  # fingerprints are made here, what they find is counted later
                    near_seconds += counts.pop("near duplicates", StepCounts()).seconds
                add_counts(totals.steps, counts)
        for name in ("near duplicates", "segments"):
            totals.steps.setdefault(name, StepCounts())
        totals.steps["near duplicates"].seconds += near_seconds
        totals.documents, totals.segments = written.documents, written.segments
        totals.characters, totals.text_bytes = written.characters, written.text_bytes
        totals.rejects, totals.dataset_id = written.rejects, written.dataset_id
        self._check_reject_share()

    def _check_reject_share(self) -> None:
        dropped = self.totals.rejects.total() - self.totals.rejects["short_segment"]
        found = dropped + sum(self.totals.documents.values())
        if found and dropped / found > self.settings.maximum_reject_share:
            raise CaslonError(
                f"{dropped:,} of {found:,} documents were rejected ({dropped / found:.0%})",
                where="corpus.maximum_reject_share",
                fix="look at the sources and thresholds, or raise the limit",
            )

    def _check_leakage(self, workers: Workers) -> None:
        found = self.totals.leakage = leakage(self.folder, workers, self.events)
        for warning in found.warnings():
            self._warn(warning)
        found.check(self.folder)

    def _warn(self, text: str) -> None:
        if text:
            self.totals.warnings.append(text)
            self.events.warn(text)


def _any_ocr(entries: Iterable[SourceEntry]) -> bool:
    return any(entry.ocr or any(facts.get("ocr") for facts in entry.facts.values()) for entry in entries)


PHASE_NAMES = {READ_PHASE: "read", JUDGE_PHASE: "judge", FINISH_PHASE: "mask and cut"}


class _PhaseProgress:
    """Tells how far a phase is: by raw files while their number is not known, else by batches."""

    def __init__(self, events: EventLog, phase: str, total: int) -> None:
        self._events, self._phase, self._total = events, PHASE_NAMES[phase], total
        self._begun = time.monotonic()
        self._batches = self._documents = self._rejects = self._bytes = 0

    def add(self, summary: Summary) -> None:
        self._batches += 1
        self._documents += summary.documents
        self._rejects += summary.facts["rejects"]
        self._bytes += sum(summary.facts.get("raw_bytes", {}).values())
        self._events.progress(self._phase, self._batches, self._total, "batches", self._detail())

    def end(self) -> None:
        self._events.progress(self._phase, self._batches, self._batches, "batches", self._detail())

    def _detail(self) -> str:
        seconds = max(time.monotonic() - self._begun, 1e-3)
        speed = f", {self._bytes / seconds / 1e6:.2f} MB/s" if self._bytes else ""
        return f"{self._documents:,} documents, {self._rejects:,} rejects, {self._documents / seconds:,.0f} documents/s{speed}"
