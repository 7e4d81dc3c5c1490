"""A text file, a corpus folder or a run to the bytes all rungs learn from and the bytes all are judged by."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from caslon.errors import UserError
from caslon.tokenizer.texts import expanded, texts_of_files

TRAIN_TENTHS = 9  # of a plain text file; the rest, its end, is for validation
FEWEST_BYTES = 1_000


@dataclass(frozen=True)
class LadderText:
    """Training and validation bytes; `rule` says how they were parted."""

    train: bytes
    validation: bytes
    source: str
    rule: str

    @property
    def digest(self) -> str:
        """The SHA-256 of both parts."""
        return hashlib.sha256(len(self.train).to_bytes(8) + self.train + self.validation).hexdigest()


def ladder_text(path: Path, *, max_train_bytes: int, max_validation_bytes: int) -> LadderText:
    """Return the bytes of a text file, of a corpus folder or of the corpus of a run; `UserError` when there are too few."""
    if path.is_file():
        text = path.read_bytes()
        border = len(text) * TRAIN_TENTHS // 10
        train, validation = text[:border], text[border:]
        rule = f"the first nine tenths and the rest of {len(text):,} bytes"
    else:
        folder = path / "corpus" if (path / "corpus").is_dir() else path
        if not folder.is_dir():
            raise UserError("no such file or folder", where=str(path), fix="give a text file, a corpus folder or a run")
        train, validation = (
            _documents(folder, "train", max_train_bytes),
            _documents(folder, "validation", max_validation_bytes),
        )
        rule = "the corpus's train and validation splits"
    if len(train) > max_train_bytes or len(validation) > max_validation_bytes:
        rule += ", cut to their limits"
        train, validation = train[-max_train_bytes:], validation[:max_validation_bytes]
    if min(len(train), len(validation)) < FEWEST_BYTES:
        found = f"{len(train):,} bytes to learn from and {len(validation):,} to be judged by"
        raise UserError(f"too little text: {found}", where=str(path), fix=f"give at least {FEWEST_BYTES:,} of each")
    return LadderText(train, validation, str(path), rule)


def _documents(folder: Path, split: str, limit: int) -> bytes:
    """Return documents of a split one behind the other until one passes the limit, so that the caller sees it was passed."""
    return b"".join(_until(limit, texts_of_files(expanded([folder], [split]))))


def _until(limit: int, texts: Iterator[str]) -> Iterator[bytes]:
    length = 0
    for text in texts:
        if length > limit:
            return
        data = text.encode()
        length += len(data)
        yield data
