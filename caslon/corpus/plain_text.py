"""One plain text file to a corpus folder of one document a split: the quick start without sources, cleaning or segments.

The text is cut in its order, by characters, and nothing in it is changed.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

from caslon.corpus.document import Block, Document, Origin
from caslon.corpus.shards import DOCUMENT_SCHEMA, SPLITS, ShardWriter, document_row
from caslon.errors import UserError
from caslon.folders import digest_of

SOURCE = "text"


def write_plain_text(file: Path, folder: Path, shares: Sequence[float]) -> str:
    """Write `documents/` below `folder`, the file cut into splits of these shares, and return the id of this data set.

    `UserError` when the file is missing, is empty or not UTF-8, or when a split would get no character.
    """
    data = _bytes_of(file)
    text = _text_of(data, file)
    digest = hashlib.sha256(data).hexdigest()
    ends = [math.floor(len(text) * share) for share in _running_sums(shares)]
    for name, start, end in zip(SPLITS, [0, *ends], ends, strict=False):
        if start >= end:
            raise UserError(
                f"{len(text):,} characters leave none for the {name} split", where=str(file), fix="give more text"
            )
        shards = ShardWriter(folder / "documents", name, DOCUMENT_SCHEMA)
        origin = Origin(source=SOURCE, path=SOURCE, record=name, sha256=digest)  # known by its bytes, not by its name
        shards.write(document_row(Document(origin, (Block(text[start:end], start, end),))))
        shards.close()
    return digest_of({"text": digest, "shares": list(shares)})


def _running_sums(shares: Sequence[float]) -> list[float]:
    """Return the sums of the shares up to each, the last exactly 1."""
    return [*(round(sum(shares[: number + 1]), 12) for number in range(len(shares) - 1)), 1.0]


def _bytes_of(file: Path) -> bytes:
    if not file.is_file():
        raise UserError("no such file", where=str(file), fix="give a text file: --set tokenizer.text=FILE")
    return file.read_bytes()


def _text_of(data: bytes, file: Path) -> str:
    try:
        return data.decode("utf-8")  # and no change of line ends
    except UnicodeDecodeError as error:
        raise UserError(
            f"not UTF-8: {error.reason} at byte {error.start}", where=str(file), fix="convert the file to UTF-8"
        ) from error
