"""Megabytes per second of text extraction from TEI and HTML, beside bare lxml and trafilatura, on the same files in one run.

    python benchmarks/extraction.py [FOLDER] [--megabytes 4] [--rounds 3] [--json FILE]

FOLDER holds the archives of `../shared/data` (the default). `lxml` parses and joins all text nodes: no blocks, places, notes
or headers, only a bound. trafilatura reads HTML alone. Time is processor time of one process, the best of the rounds; the
programs take turns, so that a busy moment meets all of them. caslon asks trafilatura for the main text of web pages.
"""

import argparse
import hashlib
import json
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from caslon.corpus.collect import RawFile
from caslon.corpus.document import Document
from caslon.corpus.read import raw_text, read
from caslon.corpus.read.limited import LimitedReader
from caslon.corpus.settings import ReadLimits

DATA = Path(__file__).parents[2] / "shared" / "data"
SETS = {
    "TEI: Old Bailey sessions": ("london/oldbailey-sessions-2.tar.bz2", (".xml",)),
    "TEI: EEBO-TCP, P5": ("london/eebo-tcp.tar.bz2", (".xml",)),
    "TEI: ECCO-TCP, P3": ("london/ecco-tcp-xml-1.tar.bz2", (".xml",)),
    "HTML: e-book chapters": ("london/books.tar.bz2", (".xhtml",)),
    "HTML: web pages": ("docs/html-git-manual.tar.bz2", (".html",)),
}
Extractor = Callable[[RawFile], int]  # characters of text


def files_of(path: Path, suffixes: tuple[str, ...], size_bytes: int) -> list[RawFile]:
    found: list[RawFile] = []
    with tarfile.open(path) as archive:
        for info in archive:
            if info.isfile() and info.name.endswith(suffixes):
                content = archive.extractfile(info)
                assert content is not None
                data = content.read()
                found.append(RawFile("benchmark", info.name, "", data, hashlib.sha256(data).hexdigest()))
                if sum(len(raw.bytes) for raw in found) >= size_bytes:
                    break
    return found


def with_caslon(raw: RawFile) -> int:
    return sum(len(item.text) for item in read(raw) if isinstance(item, Document))


def with_lxml_xml(raw: RawFile) -> int:
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, recover=True)
    root = etree.fromstring(raw.bytes, parser)
    return sum(map(len, root.itertext()))


def with_lxml_html(raw: RawFile) -> int:
    import lxml.html

    return sum(map(len, lxml.html.fromstring(raw.bytes).itertext()))


def with_trafilatura(raw: RawFile) -> int:
    import trafilatura

    return len(trafilatura.extract(raw_text(raw)) or "")


def speeds(raws: list[RawFile], extractors: dict[str, Extractor], rounds: int) -> dict[str, dict[str, float]]:
    megabytes = sum(len(raw.bytes) for raw in raws) / 1e6
    best = dict.fromkeys(extractors, float("inf"))
    characters = dict.fromkeys(extractors, 0)
    for _ in range(rounds):
        for name, extract in extractors.items():
            begun = time.process_time()
            characters[name] = sum(map(extract, raws))
            best[name] = min(best[name], time.process_time() - begun)
    return {
        name: {"megabytes_per_second": megabytes / best[name], "characters": characters[name]} for name in extractors
    }


def overhead_milliseconds(files: int = 1_000) -> float:
    """Return what reading in a process with limits adds to a file of a kilobyte, in wall time."""
    paragraph = "The humble petition of John Smith sheweth that he is poor and old.\n\n"
    texts = [f"{number}. {paragraph * 14}".encode() for number in range(files)]
    raws = [RawFile("benchmark", f"{at}.txt", "", text, str(at)) for at, text in enumerate(texts)]
    with LimitedReader(ReadLimits()) as reader:
        list(reader.read(raws[0]))
        seconds = []
        for each in (read, reader.read):
            rounds = []
            for _ in range(3):
                begun = time.perf_counter()
                for raw in raws:
                    list(each(raw))
                rounds.append(time.perf_counter() - begun)
            seconds.append(min(rounds))
    return 1000 * (seconds[1] - seconds[0]) / files


def measured(folder: Path, size_bytes: int, rounds: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, (archive, suffixes) in SETS.items():
        if not (folder / archive).is_file():
            print(f"left out, for {folder / archive} is not there: {name}", file=sys.stderr)
            continue
        raws = files_of(folder / archive, suffixes, size_bytes)
        extractors: dict[str, Extractor] = {"caslon": with_caslon, "lxml": with_lxml_xml}
        if name.startswith("HTML"):
            extractors = {"caslon": with_caslon, "lxml": with_lxml_html, "trafilatura": with_trafilatura}
        results[name] = {"files": len(raws), **speeds(raws, extractors, rounds)}
    return results


def table(results: dict[str, Any]) -> str:
    lines = [f"{'MB/s':28}{'caslon':>10}{'lxml':>10}{'trafilatura':>13}"]
    for name, result in results.items():
        cells = [result.get(program, {}).get("megabytes_per_second") for program in ("caslon", "lxml", "trafilatura")]
        shown = [f"{cell:.1f}" if cell else "-" for cell in cells]
        lines.append(f"{name:28}{shown[0]:>10}{shown[1]:>10}{shown[2]:>13}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=DATA)
    parser.add_argument("--megabytes", type=float, default=4.0, help="of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    results = measured(options.folder, int(options.megabytes * 1e6), options.rounds)
    overhead = overhead_milliseconds()
    print(table(results))
    print(f"\nreading with limits adds {overhead:.2f} ms to a file of a kilobyte")
    if options.json:
        options.json.write_text(
            json.dumps({"sets": results, "limits_overhead_milliseconds": overhead}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
