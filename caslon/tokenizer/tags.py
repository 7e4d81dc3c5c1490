"""Words of a lexicon to tags and back, exactly: `Thou` is a mark for the capital and then the tag that stands for ` thou`.

For experiments: the tags are entries that no merge or cutting reaches, and what puts them in stands here, outside
`tokenizer.json`, so other readers of the folder cut texts otherwise. A tag stands for the word with the space before it; marks
say when that space is missing and when the word is capitalised or in upper case. Mixed case is left alone, and so is a word
inside a longer, hyphenated or apostrophised one. Ids are put in, not spellings, so a text that spells a tag is its own
escape: the spelling is cut as ordinary text.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

APART = "<|apart|>"  # no space before the word
CAPITAL = "<|capital|>"
UPPER = "<|upper|>"
MARKS = (APART, CAPITAL, UPPER)


def tag_spelling(word: str) -> str:
    """Return the entry of a word's tag."""
    return f"<|{word}|>"


@dataclass(frozen=True)
class Tags:
    """The ids of a vocabulary's tags by word, and of its marks."""

    ids: Mapping[str, int]
    apart: int
    capital: int
    upper: int

    def parts(self, text: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the text in parts, each with the ids it becomes, or none when it is to be cut as ordinary text."""
        at = 0
        for found in self._pattern.finditer(text):
            ids = self._ids_of(found["space"], found["word"])
            if ids:
                if found.start() > at:
                    yield text[at : found.start()], ()
                yield found[0], ids
                at = found.end()
        if at < len(text):
            yield text[at:], ()

    def joined(self, ids: Iterable[int], token_bytes: Sequence[bytes]) -> bytes:
        """Return the bytes of ids. Marks that no tag follows stand for nothing."""
        written: list[bytes] = []
        marks: set[int] = set()
        for id in ids:
            if id in self._marks:
                marks.add(id)
                continue
            word = self._words.get(id)
            written.append(token_bytes[id] if word is None else self._spelled(word, marks).encode())
            marks.clear()
        return b"".join(written)

    def forms(self, word: str) -> dict[str, tuple[int, ...]]:
        """Return every surface form that becomes the word's tag, with its ids."""
        shapes = dict.fromkeys((word, _capitalised(word), word.upper()))
        return {space + shape: ids for shape in shapes for space in ("", " ") if (ids := self._ids_of(space, shape))}

    def _ids_of(self, space: str, word: str) -> tuple[int, ...]:
        lower = word.lower()
        if lower not in self.ids:
            return ()
        shapes = {word.upper(): (self.upper,), _capitalised(lower): (self.capital,), lower: ()}
        case: tuple[int, ...] | None = shapes.get(word)
        if case is None:
            return ()
        ids = (*(() if space else (self.apart,)), *case, self.ids[lower])
        return ids if self._spelled(lower, set(ids)) == space + word else ()

    def _spelled(self, word: str, marks: set[int]) -> str:
        shape = _capitalised(word) if self.capital in marks else word.upper() if self.upper in marks else word
        return shape if self.apart in marks else f" {shape}"

    @cached_property
    def _words(self) -> dict[int, str]:
        return {id: word for word, id in self.ids.items()}

    @cached_property
    def _marks(self) -> frozenset[int]:
        return frozenset((self.apart, self.capital, self.upper))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return word_pattern(self.ids)


def word_pattern(words: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds whole words in any case, each with the space before it as `space` and itself as `word`."""
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    inside = r"[\w\u0300-\u036f]"  # with the accents that may follow a letter
    return re.compile(
        rf"(?P<space> ?)(?<!{inside})(?<!{inside}[-'’])(?P<word>{'|'.join(map(re.escape, longest_first))})"
        rf"(?!{inside}|[-'’]\w)",
        re.IGNORECASE,
    )


def _capitalised(word: str) -> str:
    return word[0].upper() + word[1:]
