"""A corpus to the forms other programs read: one text file, JSON lines, Parquet, or a Hugging Face dataset folder.

Segments are written in the corpus's order. What was masked stays masked: only the corpus's own text is exported.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caslon.corpus.shards import SPLITS, Segment, read_segments, shard_paths
from caslon.errors import StorageError, UserError

FORMATS = ("txt", "jsonl", "parquet", "hf")
SEGMENT_BREAK = "\n\n"
README = "README.md"


@dataclass(frozen=True)
class Exported:
    """One file that was written."""

    path: Path
    segments: int
    bytes: int


def export(corpus_folder: Path, out: Path, format: str, splits: Sequence[str] = SPLITS) -> list[Exported]:
    """Write the segments of `splits` below `out`, which must not exist, and return the files. `UserError` for bad names."""
    if format not in FORMATS:
        raise UserError(f"there is no export format '{format}'", fix=f"use one of {', '.join(FORMATS)}")
    for split in splits:
        if split not in SPLITS:
            raise UserError(f"there is no split '{split}'", fix=f"use one of {', '.join(SPLITS)}")
    if not (corpus_folder / "segments").is_dir():
        raise UserError("no corpus here", where=str(corpus_folder), fix="give the folder that the corpus stage wrote")
    if out.exists():
        raise UserError("the folder exists already", where=str(out), fix="choose another, or remove it")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        written = [item for split in splits for item in WRITERS[format](corpus_folder, partial, split)]
        if format == "hf":
            (partial / README).write_text(_card(corpus_folder, splits), encoding="utf-8")
    except OSError as error:
        with suppress(OSError):
            shutil.rmtree(partial)
        raise StorageError(
            f"cannot write: {error.strerror or error}", where=str(out), fix="free some disk space"
        ) from error
    partial.rename(out)
    return [Exported(out / item.path.relative_to(partial), item.segments, item.bytes) for item in written]


def _txt(corpus_folder: Path, out: Path, split: str) -> Iterator[Exported]:
    """One UTF-8 file a split, segments parted by a blank line: the form the published London recipe trains on."""
    yield _lines(out / f"{split}.txt", corpus_folder, split, lambda segment: segment.text, SEGMENT_BREAK)


def _jsonl(corpus_folder: Path, out: Path, split: str) -> Iterator[Exported]:
    yield _lines(out / f"{split}.jsonl", corpus_folder, split, _json_line, "\n")


def _lines(path: Path, corpus_folder: Path, split: str, line: Callable[[Segment], str], end: str) -> Exported:
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for segment in read_segments(corpus_folder, split):
            if count and end == SEGMENT_BREAK:
                file.write(end)
            file.write(line(segment) + ("" if end == SEGMENT_BREAK else end))
            count += 1
        if count and end == SEGMENT_BREAK:
            file.write("\n")
    return Exported(path, count, path.stat().st_size)


def _json_line(segment: Segment) -> str:
    row: dict[str, Any] = {
        "id": segment.id,
        "text": segment.text,
        "title": segment.title,
        "year": segment.year,
        "source": segment.origin.source,
        "address": segment.origin.address,
        "licence": segment.licence,
    }
    return json.dumps(row, ensure_ascii=False)


def _parquet(corpus_folder: Path, out: Path, split: str) -> Iterator[Exported]:
    import pyarrow.parquet as pq

    (out / "data").mkdir(exist_ok=True)
    for path in shard_paths(corpus_folder, "segments", split):
        copy = Path(shutil.copyfile(path, out / "data" / path.name))
        with pq.ParquetFile(copy) as file:
            yield Exported(copy, int(file.metadata.num_rows), copy.stat().st_size)


WRITERS: dict[str, Callable[[Path, Path, str], Iterator[Exported]]] = {
    "txt": _txt,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "hf": _parquet,
}


def _card(corpus_folder: Path, splits: Sequence[str]) -> str:
    """Return the corpus's data card with the front matter that tells `datasets` which file is which split."""
    lines = ["configs:", "- config_name: default", "  data_files:"]
    for split in splits:
        lines += [f"  - split: {split}", f'    path: "data/{split}-*.parquet"']
    card = corpus_folder / README
    text = card.read_text(encoding="utf-8") if card.is_file() else "---\n---\n"
    _, front, prose = text.split("---\n", 2)
    return "---\n" + front + "\n".join(lines) + "\n---\n" + prose
