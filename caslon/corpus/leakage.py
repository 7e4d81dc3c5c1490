"""Whether anything of the validation and test splits stands in the training split: the check after the corpus is written.

No group of texts and no segment may be on both sides; how many held-out segments share a run of 13 words with the training
text (the length used by Brown et al. 2020, arXiv:2005.14165, appendix C) is reported, since quotations are part of language.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from caslon.corpus.dedup import BEYOND_ASCII, distinct, stand_in
from caslon.corpus.part_hashes import part_hashes
from caslon.corpus.shards import SPLITS, rows_of_file, shard_paths
from caslon.corpus.workers import Workers
from caslon.errors import CaslonError
from caslon.observe.events import EventLog

RUN_WORDS = 13
SHARED_RUNS_WARNING = 0.05
TEXTS_AT_A_TIME = 256  # of the training split: their words lie in memory
HELD_OUT_SEGMENTS = 20_000  # more are not looked at one by one
SPACE = ord(" ")
MARKS_TO_SPACES = bytes(SPACE if code < 0x80 and not re.match(r"\w", chr(code)) else code for code in range(256))
WORD_BEGINS = np.uint64(256)

Hashes = NDArray[np.uint64]
RowGroup = tuple[Path, int]


@dataclass(frozen=True)
class Leakage:
    """What the splits share."""

    shared_groups: int
    shared_segments: int
    held_out_segments: int  # looked at
    with_shared_runs: int  # of these, share a run of 13 words with the training split

    @property
    def shared_run_share(self) -> float:
        """The share of held-out segments that share a run of 13 words with the training text."""
        return self.with_shared_runs / self.held_out_segments if self.held_out_segments else 0.0

    def warnings(self) -> Iterator[str]:
        """Yield what a person should know."""
        if self.shared_run_share > SHARED_RUNS_WARNING:
            yield (
                f"{self.shared_run_share:.1%} of the held-out segments share a run of {RUN_WORDS} words with the "
                "training text (quotations, formulas, reprinted passages)"
            )

    def check(self, folder: Path) -> None:
        """Raise `CaslonError` when a group or a segment stands on both sides."""
        if self.shared_groups or self.shared_segments:
            raise CaslonError(
                f"the splits leak: {self.shared_groups:,} groups and {self.shared_segments:,} segments stand in two splits",
                where=str(folder),
                fix="please report this with the recipe; the corpus must not be used for evaluation",
            )


def leakage(folder: Path, workers: Workers, events: EventLog) -> Leakage:
    """Return what the splits of a written corpus share."""
    held_out = SPLITS[1:]
    step = max(sum(_rows(folder, split) for split in held_out) // HELD_OUT_SEGMENTS, 1)
    texts = chain.from_iterable(_column(folder, "segments", split, "text") for split in held_out)
    runs = [_runs(_letters([text])) for text in islice(texts, None, None, step)]
    shared = _shared_with_train(folder, runs, workers, events)
    return Leakage(
        shared_groups=shared_values(folder, "documents", "group"),
        shared_segments=shared_values(folder, "segments", "text"),
        held_out_segments=len(runs),
        with_shared_runs=sum(bool(stand_in(run, shared).any()) for run in runs),
    )


def _shared_with_train(folder: Path, runs: Sequence[Hashes], workers: Workers, events: EventLog) -> Hashes:
    """Return the sorted hashes of the runs that stand in the training split too."""
    if not runs:
        return np.zeros(0, np.uint64)
    parts = list(_row_groups(folder, "train"))
    found = [np.zeros(0, np.uint64)]
    events.progress("check the splits", 0, len(parts), "parts")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        wanted = Path(place) / "runs.npy"  # read by all workers from one place in memory
        np.save(wanted, distinct(np.concatenate(runs)))
        for done, part in enumerate(workers.in_order(partial(_shared_runs, wanted=wanted), parts), 1):
            found.append(part)
            events.progress("check the splits", done, len(parts), "parts")
    return distinct(np.concatenate(found))


def _shared_runs(part: RowGroup, wanted: Path) -> Hashes:
    path, group = part
    with pq.ParquetFile(path) as file:
        texts = file.read_row_group(group, columns=["text"], use_threads=False)["text"].to_pylist()
    held_out = np.load(wanted, mmap_mode="r")
    found, letters = [np.zeros(0, np.uint64)], np.zeros(0, np.uint64)
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        letters = np.concatenate((_last_words(letters), _letters(texts[start : start + TEXTS_AT_A_TIME])))
        runs = distinct(_runs(letters))
        found.append(runs[stand_in(runs, held_out)])
    return distinct(np.concatenate(found))


def _letters(texts: Sequence[str]) -> Hashes:
    """Return the bytes of the words of texts in lower case, without punctuation; the first of each word is 256 more."""
    spaced = b" ".join(map(_spaced, texts)).translate(MARKS_TO_SPACES)
    characters = np.frombuffer(spaced, dtype=np.uint8)
    places = np.flatnonzero(characters != SPACE)
    letters = characters[places].astype(np.uint64)
    letters[:1] += WORD_BEGINS
    letters[1:] += (np.diff(places) > 1) * WORD_BEGINS
    return letters


def _spaced(text: str) -> bytes:
    folded = text.casefold()
    return (folded if folded.isascii() else BEYOND_ASCII.sub(" ", folded)).encode()


def _last_words(letters: Hashes) -> Hashes:
    """Return those of the last 12 words, with which runs may begin that end in the next text."""
    starts = np.flatnonzero(letters >= WORD_BEGINS)[1 - RUN_WORDS :]
    return letters[starts[0] :] if len(starts) else letters


def _runs(letters: Hashes) -> Hashes:
    """Return a hash of each run of 13 words, in order."""
    starts = np.flatnonzero(letters >= WORD_BEGINS)
    if len(starts) < RUN_WORDS:
        return np.zeros(0, np.uint64)
    ends = np.append(starts[RUN_WORDS:], len(letters))
    starts = starts[: len(ends)]
    return part_hashes(letters, starts, ends)


def _row_groups(folder: Path, split: str) -> Iterator[RowGroup]:
    for path in shard_paths(folder, "segments", split):
        with pq.ParquetFile(path) as file:
            yield from ((path, group) for group in range(file.num_row_groups))


def _rows(folder: Path, split: str) -> int:
    return sum(pq.read_metadata(path).num_rows for path in shard_paths(folder, "segments", split))


def _column(folder: Path, kind: str, split: str, name: str) -> Iterator[Any]:
    """Yield the values of a column with those of one row group in memory."""
    for path in shard_paths(folder, kind, split):
        yield from (row[name] for row in rows_of_file(path, [name]))


def shared_values(folder: Path, kind: str, name: str) -> int:
    """Return how many values of a column stand in two splits. Eight bytes of memory are used for each row."""
    parts = [
        distinct(np.fromiter(map(hash, _column(folder, kind, split, name)), dtype=np.int64).view(np.uint64))
        for split in SPLITS
    ]
    ordered = np.sort(np.concatenate(parts))
    return len(distinct(ordered[1:][ordered[1:] == ordered[:-1]]))
