"""Word lists: turns texts into counts of their words, and counts into a list that tells a word from a misprint.

A word is a run of letters, with inner apostrophes and hyphens, in lower case and with a modern s. The list that ships holds
words and how often they were counted, no texts: it was made by `lexicon_build` from works printed or written in London from
1550 to 1850, so that `shew`, `publick` and `compleat` are words. Its counts are rounded down to a power of two.
"""

import gzip
import re
from collections import Counter
from collections.abc import KeysView, Mapping
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

from caslon.errors import UserError

WORD = re.compile(r"(?<!\w)[^\W\d_]+(?:['-][^\W\d_]+)*(?!\w)")
SPELLING = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "‑": "-", "‐": "-", "ſ": "s", "\u00ad": None})
LOWER_OR_SPACE = bytes(  # ASCII letters in lower case, what may stand in words and tokens as it is, all else a space
    code if code >= 0x80 or chr(code) in "'-_0123456789" else ord(chr(code).lower()) if chr(code).isalpha() else 0x20
    for code in range(256)
)
MINIMUM_COUNT = 5
LONGEST = 40  # characters of a word
CACHED_TOKENS = 200_000
HEADER = "# words and how often they were counted"
SHIPPED = "english_words.txt.gz"

_words_of_token: dict[str, tuple[str, ...]] = {}  # texts repeat their tokens, so each is taken apart once


def word_counts(text: str) -> Counter[str]:
    """Return how often each word stands in a text."""
    tokens = text.encode("utf-8", "replace").translate(LOWER_OR_SPACE).decode().split()
    counts: Counter[str] = Counter(tokens)
    others = [token for token in counts if not (token.isalpha() and token.isascii() and len(token) <= LONGEST)]
    for token in others:
        times = counts.pop(token)
        for word in _words_of_token.get(token) or _taken_apart(token):
            counts[word] += times
    return counts


def _taken_apart(token: str) -> tuple[str, ...]:
    spelled = token if token.isascii() else token.translate(SPELLING).lower()
    words = tuple(word for word in WORD.findall(spelled) if _is_word(word))
    if len(_words_of_token) >= CACHED_TOKENS:
        _words_of_token.clear()
    if len(token) <= LONGEST:
        _words_of_token[token] = words
    return words


def _is_word(word: str) -> bool:
    return len(word) <= LONGEST and word.replace("'", "").replace("-", "").isalpha()


class Lexicon:
    """Words and how often each was counted. Never changed once made."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = dict(counts)

    @classmethod
    def shipped(cls) -> "Lexicon":
        """Return the list that ships with the package; it is read once."""
        return _shipped()

    @classmethod
    def load(cls, path: Path) -> "Lexicon":
        """Return the list that `save` wrote. Raises `UserError` where the file is missing or is something else."""
        try:
            data = path.read_bytes()
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the word list: {error}", where=str(path)) from error
        return cls(_counts_of_lines(text, path))

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], minimum: int = MINIMUM_COUNT) -> "Lexicon":
        """Return the words that were counted at least `minimum` times."""
        return cls({word: times for word, times in counts.items() if times >= minimum})

    @property
    def words(self) -> KeysView[str]:
        """All words, in lower case."""
        return self._counts.keys()

    def __contains__(self, word: str) -> bool:
        return word in self._counts

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, word: str) -> int:
        """Return how often a word was counted; 0 for a word that is not in the list."""
        return self._counts.get(word, 0)

    def save(self, path: Path) -> None:
        """Write one word a line with its count, sorted; packed when the name ends in .gz. Equal lists give equal bytes."""
        lines = [HEADER, *(f"{word}\t{self._counts[word]}" for word in sorted(self._counts)), ""]
        data = "\n".join(lines).encode("utf-8")
        path.write_bytes(gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)


def merged(shipped: Lexicon, counted: Lexicon) -> Lexicon:
    """Return the words of both lists, their counts added."""
    counts = {word: shipped.count(word) for word in shipped.words}
    for word in counted.words:
        counts[word] = counts.get(word, 0) + counted.count(word)
    return Lexicon(counts)


@cache
def _shipped() -> Lexicon:
    with as_file(files("caslon.corpus").joinpath(SHIPPED)) as path:
        return Lexicon.load(path)


def _counts_of_lines(text: str, path: Path) -> dict[str, int]:
    lines = text.splitlines()
    if not lines or lines[0] != HEADER:
        raise UserError("this is not a word list", where=f"{path}:1", fix=f"its first line has to be '{HEADER}'")
    counts: dict[str, int] = {}
    for number, line in enumerate(lines[1:], start=2):
        word, _, times = line.partition("\t")
        if not word or not times.isdecimal():
            raise UserError(
                f"'{line[:60]}' is no word with a count",
                where=f"{path}:{number}",
                fix="write the word, a tab, its count",
            )
        counts[word] = int(times)
    return counts
