"""Generated text and training texts to the longest exact spans they share, with the documents these stand in.

All training text is put into one suffix array (Manber & Myers 1990; built by divsufsort), where the longest match of a text is
found by binary search. A span says *verbatim in training text*, never *caused by*. A byte that UTF-8 never uses parts the
documents, so no span crosses from one into the next.
"""

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caslon.errors import UserError

SEPARATOR = b"\xff"  # not part of any UTF-8 text
FEWEST_WORDS = 8
COMPARED_BYTES = 4_096  # the longest match looked for
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Span:
    """A run of generated text that stands word for word in a training document, and how often in all of them."""

    text: str
    start: int  # characters from the start of the generated text
    words: int
    count: int
    document_id: str
    offset: int  # characters from the start of the document


class TrainingText:
    """Training documents in a suffix array. It holds the text once and four (or eight) bytes for each byte of it."""

    def __init__(self, documents: Iterable[tuple[str, str]]) -> None:
        """Index `(document id, text)` pairs. `UserError` when pydivsufsort is not installed."""
        self.document_ids: list[str] = []
        self.starts: list[int] = []
        parts = bytearray()
        for identifier, text in documents:
            self.document_ids.append(identifier)
            self.starts.append(len(parts))
            parts += text.encode("utf-8", "surrogatepass") + SEPARATOR
        self.text = bytes(parts)
        self.suffixes = _suffix_array(self.text)

    def longest_match(self, query: bytes) -> int:
        """Return how many bytes from the start of `query` stand somewhere in the training text."""
        place = self._place(query[:COMPARED_BYTES])
        neighbours = (place - 1, place)
        return max((self._shared(query, index) for index in neighbours if 0 <= index < len(self.suffixes)), default=0)

    def occurrences(self, span: bytes) -> tuple[int, int]:
        """Return how often a span occurs and the place of its first occurrence (-1 when there is none)."""
        first = self._place(span)
        after = bisect.bisect_right(self.suffixes, span, lo=first, key=lambda place: self._bytes_at(place, len(span)))
        if after == first:
            return 0, -1
        return after - first, int(self.suffixes[first:after].min())

    def document_at(self, place: int) -> tuple[str, int]:
        """Return the id of the document at a byte of the index and the character of the document there."""
        number = bisect.bisect_right(self.starts, place) - 1
        before = self.text[self.starts[number] : place]
        return self.document_ids[number], len(before.decode("utf-8", "surrogatepass"))

    def _place(self, query: bytes) -> int:
        return bisect.bisect_left(self.suffixes, query, key=lambda place: self._bytes_at(place, len(query)))

    def _bytes_at(self, place: int, length: int) -> bytes:
        return self.text[place : place + length]

    def _shared(self, query: bytes, index: int) -> int:
        found = self._bytes_at(int(self.suffixes[index]), min(len(query), COMPARED_BYTES))
        low, high = 0, min(len(found), len(query))
        while (
            low < high
        ):  # the longest shared start, by halving: comparing slices is fast, stepping through bytes is not
            middle = (low + high + 1) // 2
            low, high = (middle, high) if found[:middle] == query[:middle] else (low, middle - 1)
        return low


def _suffix_array(text: bytes) -> Any:
    try:
        from pydivsufsort import divsufsort
    except ModuleNotFoundError as error:
        raise UserError("finding spans needs pydivsufsort", fix="pip install 'caslon[evaluate]'") from error
    return divsufsort(text) if text else np.zeros(0, dtype=np.int32)


def copied_spans(training: TrainingText, text: str, *, fewest_words: int = FEWEST_WORDS) -> list[Span]:
    """Return the maximal spans of at least so many words, none inside another, longest first.

    A word here is a run of letters, digits and underscores; a span begins and ends with a whole word of the generated text.
    """
    words = [match.span() for match in WORD.finditer(text)]
    spans: list[Span] = []
    covered = 0  # words already inside an earlier span
    for first, (start, _) in enumerate(words):
        matched = training.longest_match(text[start : start + COMPARED_BYTES].encode("utf-8", "surrogatepass"))
        last = _last_whole_word(text, words, first, matched)
        if last - first >= fewest_words and last > covered:
            spans.append(_span(training, text[start : words[last - 1][1]], start, last - first))
        covered = max(covered, last)
    return sorted(spans, key=lambda span: (-span.words, span.start))


def _last_whole_word(text: str, words: Sequence[tuple[int, int]], first: int, matched_bytes: int) -> int:
    """Return the number of the word after the last one that lies whole within the matched bytes."""
    start = words[first][0]
    matched = (
        text[start : start + matched_bytes].encode("utf-8", "surrogatepass")[:matched_bytes].decode("utf-8", "ignore")
    )
    end = start + len(matched)
    return bisect.bisect_right(words, end, lo=first, key=lambda word: word[1])


def _span(training: TrainingText, text: str, start: int, words: int) -> Span:
    count, place = training.occurrences(text.encode("utf-8", "surrogatepass"))
    assert count, "a span was found before it was counted"
    identifier, offset = training.document_at(place)
    return Span(text, start, words, count, identifier, offset)


def coverage(text: str, spans: Sequence[Span]) -> float:
    """Return the share of a text's characters that lie in at least one span."""
    covered = np.zeros(len(text), dtype=bool)
    for span in spans:
        covered[span.start : span.start + len(span.text)] = True
    return float(covered.mean()) if text else 0.0
