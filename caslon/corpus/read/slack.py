"""Slack exports: turns the channels of an export into conversations of those who agreed.

Bots and notes of who joined are dropped; so is every message whose author is not among `consenting_authors`, and no word of it
is kept. A thread is a conversation, and so is what stands in a channel with less than half an hour between two messages.
Authors and mentions become placeholders, the same for one person in the whole file. The plain text that ranges count in is
the JSON of the members, parted by form feeds; a single JSON file of messages is read as one channel.
"""

import html
import json
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from caslon.corpus.detect import DecodeFailed, decode
from caslon.corpus.document import Block, Reject
from caslon.corpus.read.reading import Extracted, Opened, Part, ReadSettings, Source, Unreadable, joined_parts
from caslon.corpus.read.zipped import READ_ERRORS, open_zip

STEP = "read"
WHAT = "the Slack export"
MEMBER_BREAK = "\f"
PAUSE_SECONDS = 1800.0
MEMBER = re.compile(r"[^/]+/[^/]+\.json")
REFERENCE = re.compile(r"<([@#!]?)([^<>|\n]*)(?:\|([^<>\n]*))?>")
KEPT_SUBTYPES = (None, "thread_broadcast", "me_message", "file_share")
BLANK = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a person, with its range in the plain text."""

    author: str
    seconds: float
    stamp: str
    thread: str
    text: str
    start: int
    end: int


@dataclass
class Channel:
    """The messages of one channel, and how many were left out and why."""

    name: str
    messages: list[Message] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    damaged: list[tuple[int, int, str]] = field(default_factory=list)


def open_slack(data: bytes) -> Opened:
    """Return the JSON of users and channels. Raises `Unreadable`."""
    with open_zip(data, WHAT) as archive:
        names = ["users.json", *sorted(name for name in archive.namelist() if MEMBER.fullmatch(name))]
        text, parts = joined_parts(((name, _member_text(archive, name)) for name in names), MEMBER_BREAK)
    return Opened(text, parts)


def _member_text(archive: zipfile.ZipFile, name: str) -> str:
    try:
        return decode(archive.read(name)).text.replace(MEMBER_BREAK, " ")
    except (*READ_ERRORS, DecodeFailed, KeyError) as error:
        raise Unreadable("truncated", f"the member '{name}' of {WHAT} is damaged: {error}") from error


def read_slack(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the conversations of every channel, and for each what was left out of it."""
    consenting = frozenset(source.metadata.get("consenting_authors") or ())
    parts = source.opened.parts if source.opened else _single_part(source)
    bots, names = _users(source, parts)
    channels = [_channel(source, name, members, consenting, bots) for name, members in _by_channel(parts)]
    if not any(channel.messages or channel.left_out or channel.damaged for channel in channels):
        yield Reject(source.origin, STEP, "no_text", "the export holds no messages")
    people = _Placeholders(names)
    for channel in channels:
        for conversation in conversations(channel.messages):
            yield _document(source, channel, conversation, people)
        yield from _rejects(source, channel)


def _single_part(source: Source) -> tuple[Part, ...]:
    folder = posixpath.dirname(source.origin.member or source.origin.path)
    name = f"{posixpath.basename(folder) or 'channel'}/{source.name}"
    return (Part(name, 0, len(source.text)),)


def _by_channel(parts: tuple[Part, ...]) -> list[tuple[str, list[Part]]]:
    channels: dict[str, list[Part]] = {}
    for part in parts:
        folder, _, _ = part.name.rpartition("/")
        if folder:
            channels.setdefault(folder, []).append(part)
    return sorted(channels.items())


def _users(source: Source, parts: tuple[Part, ...]) -> tuple[frozenset[str], dict[str, str]]:
    """Return the ids of bots, and the id of each name that a person goes by."""
    bots, names = set(), {}
    for part in parts:
        if part.name == "users.json":
            for user, _, _ in _objects(source.text, part):
                identifier = str(user.get("id", ""))
                if user.get("is_bot") or identifier == "USLACKBOT":
                    bots.add(identifier)
                profile = user.get("profile")
                display_name = profile.get("display_name") if isinstance(profile, dict) else None
                for name in (user.get("name"), display_name):
                    if name and isinstance(name, str):
                        names[name] = identifier
    return frozenset(bots), names


def _objects(text: str, part: Part) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Yield the objects of a member's list with their ranges; damage ends it with an empty object."""
    decoder = json.JSONDecoder()
    at = text.find("[", part.start, part.end) + 1
    while (
        at
        and at < part.end
        and (blank := BLANK.match(text, at, part.end))
        and text[blank.end() : blank.end() + 1] != "]"
    ):
        at = blank.end()
        if at >= part.end:
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            yield {}, at, part.end
            return
        if isinstance(value, dict):
            yield value, at, end
        at = end


def _channel(
    source: Source, name: str, members: list[Part], consenting: frozenset[str], bots: frozenset[str]
) -> Channel:
    channel = Channel(name)
    for part in members:
        for value, start, end in _objects(source.text, part):
            if not value:
                channel.damaged.append((start, end, part.name))
                continue
            why_not = _why_left_out(value, consenting, bots)
            if why_not:
                channel.left_out[why_not] += 1
            else:
                channel.messages.append(_message(value, start, end))
    channel.messages.sort(key=lambda message: message.seconds)
    return channel


def _why_left_out(value: Mapping[str, Any], consenting: frozenset[str], bots: frozenset[str]) -> str:
    user = value.get("user")
    if value.get("bot_id") or value.get("subtype") == "bot_message" or user in bots:
        return "bots"
    if value.get("type") != "message" or value.get("subtype") not in KEPT_SUBTYPES:
        return "joins and other notes"
    if user not in consenting:
        return "authors who did not agree"
    return "" if str(value.get("text") or "").strip() else "messages without text"


def _message(value: Mapping[str, Any], start: int, end: int) -> Message:
    stamp = str(value.get("ts", "0"))
    try:
        seconds = float(stamp)
    except ValueError:
        seconds = 0.0
    thread = str(value.get("thread_ts") or "")
    return Message(str(value["user"]), seconds, stamp, thread, str(value["text"]), start, end)


def conversations(messages: list[Message]) -> list[list[Message]]:
    """Return threads, and runs of messages without a long pause, in the order they began."""
    threads: dict[str, list[Message]] = {}
    runs: list[list[Message]] = []
    for message in messages:
        if message.thread:
            threads.setdefault(message.thread, []).append(message)
        elif runs and message.seconds - runs[-1][-1].seconds < PAUSE_SECONDS:
            runs[-1].append(message)
        else:
            runs.append([message])
    return sorted([*threads.values(), *runs], key=lambda conversation: conversation[0].seconds)


class _Placeholders:
    """Numbers people in the order in which they are met."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._numbers: dict[str, int] = {}
        self._names = names
        known = sorted(names, key=len, reverse=True)
        self._named = re.compile(rf"@(?:{'|'.join(map(re.escape, known))})(?!\w)") if known else None

    def of(self, user: str) -> str:
        """Return the placeholder of a person."""
        return f"[PERSON_{self._numbers.setdefault(user, len(self._numbers) + 1)}]"

    def replaced(self, text: str) -> str:
        """Return a message as it is read: mentions as placeholders, links as their words, entities as characters."""
        text = REFERENCE.sub(self._reference, text)
        if self._named:
            text = self._named.sub(lambda match: self.of(self._names[match[0][1:]]), text)
        return html.unescape(text).strip()

    def _reference(self, match: re.Match[str]) -> str:
        sign, target, label = match.groups()
        if sign == "@":
            return self.of(target)
        if sign == "#":
            return f"#{label or target}"
        return f"@{label or target}" if sign == "!" else label or target


def _document(source: Source, channel: Channel, conversation: list[Message], people: _Placeholders) -> Extracted:
    blocks = []
    turns = []
    for message in conversation:
        author = people.of(message.author)
        blocks.append(Block(f"{author}: {people.replaced(message.text)}", message.start, message.end))
        turns.append([author, message.stamp])
    record = f"{channel.name}/{conversation[0].thread or conversation[0].stamp}"
    origin = replace(source.origin, record=record)
    return Extracted(
        blocks=tuple(blocks),
        title=f"#{channel.name}",
        record=record,
        group=f"{origin.source}:{origin.address}",
        metadata={"channel": channel.name, "turns": turns, "is_thread": bool(conversation[0].thread)},
    )


def _rejects(source: Source, channel: Channel) -> Iterator[Reject]:
    """Yield what was left out, without its text, and what was damaged."""
    for what, count in sorted(channel.left_out.items()):
        code = "licence_denied" if what.startswith("authors") else "no_text"
        origin = replace(source.origin, record=f"{channel.name}/{what.replace(' ', '-')}")
        yield Reject(
            origin, STEP, code, f"#{channel.name}: {count:,} messages left out: {what}", metadata={"messages": count}
        )
    for start, end, name in channel.damaged:
        origin = replace(source.origin, record=f"{channel.name}/damage-{start}")
        reason = f"the list of messages in '{name}' is damaged from character {start:,} on"
        yield Reject(origin, STEP, "malformed_record", reason, "", start, end)
