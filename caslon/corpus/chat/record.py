"""The canonical row every form is read into and written from: one JSON object a line.

A conversation is `{"id", "messages", "tools", "source", "licence", "extra"}`; a preference has `prompt`, `chosen` and `rejected`
(lists of messages) in place of `messages`. A message is `{"role", "content"}` and where there are `tool_calls`, `tool_call_id`,
`name`, `weight`, `reasoning_content`, in OpenAI's shapes. `extra` keeps the fields that a form does not know, a message's own
`extra` those of a message. Where plain writing would not give back the record as it came, `extra._layout` holds its fields.
"""

import gzip
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caslon.errors import StorageError, UserError

Row = dict[str, Any]
Message = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")
CONTENT_FIELDS = ("messages", "prompt", "chosen", "rejected", "tools")
LAYOUT = "_layout"
ID_DIGITS = 16


class UnfitError(ValueError):
    """A record that is not of a form, or a row that a form cannot hold; the message says why."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that was left out: its number in the file (from 1), its id where it has one, and why."""

    row: int
    reason: str
    id: str = ""


def canonical(body: Mapping[str, Any], original: Mapping[str, Any], known: Collection[str]) -> Row:
    """Return the row of a body (`messages`, or `prompt`, `chosen`, `rejected`), with fields not `known` in `extra`."""
    if LAYOUT in original:
        raise UnfitError(f"the field '{LAYOUT}' is reserved")
    given = original.get("id")
    has_id = isinstance(given, str) and bool(given)
    extra = {key: value for key, value in original.items() if key not in known and not (key == "id" and has_id)}
    content = {**body, "tools": body.get("tools", [])}
    return {"id": given if has_id else content_id(content), **content, "source": "", "licence": "", "extra": extra}


def content_id(row: Mapping[str, Any]) -> str:
    """Return the id of a row that came without one: 16 hex digits of what it says."""
    text = json.dumps(said(row), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_DIGITS]


def said(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said in a row, without id, source, licence and extra fields."""
    return {key: row[key] for key in CONTENT_FIELDS if row.get(key)}


def foreign_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that go back beside those of a form: the id a row came with, and what the form did not know."""
    fields = {key: value for key, value in row.get("extra", {}).items() if key != LAYOUT}
    return fields if "id" in fields or row["id"] == content_id(row) else {"id": row["id"], **fields}


def is_canonical(record: object) -> bool:
    """Return whether a record has the fields that only canonical rows have."""
    return (
        isinstance(record, dict)
        and isinstance(record.get("extra"), dict)
        and {"id", "source", "licence"} <= set(record)
    )


def all_messages(row: Mapping[str, Any]) -> list[Message]:
    """Return every message of a row, those of both answers of a preference too."""
    return [message for key in ("messages", "prompt", "chosen", "rejected") for message in row.get(key, ())]


def conversation_text(row: Mapping[str, Any]) -> str:
    """Return what is said in a row, message after message: what duplicates are found by."""
    return "\n\n".join(str(message.get("content") or message.get("tool_calls") or "") for message in all_messages(row))


def first_question(row: Mapping[str, Any]) -> str:
    """Return the first thing a user says, in lower case with single spaces; the first message where no user speaks."""
    messages = row.get("messages") or row.get("prompt") or [{}]
    asked = next((message for message in messages if message.get("role") == "user"), messages[0])
    return " ".join(str(asked.get("content") or "").casefold().split())


def with_extra(message: Message, fields: Mapping[str, Any]) -> Message:
    """Return a message with the fields its form does not know, where there are some."""
    return {**message, "extra": dict(fields)} if fields else message


def read_records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield `(row number, record)` of a JSON list or JSON Lines, packed with gzip or not; a bad line as `UnfitError`."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the chat data: {error}", where=str(path), fix="check the path") from error
    if text.lstrip()[:1] == "[":
        try:
            records = json.loads(text)
        except ValueError:
            records = None  # lines of lists
        if isinstance(records, list):
            yield from enumerate(records, start=1)
            return
    for number, line in enumerate((line for line in text.split("\n") if line.strip()), start=1):
        try:
            yield number, json.loads(line)
        except ValueError as error:
            yield number, UnfitError(f"not JSON: {error}")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSON Lines, whole or not at all, and return how many."""
    partial = path.with_name(path.name + ".partial")
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(
                    json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
                )
                file.write("\n")
                count += 1
        partial.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write: {error.strerror or error}", where=str(path), fix="free disk space"
        ) from error
    return count
