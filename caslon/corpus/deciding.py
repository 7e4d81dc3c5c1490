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
from itertools import pairwise
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
    shingles_of_text,
    similar_pairs,
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
        sizes = judged.numbers("shingles", np.int64)
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
    return lambda number: shingles_of_text(judged.value(number, "text"), size)


def _index(judged: DocumentColumns, entries: Iterable[SourceEntry], settings: CorpusSettings) -> Index:
    """Return the numbers that copies are found by; the signatures lie in a file."""
    count = len(judged)
    near = settings.near_duplicates
    priority_of = {entry.id: PRIORITIES[entry.priority] for entry in entries}
    sources, source_of = judged.codes("source")
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
        priorities=np.array([priority_of[name] for name in sources], dtype=np.uint8)[source_of],
        scores=judged.numbers("score", np.float64),
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
    sizes = judged.numbers("characters", np.int64)
    sizes[list(gone)] = 0
    names, sources = judged.codes("source")
    totals = {name: int(sizes[sources == code].sum()) for code, name in enumerate(names)}
    present = {source: size for source, size in totals.items() if size}
    if not present or len(present) * max_share < 1:
        return set(), f"max_share = {max_share:g} cannot be met by {len(present)} sources and is ignored"
    allowed = _allowed(present, max_share)
    over = np.array([allowed.get(name, 0) < totals[name] for name in names], dtype=np.bool_)[sources]
    keys = _keys_of_ids(judged, over)
    kept: Counter[int] = Counter()
    aside = set()
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    for number in order[over[order] & (sizes[order] > 0)].tolist():
        source, size = int(sources[number]), int(sizes[number])
        if kept[source] + size > allowed[names[source]]:
            aside.add(number)
        else:
            kept[source] += size
    return aside, ""


def _keys_of_ids(judged: DocumentColumns, wanted: NDArray[np.bool_]) -> Hashes:
    """Return half of the SHA-256 of the wanted documents' ids as two numbers `[N, 2]`; zeros for the others."""
    keys = np.zeros((len(judged), 2), dtype=np.uint64)
    for number, identifier in enumerate(judged.column("id")):
        if wanted[number]:
            keys[number] = np.frombuffer(sha256(identifier.encode()).digest()[:16], dtype=">u8")
    return keys


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
    names, codes = judged.codes("source")
    found: dict[str, list[Hashes]] = {}
    for hashes, numbers in _portions(judged, "lines", gone):
        sources = codes[numbers]
        for code in np.flatnonzero(np.bincount(sources)):
            values, counts = np.unique(hashes[sources == code], return_counts=True)
            if len(repeated := values[counts >= minimum]):
                found.setdefault(names[code], []).append(repeated)
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
        hashes, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for start, table in judged.tables(name):
            values, of_document = _hashes(start, table, name)
            wanted = ~leaving[of_document] & (values % np.uint64(portions) == portion)
            hashes.append(values[wanted])
            numbers.append(of_document[wanted])
        yield np.concatenate(hashes), np.concatenate(numbers)


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
    named = _names_of(judged, {duplicate.kept for duplicate in copies.duplicates.values()})
    surplus_reason = f"its source would be more than {settings.max_share:.0%} of the corpus"

    def gone(number: int) -> Gone | None:
        if number in aside:
            return Gone("source_surplus", surplus_reason)
        duplicate = copies.duplicates.get(number)
        return _gone_for(duplicate, *named[duplicate.kept]) if duplicate else None

    for start, end, summary in zip(judged.starts, judged.starts[1:], judged.summaries, strict=False):
        inside = range(start, end)
        yield Decision(
            summary.number,
            summary.digest,
            {number - start: found for number in inside if (found := gone(number))},
            {number - start: paragraphs[number] for number in inside if number in paragraphs},
        )


def _names_of(judged: DocumentColumns, numbers: set[int]) -> dict[int, tuple[str, str]]:
    """Return id and address of some documents, in one pass over the batches that hold them."""
    ordered = sorted(numbers)
    found = {}
    position = 0
    for (start, end), summary in zip(pairwise(judged.starts), judged.summaries, strict=True):
        inside = position
        while position < len(ordered) and ordered[position] < end:
            position += 1
        if inside < position:
            table = judged.table(summary.number, "id", "path", "member", "record")
            places = [number - start for number in ordered[inside:position]]
            for number, row in zip(ordered[inside:position], table.take(places).to_pylist(), strict=True):
                found[number] = row["id"], Origin("", row["path"], row["member"], row["record"]).address
    return found


def _gone_for(duplicate: Duplicate, kept: str, address: str) -> Gone:
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
    keys = judged.numbers("group_key", np.uint64)
    kept = _kept_numbers(judged, finished)
    groups = Groups()
    for number, duplicate in copies.duplicates.items():
        groups.join(int(keys[number]), int(keys[duplicate.kept]))
    by_copies = len(copies.duplicates)
    by_segments = _join_equal_segments(judged, segments, keys, groups)
    by_likeness = _join_alike(judged, copies, kept, keys, groups, settings)
    joined, place_of, sizes = np.unique(groups.roots(keys[kept]), return_inverse=True, return_counts=True)
    positions = _positions(judged, keys, joined)
    chosen = split_groups(dict(zip(joined.tolist(), positions.tolist(), strict=True)), settings.split)
    codes = np.fromiter((SPLITS.index(chosen[group]) for group in joined.tolist()), dtype=np.uint8, count=len(joined))
    of_document = np.full(len(judged), NO_SPLIT, dtype=np.uint8)
    of_document[kept] = codes[place_of]
    return Splits(
        of_document,
        len(joined),
        by_copies,
        by_segments,
        by_likeness,
        int(sizes.max()) / len(kept) if len(kept) else 0.0,
    )


def _positions(judged: DocumentColumns, keys: Hashes, groups: Hashes) -> NDArray[np.float64]:
    """Return the place of each of some groups: that of any document with its key."""
    order = np.argsort(keys, kind="stable")
    return judged.numbers("group_position", np.float64)[order[np.searchsorted(keys[order], groups)]]


def _kept_numbers(judged: DocumentColumns, finished: DocumentColumns) -> Numbers:
    """Return the number among the judged documents of every finished one."""
    parts = [
        judged.starts[place] + table["order"].to_numpy() for place, (_, table) in enumerate(finished.tables("order"))
    ]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)


def _join_equal_segments(judged: DocumentColumns, segments: DocumentColumns, keys: Hashes, groups: Groups) -> int:
    total = sum(len(table) for _, table in segments.tables("order"))
    portions = np.uint64(total // HASHES_AT_A_TIME + 1)
    return sum(
        _joined(groups, keys, first, second)
        for portion in range(int(portions))
        for first, second in _equal_segments(judged, segments, portions, np.uint64(portion))
    )


def _equal_segments(
    judged: DocumentColumns, segments: DocumentColumns, portions: np.uint64, portion: np.uint64
) -> Iterator[tuple[int, int]]:
    """Yield the documents of each two equal segments whose hash falls into a portion of all hashes."""
    texts, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for place, (_, table) in enumerate(segments.tables("text_key", "order")):
        keys = table["text_key"].to_numpy()
        wanted = keys % portions == portion
        texts.append(keys[wanted])
        numbers.append(judged.starts[place] + table["order"].to_numpy()[wanted])
    text, number = np.concatenate(texts), np.concatenate(numbers)
    order = np.argsort(text, kind="stable")
    text, number = text[order], number[order]
    again = np.flatnonzero(text[1:] == text[:-1])
    yield from zip(number[again].tolist(), number[again + 1].tolist(), strict=True)


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
