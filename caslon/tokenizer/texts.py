"""Files and corpus folders to texts, for training and testing a tokenizer by hand: plain text, JSONL and Parquet."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from caslon.errors import UserError

TEXT_FIELD = "text"
# A paragraph with the blank lines after it, or 2,000 characters of a longer one.
_SEGMENT = re.compile(r"(?:(?!\n\n).){1,1999}(?:\n\n+|.)?|\n+", re.DOTALL)


@dataclass(frozen=True)
class SizedText:
    """A text's place, source and size, without the text."""

    id: str
    source: str
    bytes: int


def expanded(paths: Iterable[Path], splits: Sequence[str]) -> list[Path]:
    """Return the files as they are, and in the place of a corpus folder the document files of these splits."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        shards = [shard for split in splits for shard in sorted((path / "documents").glob(f"{split}-*.parquet"))]
        if not shards:
            raise UserError(
                "no corpus in this folder", where=str(path), fix="give files, or the folder of a corpus stage"
            )
        found += shards
    return found


def sized_texts(paths: Iterable[Path]) -> tuple[list[SizedText], str]:
    """Return size and source of every text of files, and the SHA-256 of all texts: the id of this data.

    A Parquet file's `source` column names the source; else the file is one.
    """
    digest = hashlib.sha256()
    found = []
    for path in paths:
        sources = _sources_of_parquet(path) if path.suffix == ".parquet" and path.is_file() else None
        for number, text in enumerate(texts_of_files([path])):
            data = text.encode()
            digest.update(len(data).to_bytes(8) + data)
            source = sources[number] if sources else str(path)
            found.append(SizedText(f"{path}#{number}", source, len(data)))
    return found, digest.hexdigest()


def _sources_of_parquet(path: Path) -> list[str] | None:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if "source" not in file.schema_arrow.names:
            return None
        names: list[str] = file.read(columns=["source"], use_threads=False)["source"].to_pylist()
        return names


def texts_of_files(paths: Iterable[Path]) -> Iterator[str]:
    """Yield the texts of files in the given order: `.jsonl` and `.parquet` by their `text` field, others whole.

    `UserError` names the file, and the line of a JSONL file, that cannot be read.
    """
    for path in paths:
        if not path.is_file():
            raise UserError("no such file", where=str(path))
        if path.suffix == ".jsonl":
            yield from _texts_of_jsonl(path)
        elif path.suffix == ".parquet":
            yield from _texts_of_parquet(path)
        else:
            yield _text_of(path)


def characters_of(texts: Iterable[str]) -> list[str]:
    """Return the characters that occur in texts, in the order of their code points; `UserError` when there are none."""
    characters = sorted(set().union(*texts))
    if not characters:
        raise UserError("there is no text to take characters from", fix="give a file that is not empty")
    return characters


def segments_of(text: str) -> list[str]:
    """Return a text in paragraphs of at most 2,000 characters; joined they are the text."""
    return _SEGMENT.findall(text)


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")  # not read_text, which would change line ends
    except UnicodeDecodeError as error:
        raise UserError(
            f"not UTF-8: {error.reason} at byte {error.start}", where=str(path), fix="convert the file to UTF-8"
        ) from error


def _texts_of_jsonl(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                text = json.loads(line)[TEXT_FIELD]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f'expected a JSON object with a "{TEXT_FIELD}" field',
                    where=f"{path}, line {number}",
                    fix="one object a line",
                ) from error
            yield str(text)


def _texts_of_parquet(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if TEXT_FIELD not in file.schema_arrow.names:
            raise UserError(f'the file has no column "{TEXT_FIELD}"', where=str(path))
        for batch in file.iter_batches(columns=[TEXT_FIELD], batch_size=256):
            yield from batch.column(0).to_pylist()
