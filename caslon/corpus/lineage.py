"""From a passage back to its place in a raw file, and from a dropped text to the reason why.

`explain` reads the raw file again and shows the raw passage beside the final one; `why` shows what happened to a document.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from caslon.corpus.collect import Store, load_raw
from caslon.corpus.document import Document, Origin, Reject, Removal
from caslon.corpus.read import raw_text
from caslon.corpus.registry import SourceEntry, base_of
from caslon.corpus.shards import Segment, find_document, find_rejects, find_segment
from caslon.errors import StorageError, UserError

WORD = re.compile(r"\w+")
ANCHOR_WORDS = 6  # words that are looked for at both ends of a passage
TAG_OR_GAP = r"(?:<[^>]*>|&[#\w]+;|[^\w<&])*"
HYPHEN = r"(?:[\u00ad∣]\s*|[¬-]\n\s*)?"  # what a line's end put into a word


@dataclass(frozen=True)
class Lineage:
    """Where a passage of the corpus came from."""

    id: str
    kind: str  # document | segment
    split: str
    source: str
    path: str
    member: str
    record: str
    raw_sha256: str
    start: int  # characters of the decoded raw text
    end: int
    raw_passage: str
    final_passage: str
    title: str = ""
    year: int | None = None
    licence: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the lineage as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Fate:
    """What became of a document: kept or dropped, and every text that was taken from it."""

    id: str
    kept: bool
    split: str | None
    rejects: tuple[Reject, ...]
    removals: tuple[Removal, ...]
    scores: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fate as plain JSON values."""
        return asdict(self)


def knows(identifier: str, corpus_folder: Path) -> bool:
    """Return whether a corpus has a document, segment or reject with this id."""
    if find_segment(corpus_folder, identifier) or find_document(corpus_folder, identifier.partition("-")[0]):
        return True
    return bool(find_rejects(corpus_folder, identifier.partition("-")[0]))


def explain(
    identifier: str, corpus_folder: Path, sources: Sequence[SourceEntry], store: Store | None = None
) -> Lineage:
    """Return where the document or segment with this id lies in the raw files, which are read again.

    `UserError` when there is no such id or the raw file is gone, `StorageError` when the raw file has changed since.
    """
    found: tuple[Segment | Document, str] | None
    found = find_segment(corpus_folder, identifier) or find_document(corpus_folder, identifier)
    if found is None:
        raise _unknown(identifier, corpus_folder)
    item, split = found
    start, end = _range(item)
    raw = _raw_text(item.origin, sources, store)
    if isinstance(item, Segment):
        start, end = narrowed(raw, start, end, item.text)
    return Lineage(
        id=item.id,
        kind="segment" if isinstance(item, Segment) else "document",
        split=split,
        source=item.origin.source,
        path=item.origin.path,
        member=item.origin.member,
        record=item.origin.record,
        raw_sha256=item.origin.sha256,
        start=start,
        end=end,
        raw_passage=raw[start:end],
        final_passage=item.text,
        title=item.title,
        year=item.year,
        licence=item.licence,
    )


def why(identifier: str, corpus_folder: Path) -> Fate:
    """Return why the document with this id was dropped, or what was taken out of it; a segment's id means its document."""
    identifier = identifier.partition("-")[0]
    rejects = find_rejects(corpus_folder, identifier)
    found = find_document(corpus_folder, identifier)
    if found is None and not rejects:
        raise _unknown(identifier, corpus_folder)
    document, split = found or (None, None)
    return Fate(
        identifier,
        kept=document is not None,
        split=split,
        rejects=rejects,
        removals=document.removals if document else (),
        scores=document.scores if document else dict(rejects[0].metadata.get("scores", {})),
    )


def narrowed(raw: str, start: int, end: int, text: str) -> tuple[int, int]:
    """Return the part of `raw[start:end]` that holds the words of `text`, or the whole range.

    Tags, white space, long s and hyphens at line ends do not matter. Words that were repaired otherwise cannot be found
    again; then the range goes from the first words that are found to the last, or stays as wide as it was.
    """
    if end - start == len(text):
        return start, end
    words = WORD.findall(text)
    whole = _pattern(words).search(raw, start, end)
    if whole:
        return whole.start(), _with_punctuation(raw, whole.end(), end)
    head = _pattern(words[:ANCHOR_WORDS]).search(raw, start, end)
    low = head.start() if head else start
    high = end
    for match in _pattern(words[-ANCHOR_WORDS:]).finditer(raw, low, end):
        high = _with_punctuation(raw, match.end(), end)
        if high - low >= len(text):
            break
    return (low, high) if low < high else (start, end)


def _with_punctuation(raw: str, place: int, end: int) -> int:
    while place < end and not raw[place].isspace() and raw[place] not in "<&":
        place += 1
    return place


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Return what finds the words in a row, whatever markup and line ends stand between and in them."""
    spelled = (HYPHEN.join("[sſ]" if letter == "s" else re.escape(letter) for letter in word) for word in words)
    return re.compile(TAG_OR_GAP.join(spelled) if words else r"(?!)")


def _range(item: Segment | Document) -> tuple[int, int]:
    if isinstance(item, Segment):
        return item.raw_start, item.raw_end
    return min(block.start for block in item.blocks), max(block.end for block in item.blocks)


def _raw_text(origin: Origin, sources: Sequence[SourceEntry], store: Store | None) -> str:
    raw = load_raw(origin, base_of(sources, origin.source), store)
    if raw.sha256 != origin.sha256:
        raise StorageError(
            "the raw file is not the one the corpus was made from",
            where=f"{origin.address}: SHA-256 {raw.sha256[:16]}…, was {origin.sha256[:16]}…",
            fix="run the corpus stage again",
        )
    return raw_text(raw)


def _unknown(identifier: str, corpus_folder: Path) -> UserError:
    return UserError(
        f"no document, segment or reject has the id '{identifier}'",
        where=str(corpus_folder),
        fix="ids stand in the Parquet files and in report.html",
    )
