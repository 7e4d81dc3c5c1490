"""Token files to arrays mapped into memory: `meta.json`, `<split>-NNNNN.bin` and `documents.parquet` as one object per split.

A split may lie in several files; a unit (document or segment) never does. What is asked for is read, nothing else.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from caslon.errors import StorageError, UserError
from caslon.tokenizer.bulk import IdArray, id_type

SPLITS = ("train", "validation", "test")
META_FILE = "meta.json"
DOCUMENTS_FILE = "documents.parquet"
FORMAT = 3
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenFile:
    """One file of ids."""

    name: str
    sha256: str
    tokens: int


@dataclass(frozen=True)
class SplitFigures:
    """What one split holds. Characters and bytes are of its text; the end-of-text ids are counted in `tokens` only."""

    files: tuple[TokenFile, ...]
    tokens: int
    units: int
    documents: int
    characters: int
    text_bytes: int

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "SplitFigures":
        """Return the figures as `meta.json` holds them."""
        return cls(files=tuple(TokenFile(**file) for file in data.pop("files")), **data)


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
    key: str  # the digest of everything the files depend on
    format: int = FORMAT

    def total(self, name: str) -> int:
        """Return the sum of a figure over all splits."""
        return sum(int(getattr(figures, name)) for figures in self.splits.values())


def read_meta(folder: Path) -> TokenFiles:
    """Return what meta.json says; `UserError` when there are no token files, or those of an older caslon."""
    path = folder / META_FILE
    if not path.is_file():
        raise UserError("no token files here", where=str(folder), fix="give the tokens folder of a tokenizer stage")
    data = json.loads(path.read_text(encoding="utf-8"))
    if data.get("format") != FORMAT:
        raise UserError(
            f"these token files have format {data.get('format')}, this caslon reads {FORMAT}",
            where=str(path),
            fix="write them again: caslon tokenizer tokens, or run the tokenizer stage",
        )
    splits = {name: SplitFigures.from_json(figures) for name, figures in data.pop("splits").items()}
    return TokenFiles(splits=splits, **data)


def are_whole(folder: Path, meta: TokenFiles) -> bool:
    """Return whether every file is there with the size it should have."""
    width = id_type(meta.vocab_size).itemsize
    expected = {file.name: file.tokens * width for figures in meta.splits.values() for file in figures.files}
    there = {name: (folder / name).stat().st_size if (folder / name).is_file() else -1 for name in expected}
    return there == expected and (folder / DOCUMENTS_FILE).is_file()


class JoinedIds:
    """Several mapped files as one array: length, slices, single ids, the largest id and its place."""

    def __init__(self, parts: Sequence[IdArray]) -> None:
        self._parts = parts
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.dtype = parts[0].dtype
        self.shape = (int(self._starts[-1]),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            return self._between(start, max(start, stop))[::step] if step > 0 else np.asarray(self)[place]
        if isinstance(place, int | np.integer):
            at = range(len(self))[int(place)]
            part = int(np.searchsorted(self._starts, at, side="right")) - 1
            return self._parts[part][at - int(self._starts[part])]
        return np.asarray(self)[place]

    def _between(self, start: int, stop: int) -> IdArray:
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        found = []
        for part, begin in zip(self._parts[first:], self._starts[first:], strict=False):
            if begin >= stop:
                break
            found.append(part[max(start - int(begin), 0) : stop - int(begin)])
        return found[0] if len(found) == 1 else np.concatenate(found or [np.empty(0, self.dtype)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        whole = np.concatenate(self._parts)
        return whole if dtype is None else whole.astype(dtype)

    def max(self) -> int:
        """Return the largest id."""
        return max(int(part.max()) for part in self._parts)

    def argmax(self) -> int:
        """Return the first place of the largest id."""
        largest = self.max()
        number = next(number for number, part in enumerate(self._parts) if int(part.max()) == largest)
        return int(self._starts[number]) + int(self._parts[number].argmax())

    def tolist(self) -> list[int]:
        """Return all ids."""
        return [id for part in self._parts for id in part.tolist()]


@dataclass(frozen=True, eq=False)
class TokenSplit:
    """One split of the token files, mapped into memory: nothing is read before it is used."""

    folder: Path
    split: str
    meta: TokenFiles
    ids: IdArray  # [tokens], every unit closed by the end-of-text id, corpus order; `JoinedIds` for several files

    @classmethod
    def open(cls, tokens_folder: Path, split: str) -> "TokenSplit":
        """Map a split; `UserError` when it does not exist, `StorageError` when a file has not the size it should."""
        meta = read_meta(tokens_folder)
        if split not in meta.splits:
            raise UserError(f"there is no split '{split}'", where=str(tokens_folder), fix=f"use one of {SPLITS}")
        parts = [_mapped(tokens_folder / file.name, meta, file.tokens) for file in meta.splits[split].files]
        ids = parts[0] if len(parts) == 1 else cast(IdArray, JoinedIds(parts))
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
        """The id that closes every unit."""
        return self.meta.end_of_text_id

    @cached_property
    def document_starts(self) -> npt.NDArray[np.int64]:
        """Where each unit begins in `ids`, and the end of the last: `[units + 1]`."""
        lengths = np.concatenate([np.zeros(1, dtype=np.int64), *_numbers(self.folder, self.split, "tokens")])
        return np.cumsum(lengths, out=lengths)

    def document_bytes(self) -> npt.NDArray[np.int64]:
        """Return the UTF-8 bytes of text of each unit."""
        return np.concatenate([np.empty(0, dtype=np.int64), *_numbers(self.folder, self.split, "text_bytes")])

    def document_ids(self) -> list[str]:
        """Return the id of each document (of each segment, when the unit is the segment)."""
        return list(self._column("id"))

    def document(self, number: int) -> IdArray:
        """Return the ids of one unit without its end-of-text id."""
        return self.ids[self.document_starts[number] : self.document_starts[number + 1] - 1]

    def unit_at(self, position: int) -> int:
        """Return the number of the unit that holds a position of `ids`; its end-of-text id belongs to it."""
        if not 0 <= position < len(self.ids):
            raise UserError(f"position {position:,} is outside the {len(self.ids):,} ids of '{self.split}'")
        return int(np.searchsorted(self.document_starts, position, side="right")) - 1

    def _column(self, name: str) -> list[Any]:
        import pyarrow.parquet as pq

        table = pq.read_table(
            self.folder / DOCUMENTS_FILE, columns=[name], filters=[("split", "=", self.split)], use_threads=False
        )
        values: list[Any] = table[name].to_pylist()
        return values


def document_digests(folder: Path, split: str) -> Numbers:
    """Return 64 bits of the digest of each unit's ids, 0 for an empty one."""
    return np.concatenate([np.empty(0, dtype=np.int64), *_numbers(folder, split, "digest")])


def shared_documents(folder: Path, split: str, digests: Numbers) -> int:
    """Return how many documents of a split have one of these digests, which are few beside it; empty ones are not counted."""
    wanted = np.unique(digests[digests != 0])
    return sum(int(np.isin(found, wanted).sum()) for found in _numbers(folder, split, "digest"))


def _numbers(folder: Path, split: str, column: str) -> Iterator[Numbers]:
    """Yield a split's whole numbers some at a time, so that memory holds what is made of them and no more."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(folder / DOCUMENTS_FILE) as file:
        for batch in file.iter_batches(columns=["split", column], batch_size=1 << 18, use_threads=False):
            yield batch.filter(pc.equal(batch["split"], split))[column].to_numpy()


def _mapped(path: Path, meta: TokenFiles, tokens: int) -> IdArray:
    kind = id_type(meta.vocab_size)
    if not path.is_file() or path.stat().st_size != tokens * kind.itemsize:
        raise StorageError("a token file is missing or cut short", where=str(path), fix="run the tokenizer stage")
    return np.memmap(path, dtype=kind, mode="r") if tokens else np.empty(0, dtype=kind)
