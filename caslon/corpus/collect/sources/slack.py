"""Slack: turns an exported ZIP, or the Web API with its cursors, into conversations of those who agreed.

Only messages of the entry's `consenting_authors` are kept, before anything is written; bots, joins and other notices are
dropped; threads stay together; mentions of people become placeholders that are the same in a whole source. One JSON Lines
file a channel holds one conversation a line: `id`, `channel`, `messages` [{`author`, `time`, `text`}] and `text`.
"""

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlencode

from caslon.corpus.collect.collector import Item
from caslon.corpus.collect.fetch import Fetcher
from caslon.corpus.collect.problem import ItemProblem
from caslon.corpus.collect.raw_file import RawFile
from caslon.corpus.collect.store import StoredFile
from caslon.corpus.registry_entry import SourceEntry
from caslon.errors import UserError

API = "https://slack.com/api"
TOKEN = "SLACK_TOKEN"  # noqa: S105 - the name of the variable that holds it
PAGE_MESSAGES = 200
KEPT_SUBTYPES = (None, "thread_broadcast", "me_message", "file_share")
MENTION = re.compile(r"<@([UW][A-Z0-9]+)(?:\|[^>]*)?>")
SPECIAL = re.compile(r"<!(?:subteam\^\w+\|)?(?:\w+\|)?@?([^>^|]*)>")
CHANNEL = re.compile(r"<#[A-Z0-9]+\|([^>]*)>")
LINK = re.compile(r"<((?:https?|mailto):[^>|]*)(?:\|([^>]*))?>")

Message = Mapping[str, Any]


class Slack:
    """Reads channels out of an export beside the registry, or out of the API with the token in `SLACK_TOKEN`."""

    def __init__(self, fetcher: Fetcher, api: str = API, token: str | None = None) -> None:
        self.fetcher = fetcher
        self._api = api.rstrip("/")
        self._token = token if token is not None else os.environ.get(TOKEN, "")

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield one item a channel. Raises UserError when nobody is named who agreed."""
        if not entry.consenting_authors:
            raise UserError(
                "no author is named who agreed to the use of their messages",
                where=f"source {entry.id}, field consenting_authors",
                fix="list their ids, names or e-mail addresses",
            )
        if entry.is_remote:
            for channel in self._paged(entry, "conversations.list", "channels", {"types": "public_channel"}):
                yield Item(entry, f"{channel['name']}.jsonl", self._api, metadata=_facts(entry, channel["id"]))
            return
        with _export(entry) as archive:
            names = {PurePosixPath(name).parts[-2] for name in archive.namelist() if _is_day(name)}
        for name in sorted(names):
            yield Item(entry, f"{name}.jsonl", entry.path.as_uri(), metadata=_facts(entry, name))

    def fetch(self, item: Item) -> Iterator[RawFile | StoredFile]:
        """Yield the conversations of one channel. `no_text` when nobody who agreed spoke there."""
        entry = item.entry
        if entry.is_remote:
            people = list(self._paged(entry, "users.list", "members", {}))
            messages = self._channel(entry, item.metadata["channel"])
        else:
            with _export(entry) as archive:
                people = _json(archive, "users.json")
                messages = _exported(archive, item.metadata["channel"])
        lines = [
            json.dumps(talk, ensure_ascii=False)
            for talk in conversations(messages, people, entry.consenting_authors, item.path.removesuffix(".jsonl"))
        ]
        if not lines:
            raise ItemProblem("no_text", f"nobody who agreed spoke in {item.path.removesuffix('.jsonl')}")
        yield self.fetcher.keep(item, ("\n".join(lines) + "\n").encode())

    # --- the Web API

    def _channel(self, entry: SourceEntry, channel: str) -> list[Message]:
        found: list[Message] = list(self._paged(entry, "conversations.history", "messages", {"channel": channel}))
        for message in list(found):
            if message.get("reply_count"):
                asked = {"channel": channel, "ts": message["ts"]}
                found += self._paged(entry, "conversations.replies", "messages", asked)
        return found

    def _paged(self, entry: SourceEntry, method: str, key: str, asked: dict[str, str]) -> Iterator[dict[str, Any]]:
        if not self._token:
            raise UserError("Slack's API needs a token", where=f"source {entry.id}", fix=f"set {TOKEN}")
        cursor = ""
        while True:
            query = urlencode({**asked, "limit": PAGE_MESSAGES, **({"cursor": cursor} if cursor else {})})
            headers = {"authorization": f"Bearer {self._token}"}
            answer = self.fetcher.passing(entry, f"{self._api}/{method}?{query}", headers)
            if not answer.get("ok"):
                raise ItemProblem("fetch_failed", f"Slack's {method}: {answer.get('error', 'no reason given')}")
            yield from answer.get(key, [])
            cursor = (answer.get("response_metadata") or {}).get("next_cursor", "")
            if not cursor:
                return


def conversations(
    messages: Iterable[Message], people: Iterable[Message], consenting: Iterable[str], channel: str
) -> Iterator[dict[str, Any]]:
    """Yield the conversations of a channel in the order of their first message, only of those who agreed.

    A thread is one conversation, a message outside a thread another. Authors and people mentioned are `[PERSON_1]` and so
    on, numbered in the order they first appear.
    """
    agreed = _agreed(people, consenting)
    placeholder = _placeholders()
    threads: dict[str, dict[str, Message]] = {}
    for message in messages:
        if _is_kept(message) and message.get("user") in agreed:
            threads.setdefault(str(message.get("thread_ts") or message["ts"]), {})[str(message["ts"])] = message
    for start in sorted(threads, key=float):
        rows = [threads[start][time] for time in sorted(threads[start], key=float)]
        said = [
            {"author": placeholder(row["user"]), "time": str(row["ts"]), "text": _text(row["text"], placeholder)}
            for row in rows
        ]
        text = "\n\n".join(f"{row['author']}: {row['text']}" for row in said)
        yield {"id": f"{channel}/{start}", "channel": channel, "messages": said, "text": text}


def _is_kept(message: Message) -> bool:
    is_bot = message.get("bot_id") or message.get("subtype") == "bot_message"
    return not is_bot and message.get("subtype") in KEPT_SUBTYPES and bool(str(message.get("text") or "").strip())


def _agreed(people: Iterable[Message], consenting: Iterable[str]) -> set[str]:
    """Ids of those who agreed, whichever of their names the registry uses."""
    wanted = {name.casefold() for name in consenting}
    found = set(consenting)
    for person in people:
        profile = person.get("profile") or {}
        names = [person.get("id"), person.get("name"), person.get("real_name"), profile.get("email")]
        if any(str(name).casefold() in wanted for name in names if name) and not person.get("is_bot"):
            found.add(str(person["id"]))
    return found


def _placeholders() -> Callable[[str], str]:
    numbers: dict[str, int] = {}
    return lambda person: f"[PERSON_{numbers.setdefault(person, len(numbers) + 1)}]"


def _text(text: str, placeholder: Callable[[str], str]) -> str:
    """Slack's mark-up as plain text (api.slack.com/reference/surfaces/formatting)."""
    text = MENTION.sub(lambda match: placeholder(match[1]), text)
    text = CHANNEL.sub(r"#\1", text)
    text = LINK.sub(lambda match: match[2] or match[1], text)
    text = SPECIAL.sub(lambda match: f"@{match[1]}", text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").strip()


# --- exports -----------------------------------------------------------------------------------------------------------


def _facts(entry: SourceEntry, channel: str) -> dict[str, Any]:
    return {"channel": channel, "text_field": entry.text_field or "text", "group": f"slack:{entry.id}:{channel}"}


def _export(entry: SourceEntry) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(entry.path)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"the Slack export cannot be read: {error}", where=str(entry.path)) from error


def _is_day(name: str) -> bool:
    return re.fullmatch(r"(?:.*/)?[^/]+/\d{4}-\d\d-\d\d\.json", name) is not None


def _exported(archive: zipfile.ZipFile, channel: str) -> list[Message]:
    days = [name for name in sorted(archive.namelist()) if _is_day(name) and PurePosixPath(name).parts[-2] == channel]
    return [message for day in days for message in _json(archive, day)]


def _json(archive: zipfile.ZipFile, name: str) -> list[Any]:
    found = next((known for known in archive.namelist() if known == name or known.endswith(f"/{name}")), None)
    loaded: list[Any] = json.loads(archive.read(found)) if found else []
    return loaded
