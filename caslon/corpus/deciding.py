"""What only the whole corpus can tell: copies, repeated lines and paragraphs, sources that are too large, and the split.

Works on numbers about documents (columns of the phases' files), never on all texts at once. Hashes are counted in portions of
bounded size, so memory grows by some hundred bytes a document and by nothing else.
"""

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caslon.corpus.dedup import (
    Duplicate,
    Groups,
    Index,
    Shingles,
    contained_documents,
    find_duplicates,
    shingles,
    similar_pairs,
    words_of,
)
from caslon.corpus.document import Origin
from caslon.corpus.phases.finishing import Decision, Gone
from caslon.corpus.registry import SourceEntry
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import SPLITS
from caslon.corpus.split import split_groups
from caslon.corpus.work import DocumentColumns

PRIORITIES = {"high": 0, "medium": 1, "low": 2}
HASHES_AT_A_TIME = 32 << 20
NO_SPLIT = len(SPLITS)
LARGE_GROUP_SHARE = 0.2

Numbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Copies:
    """What was found about copies: the numbers behind it, who leaves for whom, and each document's rank."""

    index: Index
    duplicates: dict[int, Duplicate]
    ranks: Numbers


@dataclass(frozen=True)
class Splits:
    """The split of every judged document (`NO_SPLIT` for one that left) and what was joined to keep the splits apart."""

    of_document: NDArray[np.uint8]
    groups: int
    joined_by_copies: int
    joined_by_segments: int
    joined_by_likeness: int
    largest_group_share: float  # of the documents


def find_copies(judged: DocumentColumns, entries: Iterable[SourceEntry], settings: CorpusSettings) -> Copies:
    """Return the documents that leave because another one has their text, exactly or nearly."""
    index = _index(judged, entries, settings)
    near = settings.near_duplicates
    ranks = index.ranks()
    reader = shingle_reader(judged, near.shingle_words)
    duplicates = find_duplicates(index, reader, near)
    if near.enabled and near.contained:
        sketches = [
            np.array([] if number in duplicates else sketch, dtype=np.uint64)
            for number, sketch in enumerate(judged.column("sketch"))
        ]
        sizes = np.fromiter(judged.column("shingles"), dtype=np.int64, count=len(judged))
        contained = contained_documents(sketches, sizes, ranks, reader, near.contained)
        duplicates = {**_that_stay(duplicates, contained), **contained}
    return Copies(index, duplicates, ranks)


def _that_stay(duplicates: Mapping[int, Duplicate], contained: Mapping[int, Duplicate]) -> dict[int, Duplicate]:
    """Return the duplicates, each pointing to a document that stays: its kept one may have left as part of a larger one."""
    return {
        number: replace(found, kept=contained[found.kept].kept) if found.kept in contained else found
        for number, found in duplicates.items()
    }


def shingle_reader(judged: DocumentColumns, size: int) -> Callable[[int], Shingles]:
    """Return what reads a document's text again and gives its shingles."""
    return lambda number: shingles(words_of(judged.value(number, "text")), size)


def _index(judged: DocumentColumns, entries: Iterable[SourceEntry], settings: CorpusSettings) -> Index:
    """Return the numbers that copies are found by; the signatures lie in a file."""
    count = len(judged)
    near = settings.near_duplicates
    priority_of = {entry.id: PRIORITIES[entry.priority] for entry in entries}
    width = near.permutations if near.enabled else 0
    path = judged.work / "signatures.npy"
    signatures = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint32, shape=(count, width))
    _reserve(path)
    exact = np.empty((count, 2), dtype=np.uint64)
    for number, (key, packed) in enumerate(zip(judged.column("exact"), judged.column("signature"), strict=True)):
        exact[number] = np.frombuffer(key[:16], dtype="<u8")
        if packed:
            signatures[number] = np.frombuffer(packed, dtype="<u4")
    return Index(
        ids=np.fromiter((int(identifier, 16) for identifier in judged.column("id")), dtype=np.uint64, count=count),
        priorities=np.fromiter((priority_of[name] for name in judged.column("source")), dtype=np.uint8, count=count),
        scores=np.fromiter(judged.column("score"), dtype=np.float64, count=count),
        exact=exact,
        signatures=signatures,
    )


def _reserve(path: Path) -> None:
    """Take the disk space of a sparse file now: once it is mapped, a full disk would be a crash and no error."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


# --- sources that are too large ----------------------------------------------------------------------------------------


def surplus(judged: DocumentColumns, gone: Iterable[int], max_share: float) -> tuple[set[int], str]:
    """Return the documents to set aside so that no source is more than `max_share` of the characters, and a warning.

    Which of a source's documents go follows from their ids. When there are too few sources the limit is ignored.
    """
    sizes = np.fromiter(judged.column("characters"), dtype=np.int64, count=len(judged))
    sizes[list(gone)] = 0
    sources = list(judged.column("source"))
    totals: Counter[str] = Counter()
    for source, size in zip(sources, sizes.tolist(), strict=True):
        totals[source] += size
    present = {source: size for source, size in totals.items() if size}
    if not present or len(present) * max_share < 1:
        return set(), f"max_share = {max_share:g} cannot be met by {len(present)} sources and is ignored"
    allowed = _allowed(present, max_share)
    ids = list(judged.column("id"))
    kept: Counter[str] = Counter()
    aside = set()
    for number in sorted(range(len(judged)), key=lambda place: sha256(ids[place].encode()).digest()):
        source, size = sources[number], int(sizes[number])
        if size and kept[source] + size > allowed[source]:
            aside.add(number)
        kept[source] += size if number not in aside else 0
    return aside, ""


def _allowed(totals: Mapping[str, int], max_share: float) -> dict[str, float]:
    """Return the characters each source may keep: the largest corpus in which none is more than its share."""
    capped: set[str] = set()
    while True:
        free = sum(size for source, size in totals.items() if source not in capped)
        whole = free / (1 - len(capped) * max_share) if len(capped) * max_share < 1 else 0.0
        over = {source for source, size in totals.items() if source not in capped and size > max_share * whole}
        if not over or not whole:
            return {source: max_share * whole if source in capped else size for source, size in totals.items()}
        capped.add(max(over, key=lambda source: (totals[source], source)))


# --- repeated lines and paragraphs -------------------------------------------------------------------------------------


def repeated_lines(judged: DocumentColumns, gone: set[int], minimum: int) -> dict[str, Hashes]:
    """Return, by source, the sorted hashes of lines that stand in `minimum` or more of its documents."""
    names, codes = np.unique(np.array(list(judged.column("source")), dtype=object), return_inverse=True)
    found: dict[str, list[Hashes]] = {}
    for hashes, numbers in _portions(judged, "lines", gone):
        sources = codes[numbers]
        for code in np.unique(sources):
            values, counts = np.unique(hashes[sources == code], return_counts=True)
            if len(repeated := values[counts >= minimum]):
                found.setdefault(str(names[code]), []).append(repeated)
    return {name: np.sort(np.concatenate(parts)) for name, parts in sorted(found.items())}


def save_lines(path: Path, lines: Mapping[str, Hashes]) -> str:
    """Write repeated lines by source for the workers to read, and return their digest."""
    with io.BytesIO() as buffer:
        arrays: dict[str, Any] = dict(lines)
        np.savez(buffer, **arrays)
        path.write_bytes(buffer.getvalue())
    return sha256(b"".join(name.encode() + hashes.tobytes() for name, hashes in lines.items())).hexdigest()


def repeated_paragraphs(judged: DocumentColumns, gone: set[int], ranks: Numbers) -> dict[int, tuple[int, ...]]:
    """Return, by document, the hashes of paragraphs that stand in a document of better rank too."""
    found: dict[int, list[int]] = {}
    for hashes, numbers in _portions(judged, "paragraphs", gone):
        order = np.lexsort((ranks[numbers], hashes))
        ordered = hashes[order]
        again = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
        for number, value in zip(numbers[order][again].tolist(), ordered[again].tolist(), strict=True):
            found.setdefault(number, []).append(value)
    return {number: tuple(sorted(values)) for number, values in found.items()}


def _portions(judged: DocumentColumns, name: str, gone: set[int]) -> Iterator[tuple[Hashes, Numbers]]:
    """Yield `(hashes, document numbers)` of a list column in portions by hash: equal hashes are in one portion."""
    total = sum(len(table[name].combine_chunks().flatten()) for _, table in judged.tables(name))
    portions = total // HASHES_AT_A_TIME + 1
    leaving = np.zeros(len(judged), dtype=bool)
    leaving[list(gone)] = True
    for portion in range(portions):
        parts = [_hashes(start, table, name) for start, table in judged.tables(name)]
        hashes = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.uint64)])
        numbers = np.concatenate([part[1] for part in parts] or [np.zeros(0, np.int64)])
        wanted = ~leaving[numbers] & (hashes % np.uint64(portions) == portion)
        yield hashes[wanted], numbers[wanted]


def _hashes(start: int, table: Any, name: str) -> tuple[Hashes, Numbers]:
    column = table[name].combine_chunks()
    lengths = np.diff(column.offsets.to_numpy()) if len(column) else np.zeros(0, np.int64)
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.uint64)
    return values, np.repeat(np.arange(start, start + len(table), dtype=np.int64), lengths)


# --- decisions on batches ----------------------------------------------------------------------------------------------


def decisions(
    judged: DocumentColumns,
    copies: Copies,
    aside: set[int],
    paragraphs: Mapping[int, tuple[int, ...]],
    settings: CorpusSettings,
) -> Iterator[Decision]:
    """Yield what was decided for each batch, in order."""
    gone = {number: _gone_for(judged, duplicate) for number, duplicate in copies.duplicates.items()}
    for number in aside:
        reason = f"its source would be more than {settings.max_share:.0%} of the corpus"
        gone[number] = Gone("source_surplus", reason)
    for start, end, summary in zip(judged.starts, judged.starts[1:], judged.summaries, strict=False):
        inside = range(start, end)
        yield Decision(
            summary.number,
            summary.digest,
            {number - start: gone[number] for number in inside if number in gone},
            {number - start: paragraphs[number] for number in inside if number in paragraphs},
        )


def _gone_for(judged: DocumentColumns, duplicate: Duplicate) -> Gone:
    kept = judged.value(duplicate.kept, "id")
    address = Origin("", *(judged.value(duplicate.kept, name) for name in ("path", "member", "record"))).address
    evidence = {
        "kept": kept,
        "kept_address": address,
        "jaccard": round(duplicate.jaccard, 4),
        "cluster": kept,
    }
    if duplicate.contained:
        evidence["contained"] = round(duplicate.contained, 4)
        reason = f"{duplicate.contained:.1%} of its word runs stand in {kept} ({address}), which is larger"
        return Gone("near_duplicate", reason, evidence)
    if duplicate.exact:
        return Gone("exact_duplicate", f"the same text as {kept} ({address})", evidence)
    return Gone("near_duplicate", f"{duplicate.jaccard:.1%} of its word runs are those of {kept} ({address})", evidence)


# --- the split ---------------------------------------------------------------------------------------------------------


def split_documents(
    judged: DocumentColumns,
    finished: DocumentColumns,
    segments: DocumentColumns,
    copies: Copies,
    settings: CorpusSettings,
) -> Splits:
    """Return every document's split. Groups that share a text or a segment, or hold like documents, stay together."""
    keys = np.fromiter(judged.column("group_key"), dtype=np.uint64, count=len(judged))
    kept = _kept_numbers(judged, finished)
    groups = Groups()
    for number, duplicate in copies.duplicates.items():
        groups.join(int(keys[number]), int(keys[duplicate.kept]))
    by_copies = len(copies.duplicates)
    by_segments = _join_equal_segments(judged, segments, keys, groups)
    by_likeness = _join_alike(judged, copies, kept, keys, groups, settings)
    joined = [groups.find(int(key)) for key in keys[kept]]
    sizes = Counter(joined)
    position_of = dict(zip(keys.tolist(), judged.column("group_position"), strict=True))
    chosen = split_groups({group: position_of[group] for group in sorted(sizes)}, settings.split)
    of_document = np.full(len(judged), NO_SPLIT, dtype=np.uint8)
    of_document[kept] = [SPLITS.index(chosen[group]) for group in joined]
    return Splits(
        of_document,
        len(sizes),
        by_copies,
        by_segments,
        by_likeness,
        max(sizes.values()) / len(joined) if joined else 0.0,
    )


def _kept_numbers(judged: DocumentColumns, finished: DocumentColumns) -> Numbers:
    """Return the number among the judged documents of every finished one."""
    parts = [
        judged.starts[place] + table["order"].to_numpy() for place, (_, table) in enumerate(finished.tables("order"))
    ]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


def _join_equal_segments(judged: DocumentColumns, segments: DocumentColumns, keys: Hashes, groups: Groups) -> int:
    texts, numbers = [], []
    for place, (_, table) in enumerate(segments.tables("text_key", "order")):
        texts.append(table["text_key"].to_numpy())
        numbers.append(judged.starts[place] + table["order"].to_numpy())
    if not texts:
        return 0
    text, number = np.concatenate(texts), np.concatenate(numbers).astype(np.int64)
    order = np.argsort(text, kind="stable")
    text, number = text[order], number[order]
    again = np.flatnonzero(text[1:] == text[:-1])
    return sum(_joined(groups, keys, int(number[place]), int(number[place + 1])) for place in again)


def _join_alike(
    judged: DocumentColumns,
    copies: Copies,
    kept: Numbers,
    keys: Hashes,
    groups: Groups,
    settings: CorpusSettings,
) -> int:
    near = settings.near_duplicates
    if not near.enabled:
        return 0
    pairs = similar_pairs(
        copies.index,
        kept,
        shingle_reader(judged, near.shingle_words),
        near.jaccard,
        lambda first, second: groups.find(int(keys[first])) != groups.find(int(keys[second])),
    )
    return sum(_joined(groups, keys, first, second) for first, second in pairs)


def _joined(groups: Groups, keys: Sequence[int] | Hashes, first: int, second: int) -> bool:
    one, other = int(keys[first]), int(keys[second])
    if groups.find(one) == groups.find(other):
        return False
    groups.join(one, other)
    return True
