"""The words of a text as numbers: every distinct word is looked at once, and remembered, because texts repeat their words.

What the quality step has to know of a word (is it meaningful, does it hold signs of bad OCR, stems of advertisements) is packed
into one integer, so that a text's figures are sums over arrays. So are the hashes that near copies are found by. Words are what
white space divides; the numbers of a text stay in memory until another text comes, for several steps ask for them.
"""

import re
from array import array
from collections.abc import Iterator
from functools import cache, cached_property, lru_cache
from itertools import accumulate, chain

import numpy as np

from caslon.corpus.part_hashes import Hashes, Numbers, part_hashes

MEANINGFUL_WORD = re.compile(r"[\W_]*+([^\W\d_]++(?:['’‘\-‑∣¦|][^\W\d_]++)*+)[\W_]*+")
# A word of these has neither symbols nor digits, but for a row of full stops or a run of marks.
ORDINARY_WORD = re.compile(r"(?:[^\W\d]|['’‘“”\"(),;:.!?—-])++")
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
WORD = re.compile(r"\w+")
CAPITALS = re.compile("[A-Z]{5}")
ENDS = ",;:.!?"  # of words, one of which tells nothing about a word of letters
STEMS_OF_TWO_WORDS = (("be", ("had",)), ("has", ("also",)), ("church", ("yard", "-yard")))
CACHED_WORDS = 400_000
SPACE = ord(" ")
BLANKS_BEYOND_ASCII = re.compile(r"[^\S\x00-\x7f]")
BLANKS_TO_SPACES = bytes(SPACE if code < 0x80 and chr(code).isspace() else code for code in range(256))
PART_BYTES = 1 << 20
TABLE_BITS = 20
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads hashes over all bits

# The integer of a word: flags, then 12 bits for the number of stems, then the number of symbols.
MEANINGFUL, SHELL, DIGITS, RUN = 1, 2, 4, 8
FIRST_HALVES, SECOND_HALVES = 4, 7  # shifts of three flags each
FIVE_CAPITALS, ONE_LETTER = 1 << 10, 1 << 11
STEM_COUNT, SYMBOL_COUNT = 12, 24  # shifts
MOST_STEMS = (1 << (SYMBOL_COUNT - STEM_COUNT)) - 1


def is_meaningful(word: str) -> bool:
    """Return whether a word has more than two letters and nothing else but an inner apostrophe or hyphen."""
    found = MEANINGFUL_WORD.fullmatch(word)
    return found is not None and len(found[1]) > 2


def _fact(word: str) -> int:
    bare = word[:-1] if word[-1] in ENDS else word
    if bare.isalpha():
        fact = MEANINGFUL * (len(bare) > 2)
    else:
        fact = MEANINGFUL * is_meaningful(word) | RUN * (SYMBOL_RUN.search(word) is not None)
        if "..." in word or not ORDINARY_WORD.fullmatch(word):
            fact |= SHELL * (SHELL_SYMBOLS.search(word) is not None)
            fact |= DIGITS * (DIGITS_IN_WORD.search(word) is not None)
            fact |= len(SYMBOL.findall(TRANSCRIBERS_MARKS.sub("", word))) << SYMBOL_COUNT
    lowered = word.lower()
    if lowered != word:
        fact |= FIVE_CAPITALS * (CAPITALS.search(word) is not None)
    if len(word) == 1:
        fact |= ONE_LETTER * (word.isascii() and word.isalpha())
    for bit, (first, second) in enumerate(STEMS_OF_TWO_WORDS):
        fact |= lowered.endswith(first) << (FIRST_HALVES + bit) | lowered.startswith(second) << (SECOND_HALVES + bit)
    return fact | min(len(STEMS.findall(lowered)), MOST_STEMS) << STEM_COUNT


class _Vocabulary:
    """The words that were seen, each with its number; what is known of them stands in arrays, in the order of the numbers."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._facts, self._lengths = array("q"), array("q")
        self._hashes = array("Q")  # of the bare words in all words: "and/or" holds two
        self._first_hash, self._hash_count = array("q"), array("q")
        self._number_of: dict[int, int] = {}  # by the hash of a word
        self._keys = np.zeros(1 << TABLE_BITS, dtype=np.uint64)  # hashes seen last, each at the place that it names ...
        self._numbers = np.zeros(1 << TABLE_BITS, dtype=np.int64)  # ... and their numbers: quicker than the dictionary

    def __len__(self) -> int:
        return len(self._words)

    def ids(self, text: bytes, starts: Numbers, ends: Numbers, keys: Hashes) -> Numbers:
        """Return the numbers of words, given where they stand in a text and their hashes."""
        places = (keys * MULTIPLIER) >> np.uint64(64 - TABLE_BITS)
        ids: Numbers = self._numbers[places]
        unknown = np.flatnonzero(self._keys[places] != keys)
        found = zip(keys[unknown].tolist(), starts[unknown].tolist(), ends[unknown].tolist(), strict=True)
        ids[unknown] = [self._number(key, text, start, end) for key, start, end in found]
        self._keys[places[unknown]], self._numbers[places[unknown]] = keys[unknown], ids[unknown]
        return ids

    def _number(self, key: int, text: bytes, start: int, end: int) -> int:
        number = self._number_of.get(key)
        if number is None:
            number = self._number_of[key] = len(self._words)
            word = text[start:end].decode("utf-8", "surrogatepass")
            self._words.append(word)
            self._facts.append(_fact(word))
            self._lengths.append(len(word))
        return number

    def facts(self, ids: Numbers) -> Numbers:
        facts: Numbers = np.frombuffer(self._facts, dtype=np.int64)[ids]
        return facts

    def lengths(self, ids: Numbers) -> Numbers:
        lengths: Numbers = np.frombuffer(self._lengths, dtype=np.int64)[ids]
        return lengths

    def hashes(self, ids: Numbers) -> Hashes:
        """Return the hashes of what `words_of` finds in words, one word after another."""
        self._hash_new_words()
        counts = np.frombuffer(self._hash_count, dtype=np.int64)[ids]
        ends = np.cumsum(counts)
        shifts = np.frombuffer(self._first_hash, dtype=np.int64)[ids] - (ends - counts)
        places = np.repeat(shifts, counts) + np.arange(int(counts.sum()))
        hashes: Hashes = np.frombuffer(self._hashes, dtype=np.uint64)[places]
        return hashes

    def _hash_new_words(self) -> None:
        bare = [words_of(word) for word in self._words[len(self._hash_count) :]]
        counts = array("q", map(len, bare))
        self._first_hash.extend(accumulate(counts[:-1], initial=len(self._hashes)) if counts else ())
        self._hash_count.extend(counts)
        self._hashes.frombytes(hashes_of(list(chain.from_iterable(bare))).tobytes())


@cache
def _vocabulary() -> _Vocabulary:
    return _Vocabulary()


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation."""
    return WORD.findall(text.casefold())


def hashes_of(words: list[str]) -> Hashes:
    """Return a hash of each word."""
    import rensa

    return np.array(rensa.RMinHash.hash_token_sets([words])[0], dtype=np.uint64)


def _parts(text: str) -> Iterator[tuple[bytes, Numbers, Numbers, Hashes]]:
    """Yield a text in parts of about a megabyte, with the starts, ends and hashes of the words in each."""
    spaced = text if text.isascii() else BLANKS_BEYOND_ASCII.sub(" ", text)
    whole = spaced.encode("utf-8", "surrogatepass").translate(BLANKS_TO_SPACES) + b" "
    start = 0
    while start < len(whole):
        end = whole.find(b" ", start + PART_BYTES) + 1 or len(whole)
        part = whole[start:end]
        values = np.frombuffer(part, dtype=np.uint8)
        in_word = np.concatenate(([False], values != SPACE))
        starts, ends = np.flatnonzero(in_word[1:] > in_word[:-1]), np.flatnonzero(in_word[1:] < in_word[:-1])
        yield part, starts, ends, part_hashes(values + np.uint64(1), starts, ends)
        start = end


@lru_cache(maxsize=1)
def text_words(text: str) -> "TextWords":
    """Return the words of a text; those of the text before are forgotten."""
    return TextWords(text)


class TextWords:
    """A text's words in order, each also as a number; equal words have equal numbers."""

    def __init__(self, text: str) -> None:
        if len(_vocabulary()) > CACHED_WORDS:
            _vocabulary.cache_clear()
        self._vocabulary = _vocabulary()
        self.text = text
        self.ids = np.concatenate([self._vocabulary.ids(*part) for part in _parts(text)])

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def facts(self) -> Numbers:
        """What is known of each word, packed."""
        return self._vocabulary.facts(self.ids)

    @cached_property
    def lengths(self) -> Numbers:
        """The characters of each word."""
        return self._vocabulary.lengths(self.ids)

    @property
    def hashes(self) -> Hashes:
        """The hash of each word that `words_of` finds in the text."""
        return self._vocabulary.hashes(self.ids)

    @property
    def stems(self) -> Numbers:
        """How many stems of advertisements begin in each word of the text."""
        stems = (self.facts >> STEM_COUNT) & MOST_STEMS
        first, second = self.facts[:-1] >> FIRST_HALVES, self.facts[1:] >> SECOND_HALVES
        stems[:-1] += (first & second & 7) != 0
        return stems

    @property
    def meaningful_ratio(self) -> float:
        """The share of meaningful words; 0 for a text without words."""
        return float((self.facts & MEANINGFUL).sum() / len(self)) if len(self) else 0.0

    @property
    def symbols(self) -> int:
        """How many symbols, or runs of them, the text has."""
        return int((self.facts >> SYMBOL_COUNT).sum())

    def has(self, flag: int, in_a_row: int = 1) -> bool:
        """Return whether so many words in a row carry the flag."""
        carries = (self.facts & flag) != 0
        for _ in range(in_a_row - 1):
            carries = carries[1:] & carries[:-1]
        return bool(carries.any())

    @property
    def top_3gram_share(self) -> float:
        """The share of characters that the most frequent run of three words makes up, when it occurs more than once."""
        if len(self) < 4:
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
        return min(1.0, most * int(self.lengths[place : place + 3].sum()) / len(self.text))

    def _runs_of_three(self) -> Numbers:
        """Return one number for each run of three words; equal runs have equal ones."""
        ids, size = self.ids, int(self.ids.max()) + 1
        pairs = ids[:-1] * size + ids[1:]
        if size >= 1 << 21:  # three such numbers do not fit 63 bits
            pairs = np.unique(pairs, return_inverse=True)[1].astype(np.int64)
        runs: Numbers = pairs[:-1] * size + ids[2:]
        return runs
