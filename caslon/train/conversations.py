"""Chat records to conversations that can be trained on: every row checked first, and none cut.

A record is `{"messages": [{"role", "content", "weight"?}, ...]}`; weight 0 mutes an assistant's turn. Ids come from the
tokenizer's one chat encoder, so a model is trained on exactly the ids it is served with. Imports no torch.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caslon.errors import UserError
from caslon.tokenizer.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant", "tool")
LISTED = 20  # problems named in one message; all are counted
MOST_TOO_LONG = 0.10  # posttraining habit: a run that would lose more rows than that asks first
VALIDATION_SHARE = 0.05


@dataclass(frozen=True)
class Conversation:
    """A conversation as ids; `scored` marks the ids the model learns to write (the assistant's, its end of turn included)."""

    ids: tuple[int, ...]
    scored: tuple[bool, ...]


@dataclass(frozen=True)
class Row:
    """One checked record and where it stands."""

    place: str
    record: Mapping[str, Any]

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The turns."""
        messages: Sequence[Mapping[str, Any]] = self.record["messages"]
        return messages

    @property
    def question(self) -> Sequence[Mapping[str, Any]]:
        """The turns before the last answer."""
        last = max(place for place, message in enumerate(self.messages) if message["role"] == "assistant")
        return self.messages[:last]

    @property
    def answer(self) -> str:
        """The last answer."""
        return str(self.messages[len(self.question)]["content"])


@dataclass(frozen=True)
class Encoded:
    """Rows as ids, and the rows that were left out because they are longer than the context."""

    rows: tuple[Row, ...]
    conversations: tuple[Conversation, ...]
    too_long: tuple[tuple[str, int], ...]  # place, tokens


def read_rows(paths: Iterable[Path], *, skip_bad: bool = False) -> tuple[list[Row], list[str]]:
    """Return the good rows of JSON Lines files and what is wrong with the others; `UserError` unless `skip_bad`."""
    rows: list[Row] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for path in paths:
        for place, line in _lines(path):
            record, problem = _parsed(line)
            if record is not None and problem is None:
                key = json.dumps(record["messages"], sort_keys=True)
                problem = f"the same conversation as {seen[key]}" if key in seen else None
                seen.setdefault(key, place)
            if record is None or problem is not None:
                problems.append(f"{place}: {problem}")
            else:
                rows.append(Row(place, record))
    if problems and not skip_bad:
        raise UserError(
            f"{len(problems)} of {len(rows) + len(problems)} conversations cannot be used\n  " + listed(problems),
            fix="mend these lines, or leave them out with skip_bad = true",
        )
    if not rows:
        raise UserError("there are no conversations", where=", ".join(map(str, paths)), fix="give a file with rows")
    return rows, problems


def listed(problems: Sequence[str]) -> str:
    """Return the first problems, one a line, and how many more there are."""
    more = [f"... and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    return "\n  ".join([*problems[:LISTED], *more])


def row_problem(record: object) -> str | None:
    """Return why a record is no conversation to train on, `None` when it is one."""
    if not isinstance(record, dict):
        return "a row must be a JSON object"
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        return "the field 'messages' is missing or empty"
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            role = message.get("role") if isinstance(message, dict) else None
            return f"message {number} has the unknown role {role!r}; known: {', '.join(ROLES)}"
        if message["role"] == "assistant" and message.get("tool_calls"):
            continue
        if not isinstance(message.get("content"), str) or not message["content"].strip():
            return f"message {number} ({message['role']}) has no content"
    scored = [message for message in messages if message["role"] == "assistant" and message.get("weight", 1)]
    return None if scored else "there is no assistant turn to learn from"


def encode_rows(rows: Iterable[Row], tokenizer: Tokenizer, context: int) -> Encoded:
    """Return rows as ids; those over the context are left out, and more than a tenth of them is a `UserError`."""
    kept: list[Row] = []
    conversations: list[Conversation] = []
    too_long: list[tuple[str, int]] = []
    for row in rows:
        conversation = encoded(row, tokenizer)
        if len(conversation.ids) - 1 > context:
            too_long.append((row.place, len(conversation.ids)))
        else:
            kept.append(row)
            conversations.append(conversation)
    total = len(kept) + len(too_long)
    if len(too_long) > MOST_TOO_LONG * total:
        lines = [f"{place}: {tokens} tokens" for place, tokens in too_long]
        raise UserError(
            f"{len(too_long)} of {total} conversations are longer than the context of {context} tokens; none is cut\n  "
            + listed(lines),
            fix="take them out, shorten them, or use a model with a longer context",
        )
    return Encoded(tuple(kept), tuple(conversations), tuple(too_long))


def encoded(row: Row, tokenizer: Tokenizer) -> Conversation:
    """Return a row's ids, scored where the assistant wrote and its turn is not muted."""
    chat = tokenizer.encode_chat(row.messages)
    if not chat.ranges:
        raise UserError(
            "the tokenizer's chat template rewrites earlier turns, so an answer has no place of its own",
            where=row.place,
            fix="use a template that only appends, such as caslon's own",
        )
    mask = list(chat.assistant_mask)
    for message, (start, end) in zip(row.messages, chat.ranges, strict=True):
        if message["role"] == "assistant" and not message.get("weight", 1):
            mask[start:end] = [False] * (end - start)
    return Conversation(tuple(chat.ids), tuple(mask))


def split_rows(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Return training and validation rows: a row's split follows from its first question, so no question is in both."""
    training: list[Row] = []
    held_out: list[Row] = []
    for row in rows:
        asked = next((message for message in row.messages if message["role"] == "user"), row.messages[0])
        text = " ".join(str(asked.get("content", "")).casefold().split())
        share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        (held_out if share < VALIDATION_SHARE else training).append(row)
    return training, held_out


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    if not path.is_file():
        raise UserError("there is no such file of conversations", where=str(path), fix="check the path in the recipe")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{path.name} line {number}", line


def _parsed(line: str) -> tuple[dict[str, Any] | None, str | None]:
    try:
        record = json.loads(line)
    except ValueError as error:
        return None, f"not JSON: {error}"
    problem = row_problem(record)
    return (record, None) if problem is None else (None, problem)
