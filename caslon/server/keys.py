"""API keys: made, listed, revoked and replaced in a file that holds no key, only what a key is recognised by.

A key is `sk-caslon-<id>-<secret>`. Stored is the HMAC-SHA-256 of the secret under a pepper that lies in a file of its own (mode
0600), so neither file alone, nor both without the key, let anybody in. SQLite lets many processes read while one writes.
"""

import dataclasses
import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caslon.errors import UserError
from caslon.server.allowance import Allowance

KEYS_FILE = "keys.db"
PEPPER_FILE = "pepper"
PREFIX = "sk-caslon-"
SCOPES = ("infer", "embed", "metrics", "admin")
ROTATED_KEY_SECONDS = 24 * 3600.0
BUSY_SECONDS = 2.0
TABLE = """
CREATE TABLE IF NOT EXISTS keys (
  id TEXT PRIMARY KEY, holder TEXT NOT NULL, name TEXT NOT NULL, mac BLOB NOT NULL, scopes TEXT NOT NULL,
  models TEXT NOT NULL, adapters TEXT NOT NULL, allowance TEXT NOT NULL, weight INTEGER NOT NULL,
  created REAL NOT NULL, expires REAL, revoked REAL
)
"""


@dataclass(frozen=True)
class Key:
    """Who may ask for what. No `models` or `adapters` means: all. `holder` stays the same when a key is replaced."""

    id: str
    holder: str
    name: str
    scopes: tuple[str, ...] = ("infer",)
    models: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    allowance: Allowance = field(default_factory=Allowance)
    weight: int = 1
    created: float = 0.0
    expires: float | None = None
    revoked: float | None = None

    def is_valid(self, now: float) -> bool:
        """Return whether it lets anybody in at this time."""
        return self.revoked is None and (self.expires is None or now < self.expires)

    def may_use(self, model: str) -> bool:
        """Return whether a base model or an adapter of this name may be asked for."""
        allowed = (*self.models, *self.adapters)
        return not allowed or model in allowed


class KeyStore:
    """The keys of a folder. Safe to use from many threads and processes; `sqlite3.Error` where the file fails."""

    def __init__(self, folder: Path) -> None:
        if not exists(folder):
            raise UserError(
                f"no keys in {folder}", where=str(folder), fix=f"caslon keys create --name NAME --state {folder}"
            )
        self._pepper = _read_pepper(folder / PEPPER_FILE)
        self._file = sqlite3.connect(folder / KEYS_FILE, timeout=BUSY_SECONDS, check_same_thread=False)
        self._file.row_factory = sqlite3.Row
        self._lock = threading.Lock()

    @staticmethod
    def made(folder: Path) -> "KeyStore":
        """Return the keys of a folder, which is given a place for them if it has none."""
        if not exists(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_private(folder / PEPPER_FILE, secrets.token_bytes(32))
            _write_private(folder / KEYS_FILE, b"")
            with sqlite3.connect(folder / KEYS_FILE, timeout=BUSY_SECONDS) as file:
                file.execute("PRAGMA journal_mode=WAL")
                file.execute(TABLE)
            file.close()
        return KeyStore(folder)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def create(
        self,
        name: str,
        *,
        scopes: Sequence[str] = ("infer",),
        models: Sequence[str] = (),
        adapters: Sequence[str] = (),
        allowance: Allowance | None = None,
        weight: int = 1,
        expires: float | None = None,
    ) -> tuple[Key, str]:
        """Return a new key and, this once, what its owner shows."""
        for scope in scopes:
            if scope not in SCOPES:
                raise UserError(f"there is no scope '{scope}'", where="--scopes", fix=f"choose of {', '.join(SCOPES)}")
        key_id = secrets.token_hex(6)
        key = Key(
            key_id, key_id, name, tuple(scopes), tuple(models), tuple(adapters), allowance or Allowance(), weight,
            time.time(), expires,
        )  # fmt: skip
        return key, self._insert(key)

    def all(self) -> list[Key]:
        """Return all keys, revoked and expired ones too, oldest first."""
        with self._lock:
            return [_key(row) for row in self._file.execute("SELECT * FROM keys ORDER BY created")]

    def key(self, key_id: str) -> Key:
        """Return a key by its id; `UserError` when there is none."""
        with self._lock:
            row = self._file.execute("SELECT * FROM keys WHERE id = ?", [key_id]).fetchone()
        if row is None:
            raise UserError(f"there is no key '{key_id}'", where="id", fix="caslon keys list shows the ids")
        return _key(row)

    def revoke(self, key_id: str) -> Key:
        """Let a key in no more, at once and for good."""
        if self.key(key_id).revoked is None:
            self._update("revoked", time.time(), key_id)
        return self.key(key_id)

    def rotate(self, key_id: str) -> tuple[Key, str]:
        """Return a key with the same rights and the same account; the old one is valid for a day more at most."""
        old, now = self.key(key_id), time.time()
        if not old.is_valid(now):
            raise UserError(f"the key '{key_id}' is not valid any more", where="id", fix="make a new one")
        new = dataclasses.replace(old, id=secrets.token_hex(6), created=now)
        shown = self._insert(new)
        self._update("expires", min(old.expires or float("inf"), now + ROTATED_KEY_SECONDS), key_id)
        return new, shown

    def found(self, shown: str) -> Key | None:
        """Return the valid key that somebody shows, if it is one."""
        key_id, _, secret = shown.removeprefix(PREFIX).partition("-")
        with self._lock:
            row = self._file.execute("SELECT * FROM keys WHERE id = ?", [key_id]).fetchone()
        # Compared for an unknown id too: how long it takes tells nothing.
        expected = row["mac"] if row else bytes(32)
        right = hmac.compare_digest(self._mac(secret), expected) and shown.startswith(PREFIX)
        key = _key(row) if row is not None and right else None
        return key if key is not None and key.is_valid(time.time()) else None

    def still_valid(self, ids: Iterable[str]) -> set[str]:
        """Return those of some keys' ids that still let in."""
        now, marks = time.time(), ",".join("?" * len(ids := list(ids)))
        with self._lock:
            rows = self._file.execute(f"SELECT * FROM keys WHERE id IN ({marks})", ids).fetchall()  # noqa: S608
        return {row["id"] for row in rows if _key(row).is_valid(now)}

    def _insert(self, key: Key) -> str:
        secret = secrets.token_urlsafe(32)
        row: dict[str, Any] = dataclasses.asdict(key) | {"mac": self._mac(secret)}
        row |= {name: json.dumps(row[name]) for name in ("scopes", "models", "adapters", "allowance")}
        names = ", ".join(row)
        with self._lock, self._file:
            marks = ", ".join("?" * len(row))
            self._file.execute(f"INSERT INTO keys ({names}) VALUES ({marks})", list(row.values()))  # noqa: S608
        return f"{PREFIX}{key.id}-{secret}"

    def _update(self, column: str, value: float, key_id: str) -> None:
        with self._lock, self._file:
            self._file.execute(f"UPDATE keys SET {column} = ? WHERE id = ?", [value, key_id])  # noqa: S608

    def _mac(self, secret: str) -> bytes:
        return hmac.new(self._pepper, secret.encode(), hashlib.sha256).digest()


def exists(folder: Path) -> bool:
    """Return whether a folder has a place for keys, and so asks for one."""
    return (folder / KEYS_FILE).is_file()


def _key(row: sqlite3.Row) -> Key:
    values = dict(row)
    del values["mac"]
    for name in ("scopes", "models", "adapters"):
        values[name] = tuple(json.loads(values[name]))
    return Key(**values | {"allowance": Allowance(**json.loads(values["allowance"]))})


def _read_pepper(path: Path) -> bytes:
    if not path.is_file():
        raise UserError("the pepper of the keys is missing: none of them can be checked", where=str(path),
                        fix="restore the file, or make the folder anew")  # fmt: skip
    if path.stat().st_mode & 0o077:
        raise UserError("others may read the pepper of the keys", where=str(path), fix=f"chmod 600 {path}")
    return path.read_bytes()


def _write_private(path: Path, content: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as handle:
        handle.write(content)
