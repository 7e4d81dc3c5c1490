"""Lines and paragraphs that stand in many documents become removals: the furniture of a site, edition or form.

Two looks are needed: the first hashes what each document holds, the second takes out what was found too often. Equal are
texts with the same letters and digits, whatever their case, punctuation and spacing, as for exact duplicates. Digits count,
so that two price lists with the same column heads are not one text. Hashes are BLAKE2b: the same on every machine and run.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from caslon.corpus.document import Document
from caslon.corpus.filters import without_ranges
from caslon.corpus.settings import BoilerplateSettings

LINE_CODE = "boilerplate_line"
PARAGRAPH_CODE = "duplicate_paragraph"

Hashes = NDArray[np.uint64]

_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
_LOWER = bytes(range(256)).lower()
_DROPPED = bytes(code for code in range(128) if not chr(code).isalnum())


def line_hashes(document: Document, settings: BoilerplateSettings) -> Hashes:
    """Return the sorted distinct hashes of the lines that are long enough to be boilerplate; none for code."""
    if not _is_looked_at(document, settings):
        return np.zeros(0, dtype=np.uint64)
    return _distinct([digest for _, _, _, digest in _lines(document, settings.line_characters)])


def paragraph_hashes(document: Document, settings: BoilerplateSettings) -> Hashes:
    """Return the sorted distinct hashes of the blocks that are long enough to be told apart; none for code."""
    if not _is_looked_at(document, settings):
        return np.zeros(0, dtype=np.uint64)
    return _distinct([digest for _, digest in _paragraphs(document, settings.paragraph_characters)])


def repeat_key(text: str) -> int:
    """Return the hash by which a line or paragraph is known."""
    return _number(_digest(_normal(text.strip())))


def without_repeats(
    document: Document, lines: frozenset[int], paragraphs: frozenset[int], settings: BoilerplateSettings
) -> Document:
    """Return the document without the blocks and then the lines of these hashes; each becomes a removal."""
    if not _is_looked_at(document, settings):
        return document
    if paragraphs:
        blocks = document.blocks
        found = _paragraphs(document, settings.paragraph_characters)
        ranges = [(number, 0, len(blocks[number].text)) for number, digest in found if _number(digest) in paragraphs]
        document = without_ranges(document, ranges, PARAGRAPH_CODE) if ranges else document
    if lines:
        found_lines = _lines(document, settings.line_characters)
        ranges = [(number, start, end) for number, start, end, digest in found_lines if _number(digest) in lines]
        document = without_ranges(document, ranges, LINE_CODE) if ranges else document
    return document


def _is_looked_at(document: Document, settings: BoilerplateSettings) -> bool:
    return settings.enabled and document.tier != "code"


def _lines(document: Document, minimum: int) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield `(block, start, end, digest)` of each line with at least `minimum` characters, outer blanks not counted."""
    for number, block in enumerate(document.blocks):
        position = 0
        for line in block.text.split("\n"):
            if len(line) >= minimum:
                bare = line.strip()
                if len(bare) >= minimum and (normal := _normal(bare)):
                    start = position + line.index(bare)
                    yield number, start, start + len(bare), _digest(normal)
            position += len(line) + 1


def _paragraphs(document: Document, minimum: int) -> Iterator[tuple[int, bytes]]:
    for number, block in enumerate(document.blocks):
        if len(block.text) >= minimum and (normal := _normal(block.text)):
            yield number, _digest(normal)


def _normal(text: str) -> bytes:
    """Return the letters and digits of a text, case-folded, as UTF-8."""
    if text.isascii():
        return text.encode().translate(_LOWER, _DROPPED)
    return _NOT_ALPHANUMERIC.sub("", text.casefold()).encode("utf-8", "surrogatepass")


def _digest(normal: bytes) -> bytes:
    return blake2b(normal, digest_size=8).digest()


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")


def _distinct(digests: list[bytes]) -> Hashes:
    return np.unique(np.frombuffer(b"".join(digests), dtype="<u8")).astype(np.uint64, copy=False)
