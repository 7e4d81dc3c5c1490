"""Finding texts that are already there: exact copies by hash, near copies by MinHash, verified by counting.

The copy that stays is the one with the higher score, then of the source with the higher priority, then with the smaller id,
so the result does not depend on the order of reading. A document leaves only when its Jaccard similarity with a *kept*
document reaches the threshold; chains of similar texts therefore never remove what is unlike everything that stays.
Sources: Broder 1997 (shingles, MinHash); Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3 (bands).
"""

import hashlib
import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caslon.corpus.part_hashes import Hashes
from caslon.corpus.settings import NearDuplicateSettings
from caslon.corpus.text_words import hashes_of, text_words

BEYOND_ASCII = re.compile(r"[^\w\x00-\x7f]+")  # and no letter or digit
ASCII_MARKS = bytes(code for code in range(0x80) if not chr(code).isalnum())
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads words over all bits
MIX = np.uint64(0xBF58476D1CE4E5B9)  # the finaliser of splitmix64
MINHASH_SEED = 42
CACHED_SHINGLES = 20_000_000  # 160 MB
ROWS_OF_A_CHECK_BAND = 5
LARGE_BUCKET = 50
SKETCH_MODULUS = np.uint64(64)
COMMON_SHINGLE = 20  # documents that share a shingle beyond which it says nothing
FEWEST_SHARED = 3  # shingles of two sketches, to be looked at
SKETCH_MARGIN = 0.6  # of the wanted share, that a sketch must show
ESTIMATE_MARGIN = 0.15  # four standard deviations of an estimate from 128 permutations at 0.8

Shingles = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What duplicates are found by: the exact key (32 bytes), the MinHash signature (4 bytes for each permutation), a sketch.

    The sketch is the part of all shingles whose hash is divisible by `SKETCH_MODULUS`: two sketches share what two texts share,
    whatever their sizes (Broder 1997, section 3).
    """

    exact: bytes
    signature: bytes
    sketch: Shingles
    shingles: int  # how many there are


def exact_key(text: str) -> bytes:
    """Return the SHA-256 of the case-folded text without punctuation and spaces (of the raw text when nothing is left)."""
    folded = text.casefold()
    if not folded.isascii():
        folded = BEYOND_ASCII.sub("", folded)
    bare = folded.encode().translate(None, ASCII_MARKS)
    return hashlib.sha256(bare or text.encode("utf-8", "surrogatepass")).digest()


def shingles(words: list[str], size: int) -> Shingles:
    """Return the sorted distinct hashes of all runs of `size` words; fewer words are one shingle."""
    return _shingles(hashes_of(words), size) if words else np.zeros(0, dtype=np.uint64)


def shingles_of_text(text: str, size: int) -> Shingles:
    """Return the shingles of a text's words."""
    return _shingles(text_words(text).hashes, size)


def _shingles(hashes: Hashes, size: int) -> Shingles:
    size = min(size, len(hashes))
    if not size:
        return np.zeros(0, dtype=np.uint64)
    count = len(hashes) - size + 1
    mixed = np.zeros(count, dtype=np.uint64)
    for offset in range(size):
        mixed = mixed * MULTIPLIER + hashes[offset : offset + count]
    return distinct(_mixed(mixed))


def distinct(hashes: Shingles) -> Shingles:
    """Return the sorted distinct hashes. Takes a fiftieth of the time of numpy's `unique`, which puts them into a table first."""
    ordered = np.sort(hashes)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))] if len(ordered) else ordered


def stand_in(hashes: Shingles, ordered: Shingles) -> NDArray[np.bool_]:
    """Return which hashes stand in a sorted array. Quicker than numpy's `isin`, which sorts both together."""
    if not len(ordered):
        return np.zeros(len(hashes), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
    return np.asarray(ordered[places] == hashes, dtype=np.bool_)


def signature(shingle_hashes: Shingles, permutations: int) -> bytes:
    """Return the MinHash signature: for each permutation the least hash as four bytes; empty for a text without words."""
    import rensa

    if not len(shingle_hashes):
        return b""
    offsets = np.array([0, len(shingle_hashes)], dtype=np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(shingle_hashes, offsets, permutations, MINHASH_SEED)
    return np.array(matrix.to_rows()[0], dtype="<u4").tobytes()


def band_column(signatures: NDArray[np.uint32], band: int, bands: int) -> NDArray[np.uint64]:
    """Return one hash of the signatures `[N, permutations]` for a band; equal hashes make two documents candidates.

    Permutations that do not fill a whole band are left out. A signature of zeros (no words) has 0.
    """
    rows = signatures.shape[1] // bands
    part = np.asarray(signatures[:, band * rows : (band + 1) * rows])
    mixed = np.full(len(part), band + 1, dtype=np.uint64)
    for column in part.T:
        mixed = _mixed(mixed * MULTIPLIER + column.astype(np.uint64))
    mixed[~part.any(axis=1)] = 0
    return mixed


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    hashes = hashes ^ (hashes >> np.uint64(31))
    hashes *= MIX
    return hashes ^ (hashes >> np.uint64(29))


def fingerprint(text: str, settings: NearDuplicateSettings) -> Fingerprint:
    """Return the fingerprint of a text."""
    exact = exact_key(text)
    if not settings.enabled:
        return Fingerprint(exact, b"", np.zeros(0, dtype=np.uint64), 0)
    found = shingles_of_text(text, settings.shingle_words)
    sketch = found[found % SKETCH_MODULUS == 0] if settings.contained else found[:0]
    return Fingerprint(exact, signature(found, settings.permutations), sketch, len(found))


def jaccard(first: Shingles, second: Shingles) -> float:
    """Return the share of shingles two texts have in common: intersection over union of two sorted sets."""
    if not len(first) or not len(second):
        return 0.0
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A document that leaves: the number of the kept one and how alike they are (1.0 for exact copies)."""

    kept: int
    jaccard: float
    exact: bool
    contained: float = 0.0  # share of its shingles that the kept one has; 0 when it left for likeness


@dataclass
class Index:
    """Columns of numbers, one row a document: all that has to be in memory to find duplicates."""

    ids: NDArray[np.uint64]
    priorities: NDArray[np.uint8]  # 0 is high
    scores: NDArray[np.float64]
    exact: NDArray[np.uint64]  # [N, 2]: half of the SHA-256, enough for 2^64 documents
    signatures: NDArray[np.uint32]  # [N, permutations]; may lie on disk; zeros for a document without words

    def ranks(self) -> NDArray[np.int64]:
        """Return each document's place among all, the best copy first."""
        order = np.lexsort((self.ids, self.priorities, -self.scores))
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = np.arange(len(order))
        return ranks


def find_duplicates(
    index: Index, shingles_of: Callable[[int], Shingles], settings: NearDuplicateSettings
) -> dict[int, Duplicate]:
    """Return the documents that leave, by number. `shingles_of` reads a document's text again when a pair is verified."""
    ranks = index.ranks()
    leaving = _exact_duplicates(index, ranks)
    if settings.enabled:
        leaving.update(_near_duplicates(index, ranks, set(leaving), shingles_of, settings))
    return leaving


def _exact_duplicates(index: Index, ranks: NDArray[np.int64]) -> dict[int, Duplicate]:
    leaving = {}
    order = np.lexsort((ranks, index.exact[:, 1], index.exact[:, 0]))
    same = (index.exact[order[1:]] == index.exact[order[:-1]]).all(axis=1)
    kept = -1
    for position in np.flatnonzero(same):
        if position == 0 or not same[position - 1]:
            kept = int(order[position])
        leaving[int(order[position + 1])] = Duplicate(kept, 1.0, exact=True)
    return leaving


def _near_duplicates(
    index: Index,
    ranks: NDArray[np.int64],
    gone: set[int],
    shingles_of: Callable[[int], Shingles],
    settings: NearDuplicateSettings,
) -> dict[int, Duplicate]:
    """Go through the candidates from the best rank down; one that is like a kept document leaves."""
    present = np.array([number for number in range(len(index.ids)) if number not in gone], dtype=np.int64)
    buckets_of: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for band, bucket in _buckets(index.signatures, present, settings.bands):
        for number in bucket:
            buckets_of[number].append((band, bucket[0]))
    kept_in: dict[tuple[int, int], list[int]] = defaultdict(list)
    cache = ShingleCache(shingles_of)
    leaving: dict[int, Duplicate] = {}
    for number in sorted(buckets_of, key=lambda candidate: int(ranks[candidate])):
        kept = {other for name in buckets_of[number] for other in kept_in[name]}
        found = _most_alike(number, sorted(kept, key=lambda other: int(ranks[other])), cache, settings.jaccard)
        if found:
            leaving[number] = found
            continue
        for name in buckets_of[number]:
            kept_in[name].append(number)
    return leaving


def _buckets(signatures: NDArray[np.uint32], present: NDArray[np.int64], bands: int) -> Iterator[tuple[int, list[int]]]:
    """Yield `(band, documents)` for every two or more documents whose hash of a band is equal, in order of number."""
    for band in range(bands):
        column = band_column(signatures, band, bands)[present]
        order = np.argsort(column, kind="stable")
        for start, end in _equal_runs(column[order]):
            if column[order[start]]:
                yield band, present[order[start:end]].tolist()


def _equal_runs(ordered: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Yield where two or more equal values stand beside each other: `(first, one after the last)`."""
    borders = np.concatenate(([0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, [len(ordered)]))
    several = np.flatnonzero(np.diff(borders) > 1)
    yield from zip(borders[several].tolist(), borders[several + 1].tolist(), strict=True)


def similar_pairs(
    index: Index,
    present: NDArray[np.int64],
    shingles_of: Callable[[int], Shingles],
    threshold: float,
    apart: Callable[[int, int], bool],
) -> Iterator[tuple[int, int]]:
    """Yield pairs of documents at or above a Jaccard similarity that `find_duplicates` may have missed.

    More and narrower bands are used than for finding duplicates: at similarity 0.8 a pair is missed once in 50,000 times.
    Only pairs that are `apart` are looked at; in a large bucket each document is compared with the first ones only.
    """
    bands = max(index.signatures.shape[1] // ROWS_OF_A_CHECK_BAND, 1)
    cache = ShingleCache(shingles_of)
    seen: set[tuple[int, int]] = set()
    for _, bucket in _buckets(index.signatures, present, bands):
        for place, number in enumerate(bucket):
            for other in bucket[: min(place, LARGE_BUCKET)]:
                if (other, number) in seen or not apart(other, number):
                    continue
                seen.add((other, number))
                if _estimate(index.signatures, other, number) < threshold - ESTIMATE_MARGIN:
                    continue
                if jaccard(cache.get(other), cache.get(number)) >= threshold:
                    yield other, number


def _estimate(signatures: NDArray[np.uint32], first: int, second: int) -> float:
    return float((signatures[first] == signatures[second]).mean())


def _most_alike(number: int, others: list[int], cache: "ShingleCache", threshold: float) -> Duplicate | None:
    best: Duplicate | None = None
    for other in others:
        similarity = jaccard(cache.get(number), cache.get(other))
        if similarity >= threshold and (best is None or similarity > best.jaccard):
            best = Duplicate(other, similarity, exact=False)
    return best


def contained_documents(
    sketches: Sequence[Shingles],
    sizes: NDArray[np.int64],
    ranks: NDArray[np.int64],
    shingles_of: Callable[[int], Shingles],
    threshold: float,
) -> dict[int, Duplicate]:
    """Return the documents of whose shingles a share of `threshold` stands in one larger kept document.

    `sketches` are those of all documents; a document that must not take part has an empty one. `sizes` counts all shingles
    of a document. Candidates share shingles of their sketches, and are verified by counting all.
    """
    holders = _holders(sketches)
    cache = ShingleCache(shingles_of)
    leaving: dict[int, Duplicate] = {}
    order = sorted(range(len(sketches)), key=lambda number: (-int(sizes[number]), int(ranks[number])))
    place_of = {number: place for place, number in enumerate(order)}
    for number in order:
        shared: Counter[int] = Counter()
        for value in sketches[number].tolist():
            shared.update(other for other in holders.get(value, ()) if place_of[other] < place_of[number])
        for other, count in sorted(shared.items(), key=lambda item: (-item[1], int(ranks[item[0]]))):
            if count < max(FEWEST_SHARED, SKETCH_MARGIN * threshold * len(sketches[number])):
                break
            if other not in leaving and (found := _containment(cache.get(number), cache.get(other))) >= threshold:
                likeness = jaccard(cache.get(number), cache.get(other))
                leaving[number] = Duplicate(other, likeness, exact=False, contained=found)
                break
    return leaving


def _holders(sketches: Sequence[Shingles]) -> dict[int, list[int]]:
    """Return the documents that hold each shingle of the sketches, for shingles that two to twenty hold."""
    if not sketches:
        return {}
    values = np.concatenate(list(sketches))
    numbers = np.repeat(np.arange(len(sketches)), [len(sketch) for sketch in sketches])
    order = np.argsort(values, kind="stable")
    values, numbers = values[order], numbers[order]
    return {
        int(values[start]): numbers[start:end].tolist()
        for start, end in _equal_runs(values)
        if end - start <= COMMON_SHINGLE
    }


def _containment(part: Shingles, whole: Shingles) -> float:
    return len(np.intersect1d(part, whole, assume_unique=True)) / len(part) if len(part) else 0.0


class ShingleCache:
    """The shingles of the documents compared last, up to a fixed amount of memory."""

    def __init__(self, read: Callable[[int], Shingles], limit: int = CACHED_SHINGLES) -> None:
        self._read, self._limit, self._size = read, limit, 0
        self._held: OrderedDict[int, Shingles] = OrderedDict()

    def get(self, number: int) -> Shingles:
        """Return a document's shingles, from memory or read again."""
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        found = self._held[number] = self._read(number)
        self._size += len(found)
        while self._size > self._limit and len(self._held) > 1:
            _, dropped = self._held.popitem(last=False)
            self._size -= len(dropped)
        return found


class Groups:
    """Which groups, given as numbers, belong together because they hold copies of each other (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def join(self, first: int, second: int) -> None:
        """Note that two groups must stay in one split."""
        one, other = self.find(first), self.find(second)
        if one != other:
            self._parent[max(one, other)] = min(one, other)

    def find(self, group: int) -> int:
        """Return the joined group: the smallest of its members."""
        root = group
        while (above := self._parent.get(root, root)) != root:
            root = above
        while (above := self._parent.get(group, group)) != root:
            self._parent[group] = root
            group = above
        return root

    def roots(self, groups: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return the joined group of each of many groups."""
        members = np.sort(np.fromiter(self._parent, dtype=np.uint64, count=len(self._parent)))
        found = groups.copy()
        for place in np.flatnonzero(stand_in(groups, members)):
            found[place] = self.find(int(groups[place]))
        return found
