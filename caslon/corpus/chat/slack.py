"""A Slack export becomes rows in which one person answers: others' messages as user turns, the person's as assistant turns.

Only people on the list of consent appear at all; messages of others, of bots and of the system (joins, topics) are left out and
counted. A row is a thread, or a stretch of a channel without a pause over 30 minutes. Mentions become `[PERSON_1]`, the same
number for the same person throughout a row.
"""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path, PurePosixPath
from typing import Any

from caslon.corpus.chat import alpaca
from caslon.corpus.chat.record import Row, UnfitError, canonical
from caslon.errors import StorageError, UserError

PAUSE_SECONDS = 30 * 60
SPOKEN = frozenset({"", "thread_broadcast", "me_message", "file_share"})  # subtypes; all others are events
DAY = re.compile(r"\d{4}-\d{2}-\d{2}\.json")
MENTION = re.compile(r"<@([A-Z0-9_]+)(?:\|[^>]*)?>")
LINK = re.compile(r"<([#!]?)([^|>]+)(?:\|([^>]*))?>")
FIRST_SECOND = 1_600_000_000


@dataclass(frozen=True, slots=True)
class Spoken:
    """One message: who, when (seconds), in which channel and thread, and what."""

    author: str
    time: float
    channel: str
    thread: str
    text: str


@dataclass
class SlackExport:
    """The messages of an export by people who consented, and how many were left out, by reason."""

    names: dict[str, str]  # user id -> name
    messages: list[Spoken]
    left_out: Counter[str] = field(default_factory=Counter)


def read_export(path: Path, authors: Iterable[str]) -> SlackExport:
    """Return the messages of a ZIP or unpacked export by these authors, given as user ids or names.

    `UserError` for a file that is no export, nobody on the list, or a name that the export does not know.
    """
    files = dict(_files(path))
    users = [user for user in files.get("users.json", []) if isinstance(user, dict) and "id" in user]
    names = {str(user["id"]): str(user.get("name") or user["id"]) for user in users}
    ids = {known: identifier for identifier, name in names.items() for known in (identifier, name)}
    unknown = [author for author in authors if author not in ids]
    if unknown or not authors:
        raise UserError(
            f"the export has no user {', '.join(unknown)}" if unknown else "nobody is on the list of consent",
            where=str(path),
            fix="name the people who agreed, by user id or name: --author ada --author U024BE7LH",
        )
    consented = {ids[author] for author in authors}
    export = SlackExport(names, [])
    for name, records in sorted(files.items()):
        place = PurePosixPath(name)
        if DAY.fullmatch(place.name):
            for record in records if isinstance(records, list) else ():
                _take(export, record, place.parent.name, consented)
    export.messages.sort(key=lambda message: (message.channel, message.time, message.author))
    return export


def persona_rows(export: SlackExport, persona: str, *, source: str = "", licence: str = "") -> Iterator[Row]:
    """Yield the rows in which `persona` (a user id or name) answers; stretches without a question and an answer give none."""
    ids = {known: identifier for identifier, name in export.names.items() for known in (identifier, name)}
    if persona not in ids:
        raise UserError(f"the export has no user {persona}", fix=f"one of {', '.join(sorted(export.names.values()))}")
    for group, messages in conversations(export.messages):
        turns = _turns(messages, ids[persona])
        if turns:
            record = {"conversation": group, "channel": messages[0].channel, "time": messages[0].time}
            row = canonical({"messages": turns}, record, ())
            yield {**row, "source": source, "licence": licence}


def conversations(messages: Sequence[Spoken]) -> Iterator[tuple[str, list[Spoken]]]:
    """Yield `(name, messages)` of each thread and of each stretch of a channel without a long pause."""
    threads: dict[tuple[str, str], list[Spoken]] = {}
    stretches: dict[str, list[list[Spoken]]] = {}
    for message in messages:
        if message.thread:
            threads.setdefault((message.channel, message.thread), []).append(message)
            continue
        found = stretches.setdefault(message.channel, [])
        if not found or message.time - found[-1][-1].time > PAUSE_SECONDS:
            found.append([])
        found[-1].append(message)
    for (channel, thread), spoken in threads.items():
        yield f"{channel}/{thread}", spoken
    for channel, parts in stretches.items():
        for part in parts:
            yield f"{channel}/{part[0].time:.6f}", part


def turns_of_row(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the turns of a row that a Slack thread can hold: `(USER or ASSISTANT, text)`."""
    messages = alpaca.plain_turns(row)
    if messages[0]["role"] == "system":
        raise UnfitError("Slack has no system message")
    turns = [(message["role"].upper(), message["content"]) for message in messages]
    if any(not text.strip() or text != text.strip() for _, text in turns):
        raise UnfitError("Slack strips blanks around a message")
    return turns


def write_export(path: Path, rows: Sequence[Sequence[tuple[str, str]]]) -> None:
    """Write rows as a Slack export (ZIP): a channel of threads by the users `user` and `assistant`."""
    users = [{"id": name.upper(), "name": name} for name in ("user", "assistant")]
    messages = []
    second = FIRST_SECOND
    for turns in rows:
        thread = f"{second}.000000"
        for author, text in turns:
            escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            messages.append(
                {"type": "message", "user": author, "text": escaped, "ts": f"{second}.000000", "thread_ts": thread}
            )
            second += 1
    members = {"users.json": users, "channels.json": [{"name": "rows"}], "rows/2020-09-13.json": messages}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in members.items():
                archive.writestr(zipfile.ZipInfo(name), json.dumps(value))
    except OSError as error:
        raise StorageError(
            f"cannot write: {error.strerror or error}", where=str(path), fix="free disk space"
        ) from error


def _files(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*.json")):
                yield file.relative_to(path).as_posix(), json.loads(file.read_bytes())
            return
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(".json"):
                    yield name, json.loads(archive.read(name))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"not a Slack export: {error}", where=str(path), fix="give the ZIP or its folder") from error


def _take(export: SlackExport, record: Any, channel: str, consented: set[str]) -> None:
    if not isinstance(record, dict) or record.get("type") != "message" or record.get("subtype", "") not in SPOKEN:
        export.left_out["events"] += 1
    elif record.get("bot_id") or record.get("subtype") == "bot_message":
        export.left_out["bots"] += 1
    elif record.get("user") not in consented:
        export.left_out["without consent"] += 1
    elif not str(record.get("text") or "").strip():
        export.left_out["empty"] += 1
    else:
        thread = str(record.get("thread_ts") or "")
        export.messages.append(Spoken(record["user"], float(record["ts"]), channel, thread, record["text"]))


def _turns(messages: Sequence[Spoken], persona: str) -> list[dict[str, Any]]:
    """Return turns from the first question to the last answer; successive messages of one side become one turn."""
    numbers: dict[str, int] = {}
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.author == persona else "user"
        text = _plain(message.text, numbers)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += "\n" + text
        elif turns or role == "user":
            turns.append({"role": role, "content": text})
    return turns if not turns or turns[-1]["role"] == "assistant" else turns[:-1]


def _plain(text: str, numbers: dict[str, int]) -> str:
    """Return a message without Slack's markup, with a placeholder for each person it mentions."""
    text = MENTION.sub(lambda found: f"[PERSON_{numbers.setdefault(found[1], len(numbers) + 1)}]", text)
    return unescape(LINK.sub(_link, text)).strip()


def _link(found: re.Match[str]) -> str:
    kind, target, label = found.groups()
    if kind == "#":
        return f"#{label or target}"
    return f"@{label or target}" if kind == "!" else label or target
