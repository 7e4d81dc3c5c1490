"""Learned merges and words to merges that make each word one token, inside the same number of entries.

Merges are appended after the learned ones. One of lower priority never acts before one of higher priority, so the text of every
other word is cut as before until no learned merge is left to do, and a word once whole stays whole. Room is made by
leaving out the last learned merges, which were the least useful ones.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

Merge = tuple[str, str]


class MergeRules:
    """Byte-pair merges by rank, as the library applies them: the earliest rule first, the leftmost place first."""

    def __init__(self, merges: Iterable[Merge], alphabet: Iterable[str]) -> None:
        self.ranks: dict[Merge, int] = {}
        self.entries = set(alphabet)
        for merge in merges:
            self.append(merge)

    def append(self, merge: Merge) -> None:
        """Add a rule of the lowest priority."""
        self.ranks.setdefault(merge, len(self.ranks))
        self.entries.add(merge[0] + merge[1])

    def applied(self, parts: Sequence[str]) -> tuple[str, ...]:
        """Return the parts after all rules that can act have acted."""
        left = list(parts)
        none = len(self.ranks)
        while len(left) > 1:
            rank, place = min((self.ranks.get((left[at], left[at + 1]), none), at) for at in range(len(left) - 1))
            if rank == none:
                break
            left[place : place + 2] = [left[place] + left[place + 1]]
        return tuple(left)


def with_guaranteed(
    merges: Sequence[Merge], alphabet: Sequence[str], words: Sequence[str], entries: int
) -> tuple[list[Merge], int]:
    """Return merges that make each word one entry, and the number of learned ones left out.

    Words are in byte symbols. At most `entries` entries come out, the alphabet included, and exactly that many when the
    learned merges alone would fill them. The caller has checked `least_entries`.
    """
    kept = len(merges)
    while True:
        rules = MergeRules(merges[:kept], alphabet)
        added = _missing(rules, words)
        excess = len(rules.entries) - entries
        if excess <= 0 or not kept:
            break
        kept = max(kept - excess, 0)
    filled = [*merges[:kept], *added]
    for merge in merges[kept:]:
        if len(rules.entries) >= entries:
            break
        if rules.entries.issuperset(merge) and merge not in rules.ranks:
            rules.append(merge)
            filled.append(merge)
    return filled, len(merges) - kept


def least_entries(alphabet: Sequence[str], words: Sequence[str]) -> int:
    """Return how many entries the alphabet and the words need when nothing else is learned."""
    rules = MergeRules([], alphabet)
    _missing(rules, words)
    return len(rules.entries)


def _missing(rules: MergeRules, words: Sequence[str]) -> list[Merge]:
    """Append to the rules what makes each word one entry, and return that: shared parts first, so that few entries are needed."""
    parts = {word: rules.applied(word) for word in words}
    pairs: Counter[Merge] = Counter()
    holders: defaultdict[Merge, set[str]] = defaultdict(set)
    for word, its_parts in parts.items():
        _count(pairs, holders, word, its_parts, 1)
    added: list[Merge] = []
    while pairs:
        merge = min(pairs, key=lambda pair: (pair[0] + pair[1] not in rules.entries, -pairs[pair], pair))
        rules.append(merge)
        added.append(merge)
        for word in sorted(holders[merge]):
            _count(pairs, holders, word, parts[word], -1)
            parts[word] = rules.applied(parts[word])
            _count(pairs, holders, word, parts[word], 1)
    return added


def _count(
    pairs: "Counter[Merge]", holders: defaultdict[Merge, set[str]], word: str, parts: Sequence[str], sign: int
) -> None:
    for pair in pairwise(parts):
        pairs[pair] += sign
        if sign > 0:
            holders[pair].add(word)
        else:
            holders[pair].discard(word)
        if not pairs[pair]:
            del pairs[pair]
