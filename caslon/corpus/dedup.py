"""Finding texts that are already there: exact copies by hash, near copies by MinHash, verified by counting.

The copy that stays is the one with the higher score, then of the source with the higher priority, then with the smaller id,
so the result does not depend on the order of reading. A document leaves only when its Jaccard similarity with a *kept*
document reaches the threshold; chains of similar texts therefore never remove what is unlike everything that stays.
Sources: Broder 1997 (shingles, MinHash); Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, chapter 3 (bands).
"""

import hashlib
import re
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caslon.corpus.settings import NearDuplicateSettings

WORD = re.compile(r"\w+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads words over all bits
MIX = np.uint64(0xBF58476D1CE4E5B9)  # the finaliser of splitmix64
MINHASH_SEED = 42
CACHED_SHINGLES = 20_000_000  # 160 MB

Shingles = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What duplicates are found by: the exact key (32 bytes) and one hash for each band (8 bytes each)."""

    exact: bytes
    bands: bytes


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return WORD.findall(text.casefold())


def exact_key(words: Iterable[str], text: str) -> bytes:
    """Return the SHA-256 of the case-folded text without punctuation and spaces (of the raw text when nothing is left)."""
    joined = "".join(words).replace("_", "")
    return hashlib.sha256((joined or text).encode("utf-8", "surrogatepass")).digest()


def shingles(words: list[str], size: int) -> Shingles:
    """Return the sorted distinct hashes of all runs of `size` words; a shorter text is one shingle."""
    import rensa

    if not words:
        return np.zeros(0, dtype=np.uint64)
    hashes = np.array(rensa.RMinHash.hash_token_sets([words])[0], dtype=np.uint64)
    size = min(size, len(hashes))
    count = len(hashes) - size + 1
    mixed = np.zeros(count, dtype=np.uint64)
    for offset in range(size):
        mixed = mixed * MULTIPLIER + hashes[offset : offset + count]
    mixed ^= mixed >> np.uint64(31)
    mixed *= MIX
    mixed ^= mixed >> np.uint64(29)
    return np.unique(mixed)


def band_hashes(shingle_hashes: Shingles, settings: NearDuplicateSettings) -> bytes:
    """Return one 64-bit hash for each band of the MinHash signature: equal bands make two documents candidates."""
    import rensa

    if not len(shingle_hashes):
        return b""
    offsets = np.array([0, len(shingle_hashes)], dtype=np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        shingle_hashes, offsets, settings.permutations, MINHASH_SEED
    )
    signature = np.array(matrix.to_rows()[0], dtype="<u4").reshape(settings.bands, -1)
    return b"".join(hashlib.blake2b(band.tobytes(), digest_size=8).digest() for band in signature)


def fingerprint(text: str, settings: NearDuplicateSettings) -> Fingerprint:
    """Return the fingerprint of a text."""
    words = words_of(text)
    bands = band_hashes(shingles(words, settings.shingle_words), settings) if settings.enabled else b""
    return Fingerprint(exact_key(words, text), bands)


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


@dataclass
class Index:
    """Columns of numbers, one row a document: all that has to be in memory to find duplicates."""

    ids: NDArray[np.uint64]
    priorities: NDArray[np.uint8]  # 0 is high
    scores: NDArray[np.float64]
    exact: NDArray[np.uint64]  # [N, 2]: half of the SHA-256, enough for 2^64 documents
    bands: NDArray[np.uint64]  # [bands, N]; may lie on disk; 0 for a document without words

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
    buckets_of = _shared_buckets(index, gone)
    kept_in: dict[tuple[int, int], list[int]] = defaultdict(list)
    cache = ShingleCache(shingles_of)
    leaving: dict[int, Duplicate] = {}
    for number in sorted(buckets_of, key=lambda candidate: int(ranks[candidate])):
        kept = {other for bucket in buckets_of[number] for other in kept_in[bucket]}
        found = _most_alike(number, sorted(kept, key=lambda other: int(ranks[other])), cache, settings.jaccard)
        if found:
            leaving[number] = found
            continue
        for bucket in buckets_of[number]:
            kept_in[bucket].append(number)
    return leaving


def _shared_buckets(index: Index, gone: set[int]) -> dict[int, list[tuple[int, int]]]:
    """Return the buckets (band, place in the band's sorted order) of each document that shares one with another."""
    buckets_of: dict[int, list[tuple[int, int]]] = defaultdict(list)
    present = np.array([number for number in range(len(index.ids)) if number not in gone], dtype=np.int64)
    for band in range(len(index.bands)):
        column = np.asarray(index.bands[band])[present]
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        same = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
        first = 0
        for position in np.flatnonzero(same):
            if position == 0 or not same[position - 1]:
                first = int(position)
                buckets_of[int(present[order[position]])].append((band, first))
            buckets_of[int(present[order[position + 1]])].append((band, first))
    return buckets_of


def _most_alike(number: int, others: list[int], cache: "ShingleCache", threshold: float) -> Duplicate | None:
    best: Duplicate | None = None
    for other in others:
        similarity = jaccard(cache.get(number), cache.get(other))
        if similarity >= threshold and (best is None or similarity > best.jaccard):
            best = Duplicate(other, similarity, exact=False)
    return best


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
    """Which groups belong together because their documents are copies of each other (union-find)."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def join(self, first: str, second: str) -> None:
        """Note that two groups must stay in one split."""
        one, other = self.find(first), self.find(second)
        if one != other:
            self._parent[max(one, other)] = min(one, other)

    def find(self, group: str) -> str:
        """Return the name of the joined group: the smallest of its members' names."""
        root = group
        while (above := self._parent.get(root, root)) != root:
            root = above
        while (above := self._parent.get(group, group)) != root:
            self._parent[group] = root
            group = above
        return root
