"""Texts to token files: `<split>-NNNNN.bin`, `documents.parquet` and `meta.json`.

A `.bin` file holds ids of two or four bytes, little-endian, in the order of the corpus, with the end-of-text id after every unit
(a document or a segment). The same texts give the same bytes for any number of processes, and after any interruption: a cursor
beside the files says how far they are on disk, and the next call cuts them there and goes on.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from caslon.errors import StorageError, UserError
from caslon.folders import digest_of, write_atomic
from caslon.tokenizer.bulk import IdArray, id_type
from caslon.tokenizer.encode_workers import Encoded, Encoders, encoders
from caslon.tokenizer.token_files import (
    DOCUMENTS_FILE,
    FORMAT,
    META_FILE,
    SPLITS,
    SplitFigures,
    TokenFile,
    TokenFiles,
    TokenSplit,
    are_whole,
    document_digests,
    read_meta,
    shared_documents,
)
from caslon.tokenizer.tokenizer import Tokenizer

__all__ = [
    "SPLITS",
    "IdArray",
    "SplitFigures",
    "TokenFiles",
    "TokenSplit",
    "check_token_files",
    "read_meta",
    "write_token_files",
]

BATCH_CHARACTERS = 1 << 20  # of text handed to a process at once; bounds memory together with the longest text
TOKENS_PER_FILE = 100_000_000
CURSOR_CHARACTERS = 32 << 20  # of text between two cursors: some seconds of work
CURSOR_FILE = ".cursor.json"
ROWS_FILE = ".rows.jsonl"
ROWS_AT_ONCE = 100_000
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

TextUnit = tuple[str, str]  # id, text
Progress = Callable[[str, int], None]  # split, characters encoded so far


def write_token_files(
    folder: Path,
    tokenizer: Tokenizer,
    read: Callable[[str], Iterable[TextUnit]],
    *,
    dataset_id: str,
    unit: str = "document",
    workers: int = 1,
    progress: Progress | None = None,
) -> TokenFiles:
    """Write the token files of all splits to `folder`; `read(split)` yields `(id, text)` in the order of the corpus.

    Texts are streamed: memory holds a batch per process. Files of the same key (dataset, tokenizer, settings) that are whole are
    kept; an interrupted call with the same key goes on where its files on disk end. `StorageError` when the disk is full,
    `UserError` when the same document stands in two splits.
    """
    key = digest_of(
        {
            "dataset": dataset_id,
            "tokenizer": tokenizer.digest,
            "unit": unit,
            "format": FORMAT,
            "per_file": TOKENS_PER_FILE,
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / META_FILE).is_file() and (found := _whole(folder, key)):
        return found
    with _stored(folder):
        writing = _Writing.begin(folder, key, id_type(tokenizer.vocab_size).itemsize)
        with encoders(tokenizer, workers) as group:
            for split in SPLITS:
                writing.split(split, read, group, unit, progress)
        _write_documents(folder)
        if unit == "document":
            _refuse_shared_documents(folder)
        files = TokenFiles(
            vocab_size=tokenizer.vocab_size,
            id_type=id_type(tokenizer.vocab_size).name,
            tokenizer_digest=tokenizer.digest,
            dataset_id=dataset_id,
            unit=unit,
            end_of_text_id=tokenizer.end_of_text_id,
            splits=writing.figures(),
            key=key,
        )
        write_atomic(folder / META_FILE, json.dumps(asdict(files), indent=2, sort_keys=True) + "\n")
        (folder / CURSOR_FILE).unlink()
        (folder / ROWS_FILE).unlink()
    return files


def check_token_files(folder: Path, tokenizer: Tokenizer, read: Callable[[str], Iterable[TextUnit]]) -> int:
    """Decode every unit and compare it with its text; return the number of units. `StorageError` names the first that differs."""
    meta = read_meta(folder)
    if meta.tokenizer_digest != tokenizer.digest:
        raise UserError("these token files were made by another tokenizer", where=str(folder))
    checked = 0
    for name in SPLITS:
        split = TokenSplit.open(folder, name)
        ids = split.document_ids()
        number = 0
        for number, (id, text) in enumerate(read(name), start=1):
            if (
                number > len(ids)
                or ids[number - 1] != id
                or tokenizer.decode(split.document(number - 1).tolist()) != text
            ):
                raise StorageError(
                    "the token files do not give this text back", where=f"{name}: {id}", fix="write them again"
                )
        if number != len(ids):
            raise StorageError(f"'{name}' has {len(ids)} units, the corpus {number}", where=str(folder))
        checked += number
    return checked


def _whole(folder: Path, key: str) -> TokenFiles | None:
    try:
        found = read_meta(folder)
    except UserError:  # of another format
        return None
    return found if found.key == key and are_whole(folder, found) else None


@dataclass
class _SplitState:
    """How far a split is: what stands in its files and, in `at_tokens`, in the one being written."""

    files: list[dict[str, Any]] = field(default_factory=list)
    at_tokens: int = 0
    tokens: int = 0
    units: int = 0
    documents: int = 0
    characters: int = 0
    text_bytes: int = 0
    last_document: str = ""
    is_done: bool = False


@dataclass
class _Writing:
    """The files being written, and the cursor that says how far they can be trusted."""

    folder: Path
    key: str
    width: int  # bytes of an id
    splits: dict[str, _SplitState]
    rows_bytes: int = 0
    _since_cursor: int = 0

    @classmethod
    def begin(cls, folder: Path, key: str, width: int) -> "_Writing":
        """Go on from the cursor of the same work, or from nothing."""
        path = folder / CURSOR_FILE
        if path.is_file():
            cursor = json.loads(path.read_text(encoding="utf-8"))
            if cursor["key"] == key:
                states = {name: _SplitState(**state) for name, state in cursor["splits"].items()}
                return cls(folder, key, width, states, cursor["rows_bytes"])
        for old in (folder / META_FILE, folder / DOCUMENTS_FILE, folder / ROWS_FILE, *folder.glob("*-[0-9]*.bin")):
            old.unlink(missing_ok=True)
        writing = cls(folder, key, width, {})
        (folder / ROWS_FILE).touch()
        writing._save_cursor()
        return writing

    def figures(self) -> dict[str, SplitFigures]:
        """Return the finished splits."""
        names = ("tokens", "units", "documents", "characters", "text_bytes")
        return {
            split: SplitFigures(
                files=tuple(TokenFile(**file) for file in state.files),
                **{name: getattr(state, name) for name in names},
            )
            for split, state in self.splits.items()
        }

    def split(
        self,
        split: str,
        read: Callable[[str], Iterable[TextUnit]],
        group: Encoders,
        unit: str,
        progress: Progress | None,
    ) -> None:
        """Write a split from where the cursor stands to its end."""
        state = self.splits.setdefault(split, _SplitState())
        if state.is_done:
            return
        units = islice(read(split), state.units, None)
        with self._rows() as rows:
            file = self._open(split, state)
            try:
                for ids, encoded in group.encode(_batches(units)):
                    for one in _units(ids, encoded, self.width, unit):
                        if state.at_tokens >= TOKENS_PER_FILE:
                            file = self._next_file(split, state, file)
                        self._write_unit(split, state, file, rows, one)
                    if progress:
                        progress(split, state.characters)
                    self._cursor_if_due(file, rows, sum(encoded.characters))
                self._close_file(split, state, file)
            finally:
                file.close()
            state.is_done = True
            _sync(rows)
            self._save_cursor()

    def _write_unit(self, split: str, state: _SplitState, file: BinaryIO, rows: BinaryIO, unit: "_Unit") -> None:
        file.write(unit.data)
        tokens = len(unit.data) // self.width
        row = [
            split, unit.id, unit.document, _file_name(split, len(state.files)), state.at_tokens, tokens,
            unit.characters, unit.text_bytes, unit.digest,
        ]  # fmt: skip
        line = (json.dumps(row) + "\n").encode()
        rows.write(line)
        self.rows_bytes += len(line)
        state.at_tokens += tokens
        state.tokens += tokens
        state.units += 1
        state.documents += unit.document != state.last_document or state.units == 1
        state.last_document = unit.document
        state.characters += unit.characters
        state.text_bytes += unit.text_bytes

    def _next_file(self, split: str, state: _SplitState, file: BinaryIO) -> BinaryIO:
        self._close_file(split, state, file)
        return self._open(split, state)

    def _open(self, split: str, state: _SplitState) -> BinaryIO:
        """Open the file in work, cut to what the cursor vouches for."""
        final = self.folder / _file_name(split, len(state.files))
        temporary = _temporary(final)
        if final.exists() and not temporary.exists():  # finished, but killed before the cursor said so
            final.replace(temporary)
        file = temporary.open("r+b" if temporary.exists() else "w+b")
        file.truncate(state.at_tokens * self.width)
        file.seek(0, os.SEEK_END)
        return file

    def _close_file(self, split: str, state: _SplitState, file: BinaryIO) -> None:
        """Give a finished file its name and its digest."""
        final = self.folder / _file_name(split, len(state.files))
        _sync(file)
        file.close()
        with _temporary(final).open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        _temporary(final).replace(final)
        state.files.append({"name": final.name, "sha256": digest, "tokens": state.at_tokens})
        state.at_tokens = 0

    @contextmanager
    def _rows(self) -> Iterator[BinaryIO]:
        with (self.folder / ROWS_FILE).open("r+b") as rows:
            rows.truncate(self.rows_bytes)
            rows.seek(0, os.SEEK_END)
            yield rows

    def _cursor_if_due(self, file: BinaryIO, rows: BinaryIO, characters: int) -> None:
        self._since_cursor += characters
        if self._since_cursor >= CURSOR_CHARACTERS:
            _sync(file)
            _sync(rows)
            self._save_cursor()
            self._since_cursor = 0

    def _save_cursor(self) -> None:
        states = {name: asdict(state) for name, state in self.splits.items()}
        cursor = {"key": self.key, "rows_bytes": self.rows_bytes, "splits": states}
        write_atomic(self.folder / CURSOR_FILE, json.dumps(cursor))


@dataclass(frozen=True)
class _Unit:
    """One document or segment, encoded."""

    id: str
    document: str
    data: bytes  # its ids and the end-of-text id
    characters: int
    text_bytes: int

    @property
    def digest(self) -> int:
        """64 bits that tell its ids from others, 0 when there are none but the end-of-text id."""
        digest = hashlib.blake2b(self.data, digest_size=8).digest()
        return int.from_bytes(digest, "little", signed=True) if self.characters else 0


def _units(ids: Iterable[str], encoded: Encoded, width: int, unit: str) -> Iterator[_Unit]:
    at = 0
    for id, tokens, characters, text_bytes in zip(
        ids, encoded.tokens, encoded.characters, encoded.text_bytes, strict=True
    ):
        document = id.rpartition("-")[0] if unit == "segment" else id  # a segment's id: document, hyphen, number
        yield _Unit(id, document, encoded.data[at : at + tokens * width], characters, text_bytes)
        at += tokens * width


def _refuse_shared_documents(folder: Path) -> None:
    """Raise `UserError` when documents of one split are those of another: what is held out would have been learnt."""
    found = []
    for split, held_out in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if count := shared_documents(folder, split, document_digests(folder, held_out)):
            found.append(f"{count:,} of {split} in {held_out}")
    if found:
        raise UserError(
            f"the same documents stand in two splits: {', '.join(found)}",
            where=str(folder),
            fix="take the copies out of the corpus (its stage does so), or out of all splits but one",
        )


def _file_name(split: str, number: int) -> str:
    return f"{split}-{number:05d}.bin"


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _batches(units: Iterable[TextUnit]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield lists of ids and of texts, about `BATCH_CHARACTERS` at a time."""
    ids: list[str] = []
    texts: list[str] = []
    size = 0
    for id, text in units:
        ids.append(id)
        texts.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield ids, texts
            ids, texts, size = [], [], 0
    if ids:
        yield ids, texts


@contextmanager
def _stored(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:  # of the reader, perhaps
            raise
        raise StorageError(f"cannot write: {error.strerror}", where=str(folder), fix="free some disk space") from error


def _write_documents(folder: Path) -> None:
    """Turn the rows into `documents.parquet`, some at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, whole = pa.string(), pa.int64()
    schema = pa.schema(
        [("split", text), ("id", text), ("document", text), ("file", text), ("start", whole), ("end", whole),
         ("tokens", whole), ("characters", whole), ("text_bytes", whole), ("digest", whole)]
    )  # fmt: skip
    path = folder / DOCUMENTS_FILE
    temporary = _temporary(path)
    with (folder / ROWS_FILE).open("rb") as lines, temporary.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd", write_statistics=False) as writer:
            while rows := [json.loads(line) for line in islice(lines, ROWS_AT_ONCE)]:
                split, id, document, name, start, tokens, *rest = map(list, zip(*rows, strict=True))
                end = [one + other for one, other in zip(start, tokens, strict=True)]
                columns = (split, id, document, name, start, end, tokens, *rest)
                arrays = [pa.array(column, type=kind) for column, kind in zip(columns, schema.types, strict=True)]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        _sync(file)
    temporary.replace(path)
