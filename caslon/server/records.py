"""Recorded requests and answers, for those who ask for it: kept for so many days, pruned by whole requests, redacted by rules.

Texts are stored nowhere else. `caslon replay` sends a record again and compares token by token.
"""

import json
import re
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caslon.errors import UserError
from caslon.server.calls import Call
from caslon.server.logprobs import token_text

RECORDS_FILE = "records.db"
REDACTED = "[redacted]"
DAY_SECONDS = 86_400.0
PRUNE_EVERY_SECONDS = 3600.0
BUSY_SECONDS = 5.0
TABLES = """
CREATE TABLE IF NOT EXISTS requests (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL, time REAL NOT NULL, key TEXT, endpoint TEXT NOT NULL, fingerprint TEXT,
  body TEXT NOT NULL, redacted INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS requests_by_id ON requests (id);
CREATE INDEX IF NOT EXISTS requests_by_time ON requests (time);
CREATE TABLE IF NOT EXISTS answers (
  request INTEGER NOT NULL REFERENCES requests (number) ON DELETE CASCADE, place INTEGER NOT NULL, text TEXT NOT NULL,
  tokens TEXT NOT NULL, seed INTEGER NOT NULL, finish TEXT NOT NULL, PRIMARY KEY (request, place)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class RecordedAnswer:
    """One answer as it was given."""

    text: str
    tokens: tuple[str, ...]
    seed: int
    finish: str


@dataclass(frozen=True)
class Record:
    """One request and its answers. `redacted` says that a rule changed it, so that it cannot be asked again."""

    id: str
    time: float
    endpoint: str
    fingerprint: str | None
    body: dict[str, Any]
    redacted: bool
    answers: tuple[RecordedAnswer, ...]


class Records:
    """The records of a folder. Safe to use from many threads and processes."""

    def __init__(self, folder: Path, retention_days: float = 30, redact: Sequence[str] = ()) -> None:
        self.retention_days = retention_days
        self._rules = [re.compile(rule) for rule in redact]
        self._lock = threading.Lock()
        (folder / RECORDS_FILE).touch(mode=0o600)
        self._file = sqlite3.connect(folder / RECORDS_FILE, timeout=BUSY_SECONDS, check_same_thread=False)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA foreign_keys=ON")
        self._file.execute("PRAGMA secure_delete=ON")
        self._file.executescript(TABLES)
        self._pruned = 0.0
        self.prune()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def add(self, call: Call) -> None:
        """Record a request that is over with the answers it got."""
        assert call.served is not None
        body, redacted = self._clean(call.body.decode("utf-8", "replace"))
        answers = []
        for place, answer in enumerate(call.answers):
            completion = answer.completion
            if completion is None:
                continue
            text, cut = self._clean(completion.text)
            # The tokens of another server are known to it alone.
            ids = () if cut or call.served.remote else completion.ids
            tokens = [token_text(call.served.tokenizer, token) for token in ids]
            redacted = redacted or cut
            answers.append((place, text, json.dumps(tokens), completion.seed, answer.finish_reason))
        key = call.key.id if call.key else None
        with self._lock, self._file:
            cursor = self._file.execute(
                "INSERT INTO requests (id, time, key, endpoint, fingerprint, body, redacted) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [call.request_id, call.began, key, call.endpoint, call.served.fingerprint, body, redacted],
            )
            rows = [(cursor.lastrowid, *answer) for answer in answers]
            self._file.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", rows)
        if time.monotonic() - self._pruned > PRUNE_EVERY_SECONDS:
            self.prune()

    def prune(self) -> int:
        """Remove requests older than the time they are kept, each with all its answers; 0 days keeps all for ever."""
        self._pruned = time.monotonic()
        if not self.retention_days:
            return 0
        with self._lock, self._file:
            limit = time.time() - self.retention_days * DAY_SECONDS
            return self._file.execute("DELETE FROM requests WHERE time < ?", [limit]).rowcount

    def get(self, request_id: str) -> Record:
        """Return the newest record of a request id; `UserError` when there is none."""
        with self._lock:
            row = self._file.execute(
                "SELECT number, id, time, endpoint, fingerprint, body, redacted FROM requests WHERE id = ?"
                " ORDER BY number DESC LIMIT 1",
                [request_id],
            ).fetchone()
            if row is None:
                raise UserError(f"no record of the request '{request_id}'", where="RECORD",
                                fix="give the x-request-id of an answer that was recorded")  # fmt: skip
            answers = self._file.execute(
                "SELECT text, tokens, seed, finish FROM answers WHERE request = ? ORDER BY place", [row[0]]
            ).fetchall()
        recorded = tuple(
            RecordedAnswer(text, tuple(json.loads(tokens)), seed, end) for text, tokens, seed, end in answers
        )
        return Record(row[1], row[2], row[3], row[4], json.loads(row[5]), bool(row[6]), recorded)

    def _clean(self, text: str) -> tuple[str, bool]:
        """Return a text without what the rules name, and whether there was any of it."""
        clean = text
        for rule in self._rules:
            clean = rule.sub(REDACTED, clean)
        return clean, clean != text


def records_of(folder: Path) -> Records:
    """Return the records of a folder to read them; nothing of them is pruned."""
    if not (folder / RECORDS_FILE).is_file():
        raise UserError("nothing was recorded here", where=str(folder), fix="serve with --state and --record-content")
    return Records(folder, retention_days=0)
