"""Megabytes per second of every step that mends or judges a text, each alone, on one core, on real documents.

    python benchmarks/corpus_steps.py [SOURCES] [--only GLOB] [--megabytes 8] [--json steps.json]

SOURCES is what `corpus.sources` takes: a registry, a folder, or `python`. As much text is read from each source as makes the size
in equal parts. A step gets what the step before it left; the time is the processor's. Every step runs twice, and the second run
counts: models are loaded and words are known by then, as they are during all but the first seconds of a build.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from caslon.corpus.collect import raw_files
from caslon.corpus.document import Document, Reject
from caslon.corpus.filters import quality
from caslon.corpus.language import language
from caslon.corpus.lexicon import Lexicon, word_counts
from caslon.corpus.ocr import repair_ocr
from caslon.corpus.period import period
from caslon.corpus.read import read
from caslon.corpus.registry import SourceEntry, load_sources
from caslon.corpus.repair import repair
from caslon.corpus.segments import segments_of
from caslon.corpus.settings import CorpusSettings

SETTINGS = CorpusSettings(period=(1500, 1850), long_s="modern")


@dataclass(frozen=True)
class Row:
    """The speed of one step."""

    step: str
    documents: int
    megabytes: float
    seconds: float
    megabytes_per_second: float
    rejected: int


def steps() -> dict[str, Callable[[Document], object]]:
    """Return the steps by name, in the order of a build."""
    words = Lexicon.shipped()
    return {
        "normalise": partial(repair, long_s="modern"),
        "count words": lambda document: word_counts(document.text),
        "ocr, counted only": partial(repair_ocr, lexicon=words, apply=False),
        "language": partial(language, settings=SETTINGS),
        "period": partial(period, settings=SETTINGS),
        "quality": partial(quality, settings=SETTINGS),
        "segments": lambda document: list(segments_of(document, SETTINGS.segments)),
    }


def documents_of(entries: tuple[SourceEntry, ...], megabytes: float) -> Iterator[Document]:
    """Yield documents of every source until all together have the size."""
    share = megabytes * 1e6 / len(entries)
    for entry in entries:
        size = 0
        for raw in raw_files((entry,)):
            for item in read(raw):
                if isinstance(item, Document) and size < share:
                    yield item
                    size += len(item.text)
            if size >= share:
                break


def measured(name: str, step: Callable[[Document], object], documents: list[Document]) -> tuple[Row, list[Document]]:
    """Return the step's row and the documents it leaves; a step that only looks leaves them as they are."""
    for document in documents:
        step(document)
    begun = time.process_time()
    results = [step(document) for document in documents]
    seconds = time.process_time() - begun
    megabytes = sum(len(document.text.encode("utf-8", "replace")) for document in documents) / 1e6
    rejected = sum(isinstance(result, Reject) for result in results)
    left = [result for result in results if isinstance(result, Document)]
    row = Row(name, len(documents), round(megabytes, 2), round(seconds, 3), round(megabytes / seconds, 1), rejected)
    return row, left or documents


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sources", nargs="?", default="../shared/data/london")
    parser.add_argument("--only", action="append", default=[], help="glob on ids of sources")
    parser.add_argument("--megabytes", type=float, default=8.0, help="of text, from all sources together")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    entries = load_sources(arguments.sources, Path.cwd(), only=tuple(arguments.only))
    documents = list(documents_of(entries, arguments.megabytes))
    rows = []
    for name, step in steps().items():
        row, documents = measured(name, step, documents)
        rows.append(row)
    report(rows, arguments.json)


def report(rows: list[Row], path: Path | None) -> None:
    """Print a table of the rows, and write them where a path is given."""
    print("| step | documents | MB | seconds | MB/s | rejected |\n|---|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            "| "
            + " | ".join(f"{value:,}" if not isinstance(value, str) else value for value in asdict(row).values())
            + " |"
        )
    seconds = sum(row.seconds / row.megabytes for row in rows)
    print(f"\nAll steps one after another: {1 / seconds:.1f} MB/s on one core; Python {sys.version.split()[0]}.")
    if path:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
