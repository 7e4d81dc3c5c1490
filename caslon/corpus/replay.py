"""Stored segments made again from their raw files, step by step, and compared byte for byte.

What only the whole corpus could tell (which lines and paragraphs repeat) is taken from the removals that each document keeps;
everything else is worked out anew.
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from caslon.corpus.boilerplate import LINE_CODE, PARAGRAPH_CODE, repeat_key
from caslon.corpus.collect import Limits, RawFile, Store, raw_files
from caslon.corpus.document import Document, Reject
from caslon.corpus.lexicon import Lexicon
from caslon.corpus.phases.finishing import last_steps
from caslon.corpus.phases.judging import steps_of
from caslon.corpus.read import read
from caslon.corpus.registry import SourceEntry
from caslon.corpus.repair import repair
from caslon.corpus.segments import segments_of
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import Segment, read_documents, read_segments
from caslon.corpus.steps import Step, guarded

LEXICON_FILE = "lexicon.txt"


def replay_segments(
    folder: Path,
    entries: Sequence[SourceEntry],
    settings: CorpusSettings,
    base: Path,
    count: int,
    store: Store | None = None,
    seed: int = 1,
) -> list[str]:
    """Make `count` random segments of a corpus again from the raw files and return what differs."""
    wanted = _drawn(folder, count, seed)
    documents = {found.id: found for found in read_documents(folder) if found.id in wanted}
    by_raw: dict[tuple[str, str, str], list[Document]] = defaultdict(list)
    for document in documents.values():
        origin = document.origin
        by_raw[origin.source, origin.path, origin.member].append(document)
    steps = steps_of(settings, Lexicon.load(folder / LEXICON_FILE), base)
    problems: list[str] = []
    sources = {document.origin.source for document in documents.values()}
    limits = Limits(file_bytes=settings.collect.max_file_bytes)
    for raw in raw_files((entry for entry in entries if entry.id in sources), store, limits):
        for document in by_raw.pop((raw.source, raw.path, raw.member), []):
            made = remade(document, raw, settings, {"repair": partial(repair, long_s=settings.long_s), **steps})
            problems += _differences(document, made, wanted[document.id], settings)
    missing = [document for group in by_raw.values() for document in group]
    return problems + [f"the raw file of {found.id} is not there: {found.origin.address}" for found in missing]


def remade(
    document: Document, raw: RawFile, settings: CorpusSettings, steps: dict[str, Step]
) -> Document | Reject | None:
    """Return a document made again from its raw file by all steps, the reject it became, or None when it is not found."""
    if raw.sha256 != document.origin.sha256:
        return None
    made: Document | Reject | None = next((item for item in read(raw) if item.id == document.id), None)
    for name, step in {**steps, **_last_steps(document, settings)}.items():
        if not isinstance(made, Document):
            return made
        made = guarded(name, step, made)
    return made


def _last_steps(document: Document, settings: CorpusSettings) -> dict[str, Step]:
    removed = {code: frozenset(_keys(document, code)) for code in (LINE_CODE, PARAGRAPH_CODE)}
    return last_steps(settings, removed[LINE_CODE], removed[PARAGRAPH_CODE])


def _keys(document: Document, code: str) -> Iterator[int]:
    return (repeat_key(removal.text) for removal in document.removals if removal.code == code)


def _drawn(folder: Path, count: int, seed: int) -> dict[str, list[Segment]]:
    """Return random segments by the id of their document (reservoir sampling, Vitter 1985)."""
    numbers = random.Random(seed)  # noqa: S311 - a sample, not a secret
    drawn: list[Segment] = []
    for place, segment in enumerate(read_segments(folder)):
        if place < count:
            drawn.append(segment)
        elif (chosen := numbers.randrange(place + 1)) < count:
            drawn[chosen] = segment
    wanted: dict[str, list[Segment]] = defaultdict(list)
    for segment in drawn:
        wanted[segment.document_id].append(segment)
    return wanted


def _differences(
    document: Document, made: Document | Reject | None, wanted: Sequence[Segment], settings: CorpusSettings
) -> Iterator[str]:
    where = document.origin.address
    if made is None:
        yield f"document {document.id} is not in its raw file any more, or the file has changed: {where}"
    elif isinstance(made, Reject):
        yield f"document {document.id} is now dropped ({made.step}: {made.code}): {where}"
    else:
        again = {piece.id: piece.text for piece in segments_of(made, settings.segments) if isinstance(piece, Segment)}
        for segment in wanted:
            if again.get(segment.id) != segment.text:
                yield f"segment {segment.id} comes out otherwise: {where}"
