"""The words of a text as numbers: every distinct word is looked at once, and remembered, because texts repeat their words.

What the quality step has to know of a word (is it meaningful, does it hold signs of bad OCR, stems of advertisements) is packed
into one integer, so that a text's figures are sums over arrays. Words are what white space divides.
"""

import re
from collections import Counter
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

OUTER_PUNCTUATION = re.compile(r"^[\W_]+|[\W_]+$")
MEANINGFUL_WORD = re.compile(r"[^\W\d_]+(?:['’‘\-‑∣¦|][^\W\d_]+)*")
SHELL_SYMBOLS = re.compile(r"[$#@^~|\\<>{}`]{3}")
DIGITS_IN_WORD = re.compile(r"\d[A-Za-z]+\d")
SYMBOL_RUN = re.compile(r"[^\w\s]{10}")
# Gopher's hash and ellipsis, and marks that neither prose nor program text is full of; a run counts once.
SYMBOL = re.compile(r"(?:[#^~…\u00a6-\u00a9\u00ac\u00ae-\u00b1\u2190-\u23ff\u2500-\u2bff\ufffd\ue000-\uf8ff]|\.{3})+")
TRANSCRIBERS_MARKS = re.compile(r"[∣¦〈〉◊●•]|\[(?:\.{3}|…)\]")  # line-end hyphens, gaps and unread letters
STEMS = re.compile(  # of the phrases in advertisements.py
    r"publish|ready|press|subscriber|gratis|bound|printed|sew'?d|sewed|stitch|boards|novels|books|advertis|dedicated"
    r"|recommended|pr(?:ice|\.)|noster|church-?yard|stationer|corner|sold|edition|vols?\b|volume|parts|tome"
    r"|8vo|12mo|4to|octavo|quarto|duodecimo|added|prefix|annex|subjoin|author|written|cuts|copper|notes|preface"
)
STEMS_OF_TWO_WORDS = (("be", ("had",)), ("has", ("also",)), ("church", ("yard", "-yard")))
CACHED_WORDS = 400_000

# The integer of a word: flags, then 12 bits for the number of stems, then the number of symbols.
MEANINGFUL, SHELL, DIGITS, RUN = 1, 2, 4, 8
FIRST_HALVES, SECOND_HALVES = 4, 7  # shifts of three flags each
STEM_COUNT, SYMBOL_COUNT = 10, 22  # shifts
MOST_STEMS = (1 << (SYMBOL_COUNT - STEM_COUNT)) - 1


def is_meaningful(word: str) -> bool:
    """Return whether a word has more than two letters and nothing else but an inner apostrophe or hyphen."""
    bare = word if word.isalpha() else OUTER_PUNCTUATION.sub("", word)
    return len(bare) > 2 and (bare.isalpha() or MEANINGFUL_WORD.fullmatch(bare) is not None)


def _fact(word: str) -> int:
    lowered = word.lower()
    fact = MEANINGFUL * is_meaningful(word)
    if not word.isalpha():
        fact |= SHELL * (SHELL_SYMBOLS.search(word) is not None)
        fact |= DIGITS * (DIGITS_IN_WORD.search(word) is not None)
        fact |= RUN * (SYMBOL_RUN.search(word) is not None)
        fact |= len(SYMBOL.findall(TRANSCRIBERS_MARKS.sub("", word))) << SYMBOL_COUNT
    for bit, (first, second) in enumerate(STEMS_OF_TWO_WORDS):
        fact |= lowered.endswith(first) << (FIRST_HALVES + bit) | lowered.startswith(second) << (SECOND_HALVES + bit)
    return fact | min(len(STEMS.findall(lowered)), MOST_STEMS) << STEM_COUNT


class _Facts(dict[str, int]):
    """Facts of words that were seen before."""

    def __missing__(self, word: str) -> int:
        fact = self[word] = _fact(word)
        return fact


_facts = _Facts()


class TextWords:
    """A text's words in order, each also as the number of a distinct word."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = text.split()
        self._times = Counter(self.words)
        if len(_facts) > CACHED_WORDS:
            _facts.clear()

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def distinct(self) -> list[str]:
        """Each word once, in order of its first place."""
        return list(self._times)

    @cached_property
    def times(self) -> Numbers:
        """How often each distinct word stands in the text."""
        return np.fromiter(self._times.values(), dtype=np.int64, count=len(self._times))

    @cached_property
    def ids(self) -> Numbers:
        """For each word of the text, which of the distinct ones it is."""
        numbers = {word: number for number, word in enumerate(self._times)}
        return np.fromiter(map(numbers.__getitem__, self.words), dtype=np.int64, count=len(self.words))

    @cached_property
    def facts(self) -> Numbers:
        """What is known of each distinct word, packed."""
        return np.fromiter(map(_facts.__getitem__, self._times), dtype=np.int64, count=len(self._times))

    @cached_property
    def stems(self) -> Numbers:
        """How many stems of advertisements begin in each word of the text."""
        stems = ((self.facts >> STEM_COUNT) & MOST_STEMS)[self.ids]
        first, second = (self.facts >> FIRST_HALVES) & 7, (self.facts >> SECOND_HALVES) & 7
        stems[:-1] += (first[self.ids[:-1]] & second[self.ids[1:]]) != 0
        return stems

    @property
    def meaningful_ratio(self) -> float:
        """The share of meaningful words; 0 for a text without words."""
        return float((self.times * (self.facts & MEANINGFUL)).sum() / len(self)) if self.words else 0.0

    @property
    def symbols(self) -> int:
        """How many symbols, or runs of them, the text has."""
        return int((self.times * (self.facts >> SYMBOL_COUNT)).sum())

    def has(self, flag: int) -> bool:
        """Return whether any word carries the flag."""
        return bool((self.facts & flag).any())

    @property
    def top_3gram_share(self) -> float:
        """The share of characters that the most frequent run of three words makes up, when it occurs more than once."""
        if len(self.words) < 4:
            return 0.0
        runs = self._runs_of_three()
        ordered = np.sort(runs)
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        times = np.diff(np.append(starts, len(ordered)))
        most = int(times.max())
        if most < 2:
            return 0.0
        top = ordered[starts[times == most]]
        place = int((runs == top[0]).argmax() if len(top) == 1 else np.isin(runs, top).argmax())
        return min(1.0, most * sum(map(len, self.words[place : place + 3])) / len(self.text))

    def _runs_of_three(self) -> Numbers:
        """Return one number for each run of three words; equal runs have equal ones."""
        ids, size = self.ids, len(self._times)
        pairs = ids[:-1] * size + ids[1:]
        if size >= 1 << 21:  # three such numbers do not fit 63 bits
            pairs = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        return pairs[:-1] * size + ids[2:]
