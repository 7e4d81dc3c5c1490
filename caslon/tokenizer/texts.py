"""Files to texts, for training and testing a tokenizer without a corpus stage: plain text, JSONL and Parquet."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from caslon.errors import UserError

TEXT_FIELD = "text"


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
