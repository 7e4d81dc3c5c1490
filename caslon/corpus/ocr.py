"""OCR repair: turns words that a machine misread into the words they were, where a word list leaves no doubt.

Confusions: inside a word 0/o, 1/l/i, 5/s, 8/b; rn/m, cl/d, ii/n, vv/w; a long s read as f. A word is changed only when it is not
in the list, what it becomes is, and it is no number, money, ordinal, Roman numeral or code; never across white space. Misread
letters (not digits) are put right only where a document shows several, because a name looks just like a single one.
Every change is kept with its place, so that `without_ocr_edits` gives the text back.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import combinations, pairwise, product

from caslon.corpus.document import Document
from caslon.corpus.edit_map import Edit, applied, undone
from caslon.corpus.lexicon import SPELLING, Lexicon

CONFUSIONS = {
    "0": ("o",), "1": ("l", "i"), "5": ("s",), "8": ("b",),
    "rn": ("m",), "m": ("rn",), "cl": ("d",), "d": ("cl",), "ii": ("n",), "n": ("ii",), "vv": ("w",), "w": ("vv",),
    "l": ("i",), "i": ("l",), "f": ("s",),
}  # fmt: skip
TOKEN = re.compile(r"\S+")
PIECE = re.compile(r"\w+")
SITE = re.compile(r"(?=(rn|cl|ii|vv|[0158mdnwlif]))")
DIGIT = re.compile(r"\d")
CODE = re.compile(r"[/\\@=#<>{}|_~^$%+*]|\w\.\w|\d\W\d|\d{3}|\d\w*\d{2}|\d{2}\w*\d")
NUMBER = re.compile(r"\d+|[li]?\d*[lsd]|\d+(?:[a-z]{1,2}|dly|thly)|[a-z]{1,2}\d+|[xvi]+\d+|\d+[xvi]+")  # in lower case
ROMAN_NUMERAL = re.compile(r"m*(?:cm|cd|d?c{0,4})(?:xc|xl|l?x{0,4})(?:ix|iv|v?i{0,4}j?)")  # in lower case
INNER_DIGIT = re.compile(r"(?<=[^\W\d])\d{1,2}(?=[^\W\d])")
MINIMUM_CHARACTERS = {True: 3, False: 4}  # of a word with, and without, a digit
MAXIMUM_CHARACTERS = 30
MAXIMUM_SITES = 4  # misread places in one word
MAXIMUM_CANDIDATES = 300
CLEAR_RATIO = 8  # of two words that are equally near, the commoner has to be so many times as common
WHOLE_RATIO = 1000  # and than what is left without a digit at the word's edge
SEVERAL = 3  # words with misread letters ...
SEVERAL_SHARE = 0.005  # ... in so many words show that a text was read by a machine; and, be they few, ...
PLAIN_SHARE = 0.02  # ... this share does
CACHED_TOKENS = 400_000


def repair_ocr(document: Document, lexicon: Lexicon, *, apply: bool) -> Document:
    """Return the document with its misread words put right, or, without `apply`, only counted.

    `metadata["ocr_suspects"]` is how many words look misread, `metadata["ocr_edits"]` lists `[block, offset, before, after]` of
    those that were changed; offsets are characters of the block's text before. Nothing is noted where nothing was found.
    """
    if document.tier == "code":
        return document
    found = _suspects(document, _judge(lexicon))
    if not found:
        return document
    metadata = {**document.metadata, "ocr_suspects": sum(map(len, found.values()))}
    if not apply:
        return replace(document, metadata=metadata)
    if not _is_machine_read(document, found):
        found = {number: [edit for edit in edits if DIGIT.search(edit.before)] for number, edits in found.items()}
    rows = [[number, edit.offset, edit.before, edit.after] for number, edits in found.items() for edit in edits]
    if not rows:
        return replace(document, metadata=metadata)
    blocks = tuple(
        replace(block, text=applied(block.text, found[number])) if found.get(number) else block
        for number, block in enumerate(document.blocks)
    )
    return replace(document, blocks=blocks, metadata={**metadata, "ocr_edits": rows})


def without_ocr_edits(document: Document) -> Document:
    """Return the document as it was before `repair_ocr` changed it; its blocks must be the ones that were repaired."""
    edits: dict[int, list[Edit]] = {}
    for number, *edit in document.metadata.get("ocr_edits", ()):
        edits.setdefault(number, []).append(Edit(*edit))
    blocks = tuple(
        replace(block, text=undone(block.text, edits[number])) if number in edits else block
        for number, block in enumerate(document.blocks)
    )
    metadata = {key: value for key, value in document.metadata.items() if key != "ocr_edits"}
    return replace(document, blocks=blocks, metadata=metadata)


def _suspects(document: Document, judge: "_Judge") -> dict[int, list[Edit]]:
    """Return the changes that could be made, by block."""
    found = {}
    for number, block in enumerate(document.blocks):
        if judge.has_suspects(block.text):
            found[number] = [
                replace(edit, offset=match.start() + edit.offset)
                for match in TOKEN.finditer(block.text)
                for edit in judge.edits(match.group())
            ]
    return found


def _is_machine_read(document: Document, found: dict[int, list[Edit]]) -> bool:
    suspects = sum(map(len, found.values()))
    words = sum(len(block.text.split()) for block in document.blocks)
    return suspects >= PLAIN_SHARE * words or suspects >= max(SEVERAL, SEVERAL_SHARE * words)


@lru_cache(maxsize=2)
def _judge(lexicon: Lexicon) -> "_Judge":
    return _Judge(lexicon)


class _Judge:
    """Judges each distinct token once: texts repeat theirs, and few are unknown."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        self._sound: set[str] = set()
        self._edits: dict[str, tuple[Edit, ...]] = {}

    def has_suspects(self, text: str) -> bool:
        """Return whether any token of the text could be changed."""
        return any(map(self.edits, set(text.split()).difference(self._sound)))

    def edits(self, token: str) -> tuple[Edit, ...]:
        """Return the changes that would make a token's words known ones."""
        if token in self._sound:
            return ()
        if token not in self._edits:
            edits = tuple(self._judged(token))
            if not edits:
                self._remember_sound(token)
                return ()
            if len(self._edits) >= CACHED_TOKENS:
                self._edits.clear()
            self._edits[token] = edits
        return self._edits[token]

    def _remember_sound(self, token: str) -> None:
        if len(self._sound) >= CACHED_TOKENS:
            self._sound.clear()
        self._sound.add(token)

    def _judged(self, token: str) -> Iterator[Edit]:
        if token.lower() in self._lexicon or CODE.search(token):
            return
        for match in PIECE.finditer(token):
            word = match.group()
            if self._may_be_misread(word):
                after = self._put_right(word)
                if after:
                    yield Edit(match.start(), word, after)

    def _may_be_misread(self, word: str) -> bool:
        has_digit = DIGIT.search(word) is not None
        if not MINIMUM_CHARACTERS[has_digit] <= len(word) <= MAXIMUM_CHARACTERS:
            return False
        spelled = word.translate(SPELLING).lower()
        if spelled in self._lexicon or NUMBER.fullmatch(spelled) or ROMAN_NUMERAL.fullmatch(spelled):
            return False
        if not has_digit:
            return word[1:].islower()
        rest = spelled.strip("0158")
        long_enough = len(rest) >= MINIMUM_CHARACTERS[True] and rest.isalpha()
        return _is_of_one_case(word) and (INNER_DIGIT.search(word) is not None or long_enough)

    def _put_right(self, word: str) -> str | None:
        """Return the word this one was, when one of the nearest candidates is by far the commonest."""
        for others in candidates(word.lower()):
            known = sorted({(-self._lexicon.count(other), other) for other in others if other in self._lexicon})
            if known:
                clear = len(known) == 1 or known[0][0] <= CLEAR_RATIO * known[1][0]
                return _in_case_of(word, known[0][1]) if clear and self._is_whole(word.lower(), -known[0][0]) else None
        return None

    def _is_whole(self, word: str, count: int) -> bool:
        """Return whether a digit at a word's edge belongs to it: it may be a note's number beside a word (see5, 5And)."""
        if INNER_DIGIT.search(word) or not DIGIT.search(word):
            return True
        return count >= WHOLE_RATIO * self._lexicon.count(word.strip("0158"))


def candidates(word: str) -> Iterator[list[str]]:
    """Yield what a word in lower case may have been: first with the fewest places misread, then with one more, and so on."""
    sites = [(match.start(), match.group(1)) for match in SITE.finditer(word)]
    must = {start for start, seen in sites if seen.isdigit()}
    if len(must) < sum(map(str.isdigit, word)):
        return
    made = 0
    for number in range(max(len(must), 1), MAXIMUM_SITES + 1):
        others: list[str] = []
        for chosen in combinations(sites, number):
            if must <= {start for start, _ in chosen} and _are_apart(chosen):
                others += _replaced(word, chosen)
        yield others
        made += len(others)
        if made > MAXIMUM_CANDIDATES:
            return


def _are_apart(sites: tuple[tuple[int, str], ...]) -> bool:
    return all(start + len(seen) <= after for (start, seen), (after, _) in pairwise(sites))


def _replaced(word: str, sites: tuple[tuple[int, str], ...]) -> Iterator[str]:
    for meant in product(*(CONFUSIONS[seen] for _, seen in sites)):
        parts, position = [], 0
        for (start, seen), after in zip(sites, meant, strict=True):
            parts += [word[position:start], after]
            position = start + len(seen)
        yield "".join([*parts, word[position:]])


def _is_of_one_case(word: str) -> bool:
    letters = DIGIT.sub("", word)
    return letters.islower() or letters.isupper() or letters[1:].islower()


def _in_case_of(word: str, other: str) -> str:
    letters = DIGIT.sub("", word)
    if letters.isupper() and len(letters) > 1:
        return other.upper()
    return other[:1].upper() + other[1:] if word[:1].isupper() else other
