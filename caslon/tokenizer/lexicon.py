"""A lexicon file to words that a tokenizer must hold as single tokens, each with its category, canonical form and source.

Built in is `london`: 145 words of English as London wrote it between 1500 and 1850. A file of the user's own has the same form:
`{"entries": [{"word": "thou", "category": "language", "canonical": "thou", "source": "..."}]}`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from caslon.errors import UserError

BUILT_IN = ("london",)
LONGEST_WORD_BYTES = 30  # with its space still inside the stretch a word-piece model looks at


@dataclass(frozen=True)
class Entry:
    """One word: lower case, letters only."""

    word: str
    category: str
    canonical: str  # as the word is written inside a sentence: `thou`, `London`
    source: str

    @property
    def capitalised(self) -> str:
        """The word with its first letter in upper case."""
        return self.word[0].upper() + self.word[1:]

    @property
    def forms(self) -> tuple[str, str, str, str]:
        """Lower case and capitalised, without and with the space before it."""
        return (self.word, self.capitalised, f" {self.word}", f" {self.capitalised}")


@dataclass(frozen=True)
class Lexicon:
    """Words in the order of their file. The one without entries is false."""

    name: str
    entries: tuple[Entry, ...]

    def __bool__(self) -> bool:
        return bool(self.entries)

    @property
    def forms(self) -> tuple[str, ...]:
        """Every form of every word, none twice."""
        return tuple(dict.fromkeys(form for entry in self.entries for form in entry.forms))


NO_LEXICON = Lexicon("", ())


def load_lexicon(name: str) -> Lexicon:
    """Return the built-in lexicon of that name, the one in a file, or for "" the one without entries.

    `UserError` for an unknown name, a file that cannot be read, and repeated or blank words or such as are not all letters.
    """
    if not name:
        return NO_LEXICON
    if name in BUILT_IN:
        text = resources.files("caslon.tokenizer").joinpath("lexicons", f"{name}.json").read_text(encoding="utf-8")
        return _parsed(text, name, name)
    path = Path(name)
    if not path.is_file():
        raise UserError(
            f"unknown lexicon {name!r}", fix=f"use {', '.join(BUILT_IN)}, the path of a lexicon file, or nothing"
        )
    return _parsed(path.read_text(encoding="utf-8"), path.stem, name)


def _parsed(text: str, name: str, where: str) -> Lexicon:
    try:
        rows = json.loads(text)["entries"]
        entries = tuple(_entry(row) for row in rows)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the lexicon cannot be read: {type(error).__name__}: {error}",
            where=where,
            fix='write {"entries": [{"word": "thou", "category": "language"}]}',
        ) from error
    _check(entries, where)
    return Lexicon(name, entries)


def _entry(row: Mapping[str, Any]) -> Entry:
    word = str(row["word"])
    return Entry(word, str(row["category"]), str(row.get("canonical") or word), str(row.get("source") or ""))


def _check(entries: Iterable[Entry], where: str) -> None:
    seen: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        word, place = entry.word, f"{where}, entry {number}"
        if not word.strip():
            raise UserError("a lexicon word is blank", where=place, fix="take the entry out")
        if word in seen:
            raise UserError(f"the lexicon word {word!r} is repeated", where=place, fix="keep one of the two")
        if not word.isalpha() or word != word.lower() or len(word.encode()) > LONGEST_WORD_BYTES:
            raise UserError(
                f"the lexicon word {word!r} is not one word of lower-case letters, {LONGEST_WORD_BYTES} bytes at most",
                where=place,
                fix="write the bare word in lower case; its other forms follow from it",
            )
        seen.add(word)
    if not seen:
        raise UserError("the lexicon has no entries", where=where, fix="add entries, or set no lexicon")
