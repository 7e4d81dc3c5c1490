"""MB of text per second and core from raw documents to a corpus: caslon and datatrove over the same documents, in one run.

    python benchmarks/corpus.py [--megabytes 40] [--rounds 3] [--workers 1] [--texts FILES...] [--json corpus.json]
    python benchmarks/corpus.py --memory 100            # does memory grow when the input is doubled?

The documents are those of --texts (.txt files, or .tar.bz2 archives of them), else the plain texts of ../shared/data where that
lies beside the checkout, else generated; cut at line ends to --document-characters, since datatrove holds 1 kB of hashes for
each word of a document. Both programs read the same JSONL files, each in a process of its own that takes turns with the others;
the median stands. The language filter is off on both sides: datatrove's needs a model from the network.

"same filters" is what both have: mean length of words, symbols per word, repeated lines and paragraphs, the most frequent run of
three words, 50 words at least, MinHash with 128 permutations in 16 bands over runs of five words; caslon also verifies every
pair by counting, cuts, splits and checks the splits. "own defaults" is datatrove's full Gopher set. "all steps" is caslon's
London recipe with its report. datatrove splits words with spaCy, which is not among our requirements; it gets one regular
expression instead, which is quicker. Seconds are of the processor, children included, so that a busy machine does not count;
memory is the sum of the proportional set sizes of all processes, looked at every tenth of a second, and with --memory the
kernel's own peak of each process, which misses nothing between two looks.
"""

import argparse
import bz2
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from caslon.corpus.lexicon import Lexicon

DATA = Path(__file__).parents[2] / "shared" / "data" / "london"
ARCHIVES = ("books.tar.bz2", "ecco-tcp-txt.tar.bz2", "londonlives-petitions.tar.bz2")
FILE_CHARACTERS = 2_000_000
DOCUMENT_CHARACTERS = 50_000
LOOK_SECONDS = 0.1
PROGRAMS = ("caslon, same filters", "datatrove, same filters", "datatrove, own defaults", "caslon, all steps")
PEAK_RESIDENT = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")


# --- the documents -----------------------------------------------------------------------------------------------------


def texts_of(path: Path) -> Iterator[str]:
    if path.name.endswith(".tar.bz2"):
        with bz2.open(path) as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() and member.name.endswith(".txt") else None
                if content:
                    yield content.read().decode("utf-8", "replace")
    else:
        yield path.read_text(encoding="utf-8", errors="replace")


def taken_in_turns(paths: Iterable[Path]) -> Iterator[str]:
    """Yield a text of each path after the other, so that a small sample holds some of every kind."""
    waiting = [texts_of(path) for path in paths]
    while waiting:
        for texts in list(waiting):
            text = next(texts, None)
            if text is None:
                waiting.remove(texts)
            else:
                yield text


def generated_texts() -> Iterator[str]:
    """Yield texts of about 5 kB whose words are as frequent as in English, without end.

    In every fiftieth all words are equally frequent, so that the model of languages is asked, and lies in memory, in each run.
    """
    import numpy as np

    lexicon = Lexicon.shipped()
    words = sorted(lexicon.words, key=lambda word: (-lexicon.count(word), word))[:50_000]
    counts = np.array([lexicon.count(word) for word in words], dtype=np.float64)
    borders = np.cumsum(counts / counts.sum())
    random_numbers = np.random.default_rng(1)
    for number in itertools.count():
        drawn = random_numbers.random(900)
        places = drawn * len(words) if number % 50 == 0 else np.searchsorted(borders, drawn)
        places = np.minimum(places.astype(np.int64), len(words) - 1)
        chosen = [words[place] for place in places]
        sentences = [" ".join(chosen[start : start + 15]).capitalize() + "." for start in range(0, 900, 15)]
        yield "\n\n".join(" ".join(sentences[start : start + 5]) for start in range(0, 60, 5))


def pieces(text: str, characters: int) -> Iterator[str]:
    """Yield a text in parts of at most so many characters, cut at line ends."""
    waiting: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        if waiting and size + len(line) > characters:
            yield "".join(waiting)
            waiting, size = [], 0
        waiting.append(line)
        size += len(line)
    if waiting:
        yield "".join(waiting)


def write_documents(folder: Path, texts: Iterable[str], megabytes: float, characters: int) -> tuple[int, float]:
    """Write JSONL files of about 2 MB and return the number of documents and their MB of text."""
    folder.mkdir(parents=True)
    documents, text_bytes, size, file = 0, 0, 0, 0
    lines: list[str] = []

    def flush() -> None:
        nonlocal lines, size, file
        (folder / f"texts-{file:05d}.jsonl").write_text("".join(lines), encoding="utf-8")
        lines, size, file = [], 0, file + 1

    for piece in (piece for text in texts for piece in pieces(text, characters)):
        lines.append(json.dumps({"id": f"{documents:08d}", "text": piece}, ensure_ascii=False) + "\n")
        documents += 1
        text_bytes += len(piece.encode())
        size += len(lines[-1])
        if size >= FILE_CHARACTERS:
            flush()
        if text_bytes >= megabytes * 1e6:
            break
    if lines:
        flush()
    return documents, text_bytes / 1e6


# --- the programs, each in a process of its own --------------------------------------------------------------------------


def run_caslon(texts: Path, folder: Path, workers: int, everything: bool) -> dict[str, Any]:
    from caslon.corpus.pipeline import build
    from caslon.corpus.registry import load_sources
    from caslon.corpus.report import write_report
    from caslon.corpus.settings import CorpusSettings, PrivacySettings
    from caslon.corpus.workers import Workers
    from caslon.observe.events import EventLog

    phases: dict[str, list[float]] = {}

    class Clock(EventLog):
        def progress(self, phase: str, done: int, total: int, unit: str, detail: str = "") -> None:
            phases.setdefault(phase, []).append(time.process_time())

    values: dict[str, Any] = {"period": (1500, 1850), "long_s": "modern"}
    if not everything:
        values = {
            "languages": (),
            "ocr_repair": "off",
            "boilerplate": {"enabled": False},
            "privacy": dict.fromkeys(PrivacySettings.model_fields, "off"),
        }
    settings = CorpusSettings(sources=str(texts), workers=workers, **values)
    entries = load_sources(settings.sources, texts)
    began = time.monotonic()
    totals = build(entries, settings, 1, folder, Clock(None))
    built = time.process_time()
    if everything:
        with Workers(workers) as pool:
            write_report(folder, entries, settings, totals, time.monotonic() - began, pool)
    starts = [(name, stamps[0]) for name, stamps in phases.items()]
    ends = [start for _, start in starts[1:]] + [built]
    by_phase = {name: round(end - start, 2) for (name, start), end in zip(starts, ends, strict=True)}
    return {
        "kept": sum(totals.documents.values()),
        "dataset_id": totals.dataset_id,
        "phases": by_phase | ({"report": round(time.process_time() - built, 2)} if everything else {}),
        "steps": {name: round(counts.seconds, 2) for name, counts in totals.steps.items()},
    }


def run_datatrove(texts: Path, folder: Path, workers: int, same: bool) -> dict[str, Any]:
    import xxhash
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):  # type: ignore[misc]  # the library states no types
        def word_tokenize(self, text: str) -> list[str]:
            return WORD_OR_MARK.findall(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    words: Any = Words()
    shared: dict[str, dict[str, Any]] = {"repetition": {}, "quality": {}}
    if same:  # what caslon's quality step asks too
        shared["repetition"] = {
            "dup_line_frac": None, "dup_para_frac": None, "dup_line_char_frac": 0.3, "dup_para_char_frac": 0.3,
            "top_n_grams": ((3, 0.18),), "dup_n_grams": (),
        }  # fmt: skip
        shared["quality"] = dict.fromkeys(
            ("max_doc_words", "max_bullet_lines_ratio", "max_ellipsis_lines_ratio", "max_non_alpha_words_ratio", "min_stop_words")
        )  # fmt: skip
    config = MinhashConfig(n_grams=5, num_buckets=16, hashes_per_bucket=8)
    signature = MinhashDedupSignature(str(folder / "signatures"), config=config, language=words)
    signature._hash_func = lambda text: xxhash.xxh64_intdigest(text.encode())  # xxhash 4 no longer takes a str
    filtered, buckets, removed = (str(folder / name) for name in ("filtered", "buckets", "ids"))
    stages: list[tuple[list[Any], int]] = [
        (
            [
                JsonlReader(str(texts)),
                GopherRepetitionFilter(**shared["repetition"], language=words),
                GopherQualityFilter(**shared["quality"], language=words),
                JsonlWriter(filtered, compression=None),
            ],
            workers,
        ),
        ([JsonlReader(filtered), signature], workers),
        ([MinhashDedupBuckets(str(folder / "signatures"), buckets, config=config)], config.num_buckets),
        ([MinhashDedupCluster(buckets, removed, config=config)], 1),
        (
            [
                JsonlReader(filtered),
                MinhashDedupFilter(removed),
                JsonlWriter(str(folder / "kept"), compression=None),
            ],
            workers,
        ),
    ]
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=workers, logging_dir=str(folder / f"logs-{number}"), start_method="fork"
        ).run()
    kept = sum(path.read_bytes().count(b"\n") for path in (folder / "kept").glob("*.jsonl"))
    return {"kept": kept}


def run(program: str, texts: Path, folder: Path, workers: int) -> None:
    """Run one program in this process and print what it found as the last line."""
    if program.startswith("caslon"):
        found = run_caslon(texts, folder, workers, everything="all" in program)
    else:
        found = run_datatrove(texts, folder, workers, same="same" in program)
    print(json.dumps(found))


# --- measuring -----------------------------------------------------------------------------------------------------------


class MemoryWatch(threading.Thread):
    """Looks at a process and its children until told to stop: the peak in bytes of their sum, and of each alone."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak_bytes, self.peak_of = pid, 0, dict[int, int]()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(LOOK_SECONDS):
            try:
                root = psutil.Process(self.root)
                processes = [root, *root.children(recursive=True)]
            except psutil.Error:
                return
            self.peak_bytes = max(self.peak_bytes, sum(map(self._look, processes)))

    def _look(self, process: psutil.Process) -> int:
        try:
            self.peak_of[process.pid] = max(self.peak_of.get(process.pid, 0), peak_resident_bytes(process.pid))
            return int(process.memory_full_info().pss)
        except (psutil.Error, OSError):  # it ended
            return 0


def peak_resident_bytes(pid: int) -> int:
    """Return the most memory a running process had since its program began (Linux); 0 for one that is ending."""
    found = PEAK_RESIDENT.search(Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) << 10 if found else 0


def measured(program: str, texts: Path, folder: Path, workers: int) -> dict[str, Any]:
    """Return seconds, memory and findings of one program in a process of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [sys.executable, __file__, "--run", program, str(texts), str(folder), "--workers", str(workers)]
    began = time.monotonic()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors)  # datatrove logs every task
        watch = MemoryWatch(process.pid)
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.stop.set()
        watch.join()
        output.seek(0)
        errors.seek(0)
        lines = output.read().decode().strip().splitlines()
        if process.returncode:
            print(errors.read().decode()[-5000:], file=sys.stderr)
            raise SystemExit(f"{program} failed with exit status {process.returncode}")
    return {
        "wall_seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": watch.peak_bytes,
        "driver_bytes": watch.peak_of.get(process.pid, 0),
        "largest_child_bytes": max((size for pid, size in watch.peak_of.items() if pid != process.pid), default=0),
        **json.loads(lines[-1]),
    }


def medians(rounds: list[dict[str, Any]], megabytes: float, workers: int) -> dict[str, Any]:
    """Return the medians of the numbers of several rounds, and the speeds that follow."""
    row: dict[str, Any] = {**rounds[-1]}
    for name, value in rounds[0].items():
        if isinstance(value, int | float):
            row[name] = statistics.median(found[name] for found in rounds)
    row["megabytes_per_cpu_second"] = megabytes / row["cpu_seconds"]
    row["megabytes_per_second_and_worker"] = megabytes / row["wall_seconds"] / workers
    return row


def compare(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Return the figures of all programs over the same documents."""
    paths = arguments.texts or [DATA / name for name in ARCHIVES if (DATA / name).is_file()]
    texts = taken_in_turns(paths) if paths else generated_texts()
    count, megabytes = write_documents(place / "texts", texts, arguments.megabytes, arguments.document_characters)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.programs}
    for _ in range(arguments.rounds):
        for name, found in rounds.items():
            found.append(measured(name, place / "texts", place / "out", arguments.workers))
    return {
        "texts": [path.name for path in paths] or "generated",
        "documents": count,
        "megabytes": round(megabytes, 2),
        "workers": arguments.workers,
        "rounds": arguments.rounds,
        "programs": {name: medians(found, megabytes, arguments.workers) for name, found in rounds.items()},
    }


def table(found: dict[str, Any]) -> str:
    """Return the rows of LEADERBOARD.md."""
    peer = found["programs"].get("datatrove, same filters")
    lines = [
        f"{found['documents']:,} documents, {found['megabytes']} MB of text, {found['workers']} worker(s), "
        f"median of {found['rounds']}:",
        "",
        "| | MB per processor second | processor seconds | wall seconds | peak MiB | documents kept | times datatrove |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in found["programs"].items():
        times = f"{peer['cpu_seconds'] / row['cpu_seconds']:.2f}" if peer else ""
        lines.append(
            f"| {name} | {row['megabytes_per_cpu_second']:.2f} | {row['cpu_seconds']:.1f} | {row['wall_seconds']:.1f} "
            f"| {row['peak_bytes'] / 2**20:,.0f} | {row['kept']:,} | {times} |"
        )
    whole = found["programs"].get("caslon, all steps")
    if whole:
        for kind in ("phases", "steps"):
            parts = ", ".join(f"{name} {seconds:g}" for name, seconds in whole[kind].items())
            lines += ["", f"all steps, processor seconds by {kind}: {parts}"]
    return "\n".join(lines)


def memory(megabytes: float, workers: int, place: Path) -> dict[str, Any]:
    """Return the peak memory of driver and largest worker for generated text and for twice as much."""
    found: dict[str, Any] = {}
    for name, size in (("once", megabytes), ("twice", 2 * megabytes)):
        texts = place / f"texts-{name}"
        write_documents(texts, generated_texts(), size, DOCUMENT_CHARACTERS)
        found[name] = measured("caslon, all steps", texts, place / "out", workers)
        shutil.rmtree(texts)
    return {
        "megabytes": megabytes,
        "workers": workers,
        **{
            f"{who}_bytes": [found["once"][f"{who}_bytes"], found["twice"][f"{who}_bytes"]]
            for who in ("driver", "largest_child")
        },
    }


def memory_table(found: dict[str, Any]) -> str:
    """Return peak memory for the text once and twice, and how it grew."""
    lines = [
        f"| {found['workers']} workers | {found['megabytes']:g} MB | {2 * found['megabytes']:g} MB | growth |",
        "| --- | ---: | ---: | ---: |",
    ]
    for who in ("driver", "largest_child"):
        once, twice = found[f"{who}_bytes"]
        lines.append(
            f"| {who.replace('_', ' ')} | {once / 2**20:,.0f} MiB | {twice / 2**20:,.0f} MiB | {twice / once - 1:+.1%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=Path, nargs="*", help=".txt files, or .tar.bz2 archives of them")
    parser.add_argument("--megabytes", type=float, default=40.0, help="of text")
    parser.add_argument("--document-characters", type=int, default=DOCUMENT_CHARACTERS, help="longer texts are cut")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument(
        "--memory", type=float, metavar="MB", help="build from so much generated text and from twice as much"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--run", nargs=3, metavar=("PROGRAM", "TEXTS", "FOLDER"), help="(used by the script itself)")
    arguments = parser.parse_args()
    if arguments.run:
        program, texts, folder = arguments.run
        run(program, Path(texts), Path(folder), arguments.workers)
        return
    with tempfile.TemporaryDirectory() as place:
        if arguments.memory:
            found = memory(arguments.memory, arguments.workers, Path(place))
            print(memory_table(found))
        else:
            found = compare(arguments, Path(place))
            print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
