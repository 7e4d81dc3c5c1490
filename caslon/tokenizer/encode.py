"""Texts to token files, and token files to arrays.

`tokens/<split>-00000.bin` holds the ids of a split, two or four bytes each, little-endian, in the order of the corpus, with the
end-of-text id after every unit (a document or a segment). `documents.parquet` says where each unit lies, `meta.json` what the
files are. The same texts give the same bytes for any number of processes.
"""

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from caslon.errors import CaslonError, StorageError, UserError
from caslon.folders import write_atomic
from caslon.tokenizer.bulk import BulkEncoder, IdArray, id_type
from caslon.tokenizer.tokenizer import Tokenizer

SPLITS = ("train", "validation", "test")
META_FILE = "meta.json"
DOCUMENTS_FILE = "documents.parquet"
BATCH_CHARACTERS = 1 << 20  # of text handed to a process at once; bounds memory together with the longest text

TextUnit = tuple[str, str]  # id, text
Progress = Callable[[str, int], None]  # split, characters encoded so far


@dataclass(frozen=True)
class SplitFigures:
    """What one split holds. Characters and bytes are of its text; the end-of-text ids are counted in `tokens` only."""

    file: str
    sha256: str
    tokens: int
    units: int
    characters: int
    text_bytes: int


@dataclass(frozen=True)
class TokenFiles:
    """The content of meta.json."""

    vocab_size: int
    id_type: str  # "uint16" | "uint32"
    tokenizer_digest: str
    dataset_id: str
    unit: str  # "document" | "segment"
    end_of_text_id: int
    splits: dict[str, SplitFigures]
    format: int = 1


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

    Texts are streamed: memory holds a batch per process. An interrupted call leaves no file that looks finished.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = _UnitRows()
    figures = {}
    with _encoders(tokenizer, workers) as encoders:
        for split in SPLITS:
            figures[split] = _write_split(folder, split, read(split), tokenizer, encoders, rows, progress)
    _write_documents(folder / DOCUMENTS_FILE, rows)
    files = TokenFiles(
        vocab_size=tokenizer.vocab_size,
        id_type=id_type(tokenizer.vocab_size).name,
        tokenizer_digest=tokenizer.digest,
        dataset_id=dataset_id,
        unit=unit,
        end_of_text_id=tokenizer.end_of_text_id,
        splits=figures,
    )
    write_atomic(folder / META_FILE, json.dumps(asdict(files), indent=2, sort_keys=True) + "\n")
    return files


def read_meta(folder: Path) -> TokenFiles:
    """Return what meta.json says; `UserError` when there are no token files."""
    path = folder / META_FILE
    if not path.is_file():
        raise UserError("no token files here", where=str(folder), fix="give the tokens folder of a tokenizer stage")
    data = json.loads(path.read_text(encoding="utf-8"))
    splits = {name: SplitFigures(**figures) for name, figures in data.pop("splits").items()}
    return TokenFiles(splits=splits, **data)


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """One split of the token files, mapped into memory: nothing is read before it is used."""

    folder: Path
    split: str
    meta: TokenFiles
    ids: IdArray  # [tokens], every document closed by the end-of-text id, corpus order

    @classmethod
    def open(cls, tokens_folder: Path, split: str) -> "TokenSplit":
        """Map a split; `UserError` when it does not exist, `StorageError` when its file has not the size it should."""
        meta = read_meta(tokens_folder)
        if split not in meta.splits:
            raise UserError(f"there is no split '{split}'", where=str(tokens_folder), fix=f"use one of {SPLITS}")
        figures = meta.splits[split]
        path = tokens_folder / figures.file
        kind = id_type(meta.vocab_size)
        if not path.is_file() or path.stat().st_size != figures.tokens * kind.itemsize:
            raise StorageError("a token file is missing or cut short", where=str(path), fix="run the tokenizer stage")
        ids = np.memmap(path, dtype=kind, mode="r") if figures.tokens else np.empty(0, dtype=kind)
        return cls(tokens_folder, split, meta, ids)

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of the split's text; end-of-text ids stand for none."""
        return self.meta.splits[self.split].text_bytes

    @property
    def tokenizer_digest(self) -> str:
        """The digest of the tokenizer that made the ids."""
        return self.meta.tokenizer_digest

    @property
    def dataset_id(self) -> str:
        """The digest of the corpus the text came from."""
        return self.meta.dataset_id

    @property
    def vocab_size(self) -> int:
        """The number of ids the tokenizer has."""
        return self.meta.vocab_size

    @property
    def end_of_text_id(self) -> int:
        """The id that closes every document."""
        return self.meta.end_of_text_id

    @cached_property
    def document_starts(self) -> npt.NDArray[np.int64]:
        """Where each document begins in `ids`, and the end of the last: `[documents + 1]`."""
        lengths = np.asarray(self._column("tokens"), dtype=np.int64)
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])

    def document_bytes(self) -> npt.NDArray[np.int64]:
        """Return the UTF-8 bytes of text of each document."""
        return np.asarray(self._column("text_bytes"), dtype=np.int64)

    def document_ids(self) -> list[str]:
        """Return the id of each document (of each segment, when the unit is the segment)."""
        return list(self._column("id"))

    def document(self, number: int) -> IdArray:
        """Return the ids of one document without its end-of-text id."""
        return self.ids[self.document_starts[number] : self.document_starts[number + 1] - 1]

    def _column(self, name: str) -> list[Any]:
        import pyarrow.parquet as pq

        table = pq.read_table(
            self.folder / DOCUMENTS_FILE, columns=[name], filters=[("split", "=", self.split)], use_threads=False
        )
        values: list[Any] = table[name].to_pylist()
        return values


@dataclass
class _UnitRows:
    """The columns of documents.parquet while they grow."""

    split: list[str] = field(default_factory=list)
    id: list[str] = field(default_factory=list)
    file: list[str] = field(default_factory=list)
    start: list[int] = field(default_factory=list)  # in tokens of the file
    tokens: list[int] = field(default_factory=list)  # with the end-of-text id
    characters: list[int] = field(default_factory=list)
    text_bytes: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Encoded:
    """A batch of units as the bytes a token file holds, with counts per unit."""

    data: bytes
    tokens: list[int]
    characters: list[int]
    text_bytes: list[int]


def _encode_batch(encoder: BulkEncoder, texts: Sequence[str], end: bytes) -> _Encoded:
    parts = [encoder.encode_bytes(text) + end for text in texts]
    return _Encoded(
        data=b"".join(parts),
        tokens=[len(part) // len(end) for part in parts],
        characters=[len(text) for text in texts],
        text_bytes=[len(text.encode()) for text in texts],
    )


def _write_split(
    folder: Path,
    split: str,
    units: Iterable[TextUnit],
    tokenizer: Tokenizer,
    encoders: "_Encoders",
    rows: _UnitRows,
    progress: Progress | None,
) -> SplitFigures:
    name = f"{split}-00000.bin"
    first_row, at, characters, text_bytes = len(rows.id), 0, 0, 0
    digest = hashlib.sha256()
    with _new_file(folder / name) as file:
        for ids, encoded in encoders.encode(_batches(units)):
            file.write(encoded.data)
            digest.update(encoded.data)
            for id, tokens in zip(ids, encoded.tokens, strict=True):
                rows.id.append(id)
                rows.start.append(at)
                at += tokens
            rows.tokens += encoded.tokens
            rows.characters += encoded.characters
            rows.text_bytes += encoded.text_bytes
            characters += sum(encoded.characters)
            text_bytes += sum(encoded.text_bytes)
            if progress:
                progress(split, characters)
    units_written = len(rows.id) - first_row
    rows.split += [split] * units_written
    rows.file += [name] * units_written
    return SplitFigures(name, digest.hexdigest(), at, units_written, characters, text_bytes)


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
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name only when it is whole and on disk."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write: {error.strerror}", where=str(path), fix="free some disk space") from error


def _write_documents(path: Path, rows: _UnitRows) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = pa.int64()
    schema = pa.schema(
        [("split", pa.string()), ("id", pa.string()), ("file", pa.string()), ("start", whole), ("tokens", whole),
         ("characters", whole), ("text_bytes", whole)]
    )  # fmt: skip
    columns = [pa.array(getattr(rows, name), type=kind) for name, kind in zip(schema.names, schema.types, strict=True)]
    with _new_file(path) as file:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), file, compression="zstd", write_statistics=False)


class _Encoders:
    """Encodes batches in this process."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encoder = BulkEncoder(tokenizer)
        self._end = _end_bytes(tokenizer)

    def encode(self, batches: Iterable[tuple[list[str], list[str]]]) -> Iterator[tuple[list[str], _Encoded]]:
        """Yield each batch's ids of units and encoded texts, in order."""
        for ids, texts in batches:
            yield ids, _encode_batch(self._encoder, texts, self._end)


class _ProcessEncoders(_Encoders):
    """Encodes batches in several processes, batch by batch in turn, so that the order is the same for any number."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections

    def encode(self, batches: Iterable[tuple[list[str], list[str]]]) -> Iterator[tuple[list[str], _Encoded]]:
        at_work: list[list[str] | None] = [None] * len(self._connections)
        turn = count()
        for ids, texts in batches:
            place = next(turn) % len(at_work)
            yield from self._finished(at_work, place)
            self._connections[place].send(texts)
            at_work[place] = ids
        for _ in at_work:
            yield from self._finished(at_work, next(turn) % len(at_work))

    def _finished(self, at_work: list[list[str] | None], place: int) -> Iterator[tuple[list[str], _Encoded]]:
        ids = at_work[place]
        if ids is None:
            return
        at_work[place] = None
        try:
            result = self._connections[place].recv()
        except EOFError:
            raise CaslonError(
                "an encoding process ended early", fix="run again; with less memory, fewer workers"
            ) from None
        if isinstance(result, CaslonError):
            raise result
        yield ids, result


@contextmanager
def _encoders(tokenizer: Tokenizer, workers: int) -> Iterator[_Encoders]:
    if workers <= 1:
        yield _Encoders(tokenizer)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
    pipes = [context.Pipe() for _ in range(workers)]
    processes = [context.Process(target=_work, args=(theirs, tokenizer), daemon=True) for _, theirs in pipes]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    try:
        yield _ProcessEncoders([ours for ours, _ in pipes])
    finally:
        for ours, _ in pipes:
            ours.close()  # the processes end when their pipe does
        for process in processes:
            process.join()


def _work(connection: Connection, tokenizer: Tokenizer) -> None:
    """Encode what comes through the pipe until it is closed."""
    encoder, end = BulkEncoder(tokenizer), _end_bytes(tokenizer)
    while True:
        try:
            texts = connection.recv()
        except EOFError:
            return
        try:
            result: _Encoded | CaslonError = _encode_batch(encoder, texts, end)
        except CaslonError as error:
            result = error
        try:
            connection.send(result)
        except OSError:  # the main process gave up
            return


def _end_bytes(tokenizer: Tokenizer) -> bytes:
    return np.array([tokenizer.end_of_text_id], dtype=id_type(tokenizer.vocab_size)).tobytes()
