"""Conversations to token files: `chat.bin` (ids), `chat-mask.bin` (one byte an id: is it learned?), `rows.parquet`, `meta.json`.

A row is a whole conversation in the tokenizer's template. One that is longer than the context is listed, never cut.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caslon.errors import StorageError, UserError
from caslon.folders import digest_of, sha256_of_file, write_atomic
from caslon.tokenizer.bulk import IdArray, id_type
from caslon.tokenizer.chat import EncodedChat, encode_chat
from caslon.tokenizer.token_files import META_FILE
from caslon.tokenizer.tokenizer import Tokenizer

IDS_FILE = "chat.bin"
MASK_FILE = "chat-mask.bin"
ROWS_FILE = "rows.parquet"
FORMAT = 1

Conversation = tuple[str, Mapping[str, Any]]  # where it stands, {"messages": [...], "tools": [...]}


@dataclass(frozen=True)
class TooLong:
    """A row that was left out because it does not fit into the context."""

    row: str
    tokens: int


@dataclass(frozen=True)
class ChatFiles:
    """The content of meta.json."""

    vocab_size: int
    id_type: str
    tokenizer_digest: str
    context: int
    rows: int
    tokens: int
    learned_tokens: int
    too_long: tuple[TooLong, ...]
    sha256: Mapping[str, str]  # by file
    key: str
    kind: str = "chat"
    format: int = FORMAT


def read_conversations(paths: Iterable[Path]) -> Iterator[Conversation]:
    """Yield the rows of JSON Lines files with their place; `UserError` names a line that is no conversation."""
    for path in paths:
        if not path.is_file():
            raise UserError("no such file of conversations", where=str(path))
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path.name} line {number}", _record(line, f"{path}, line {number}")


def write_chat_files(
    folder: Path, tokenizer: Tokenizer, conversations: Iterable[Conversation], *, context: int
) -> ChatFiles:
    """Write every conversation that fits into `context` ids; the others are listed in what is returned and in meta.json.

    An answer with `"weight": 0` is not learned. `UserError` names a row the template refuses, or whose earlier turns it rewrites.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / META_FILE).unlink(missing_ok=True)  # while the files are being written nothing looks finished
    rows: list[dict[str, Any]] = []
    too_long: list[TooLong] = []
    at = learned = 0
    kind = id_type(tokenizer.vocab_size)
    with (folder / IDS_FILE).open("wb") as ids_file, (folder / MASK_FILE).open("wb") as mask_file:
        for place, record in conversations:
            chat = _encoded(tokenizer, place, record)
            if len(chat.ids) > context:
                too_long.append(TooLong(place, len(chat.ids)))
                continue
            ids_file.write(np.array(chat.ids, dtype=kind).tobytes())
            mask_file.write(bytes(chat.assistant_mask))
            rows.append(_row(place, record, chat, at))
            at += len(chat.ids)
            learned += sum(chat.assistant_mask)
    _write_rows(folder / ROWS_FILE, rows)
    digests = {name: sha256_of_file(folder / name) for name in (IDS_FILE, MASK_FILE, ROWS_FILE)}
    files = ChatFiles(
        vocab_size=tokenizer.vocab_size,
        id_type=kind.name,
        tokenizer_digest=tokenizer.digest,
        context=context,
        rows=len(rows),
        tokens=at,
        learned_tokens=learned,
        too_long=tuple(too_long),
        sha256=digests,
        key=digest_of({"tokenizer": tokenizer.digest, "context": context, "files": digests, "format": FORMAT}),
    )
    write_atomic(folder / META_FILE, json.dumps(asdict(files), indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return files


@dataclass(frozen=True, eq=False)
class ChatRows:
    """The rows of chat token files, mapped into memory."""

    meta: ChatFiles
    ids: IdArray
    mask: npt.NDArray[np.uint8]
    folder: Path

    @classmethod
    def open(cls, folder: Path) -> "ChatRows":
        """Map the files; `UserError` when there are none, `StorageError` when one has not the size it should."""
        path = folder / META_FILE
        data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if data.get("kind") != "chat":
            raise UserError("no chat token files here", where=str(folder), fix="write them: caslon tokenizer tokens")
        meta = ChatFiles(**{**data, "too_long": tuple(TooLong(**row) for row in data["too_long"])})
        kind = id_type(meta.vocab_size)
        for name, size in ((IDS_FILE, meta.tokens * kind.itemsize), (MASK_FILE, meta.tokens)):
            if not (folder / name).is_file() or (folder / name).stat().st_size != size:
                raise StorageError("a token file is missing or cut short", where=str(folder / name))
        if not meta.tokens:
            return cls(meta, np.empty(0, kind), np.empty(0, np.uint8), folder)
        ids, mask = np.memmap(folder / IDS_FILE, kind, "r"), np.memmap(folder / MASK_FILE, np.uint8, "r")
        return cls(meta, ids, mask, folder)

    def __len__(self) -> int:
        return self.meta.rows

    def __getitem__(self, number: int) -> EncodedChat:
        row = self.table[number]
        part = slice(row["start"], row["end"])
        ranges = list(zip(row["message_starts"], row["message_ends"], strict=True))
        return EncodedChat(self.ids[part].tolist(), [bool(value) for value in self.mask[part]], ranges)

    @cached_property
    def table(self) -> list[dict[str, Any]]:
        """The rows of rows.parquet."""
        import pyarrow.parquet as pq

        found: list[dict[str, Any]] = pq.read_table(self.folder / ROWS_FILE, use_threads=False).to_pylist()
        return found


def _record(line: str, where: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise UserError(f"not JSON: {error}", where=where) from error
    if not isinstance(record, dict) or not isinstance(record.get("messages"), list):
        raise UserError("a row needs a list of messages", where=where, fix='give {"messages": [{"role": ...}, ...]}')
    return record


def _encoded(tokenizer: Tokenizer, place: str, record: Mapping[str, Any]) -> EncodedChat:
    try:
        chat = encode_chat(tokenizer, record["messages"], tools=record.get("tools"))
    except UserError as error:
        raise UserError(error.what, where=f"{place}, {error.where}" if error.where else place, fix=error.fix) from error
    if not chat.ranges:
        raise UserError("the chat template rewrites earlier turns, so a message has no place of its own", where=place)
    mask = list(chat.assistant_mask)
    for message, (start, end) in zip(record["messages"], chat.ranges, strict=True):
        if not message.get("weight", 1):
            mask[start:end] = [False] * (end - start)
    return EncodedChat(chat.ids, mask, chat.ranges)


def _row(place: str, record: Mapping[str, Any], chat: EncodedChat, at: int) -> dict[str, Any]:
    return {
        "row": place,
        "start": at,
        "end": at + len(chat.ids),
        "learned": sum(chat.assistant_mask),
        "roles": [message["role"] for message in record["messages"]],
        "message_starts": [start for start, _ in chat.ranges],
        "message_ends": [end for _, end in chat.ranges],
    }


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, whole = pa.string(), pa.int64()
    schema = pa.schema(
        [("row", text), ("start", whole), ("end", whole), ("learned", whole), ("roles", pa.list_(text)),
         ("message_starts", pa.list_(whole)), ("message_ends", pa.list_(whole))]
    )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path, compression="zstd", write_statistics=False)
