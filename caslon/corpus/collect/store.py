"""The raw store: fetched bytes by their SHA-256, and a state file that says which item of which source they are.

    raw/objects/ab/ab12...     finished files, never changed
    raw/partial/...            downloads in flight
    raw/state.sqlite           one row an item: what was asked, answered and registered at that time

A file is renamed into `objects` before its row is written, and each row is a transaction of its own, so a process that dies
loses at most the file in flight. Files that stay where they are (`kind` local) have a row and no object.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from caslon.errors import StorageError, UserError

STATE = "state.sqlite"
CHUNK_BYTES = 1 << 20
Kind = Literal["file", "page", "local"]  # a page is a list or catalogue: kept to find items, never read as text


@dataclass(frozen=True)
class StoredFile:
    """What is known about one raw file: where it came from, what was answered, what was registered then."""

    source: str
    path: str  # name inside the source; with the source's id, its key
    kind: Kind = "file"
    url: str = ""
    final_url: str = ""
    fetched: str = ""  # time in UTC, ISO 8601
    status: int = 0  # of HTTP
    bytes: int = 0
    sha256: str = ""
    etag: str = ""
    last_modified: str = ""
    checksum: str = ""  # as announced
    licence: str = ""
    allowed_use: str = ""
    rights_url: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""  # a reject code, when the item could not be had
    reason: str = ""
    gone: bool = False  # no longer offered: kept, but not read


class Store:
    """A raw store in a folder, made when it is missing. One process writes at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with storage_errors(folder):
            (folder / "objects").mkdir(parents=True, exist_ok=True)
            (folder / "partial").mkdir(exist_ok=True)
            self._state = sqlite3.connect(folder / STATE, isolation_level=None, timeout=30.0)
            # A killed process loses no row; a machine that loses power may lose the last ones, whose items are asked for again.
            self._state.execute("PRAGMA journal_mode = WAL")
            self._state.execute("PRAGMA synchronous = NORMAL")
            self._make_tables()

    @staticmethod
    def existing(folder: Path) -> "Store":
        """Return the store in a folder. Raises UserError where there is none."""
        if not (folder / STATE).is_file():
            raise UserError("nothing was collected yet", where=str(folder), fix="run: caslon corpus collect")
        return Store(folder)

    def close(self) -> None:
        """Close the state file."""
        self._state.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- rows

    def record(self, source: str, path: str) -> StoredFile | None:
        """Return the row of one item, or None."""
        query = "SELECT facts, gone FROM files WHERE source = ? AND path = ?"
        row = self._state.execute(query, (source, path)).fetchone()
        return None if row is None else _stored(row)

    def records(self, source: str, kind: Kind) -> Iterator[StoredFile]:
        """Yield the rows of one kind of a source in the order of their paths, gone ones too."""
        query = "SELECT facts, gone FROM files WHERE source = ? AND kind = ? ORDER BY path"
        yield from map(_stored, self._state.execute(query, (source, kind)))

    def put(self, stored: StoredFile) -> StoredFile:
        """Write the row of an item, in place of an earlier one, and return it."""
        facts = json.dumps(asdict(stored), ensure_ascii=False, sort_keys=True)
        with storage_errors(self.folder):
            self._state.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
                (stored.source, stored.path, stored.kind, int(stored.gone), facts),
            )
        return stored

    def mark_gone(self, source: str, seen: Iterable[str]) -> list[str]:
        """Mark the items of a source that are not among `seen` as gone, and return their paths."""
        kept = set(seen)
        rows = [*self.records(source, "file"), *self.records(source, "local")]
        lost = [row.path for row in rows if row.path not in kept and not row.gone]
        with storage_errors(self.folder):
            self._state.executemany(
                "UPDATE files SET gone = 1 WHERE source = ? AND path = ?", [(source, path) for path in lost]
            )
        return lost

    # --- marks: small facts about a source that are no files

    def mark(self, source: str, name: str, value: str) -> None:
        """Note a fact about a source, such as `complete` or `rights`."""
        with storage_errors(self.folder):
            self._state.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?)", (source, name, value))

    def marked(self, source: str, name: str) -> str:
        """Return a fact noted about a source, empty when there is none."""
        row = self._state.execute("SELECT value FROM marks WHERE source = ? AND name = ?", (source, name)).fetchone()
        return "" if row is None else str(row[0])

    # --- objects

    def object_path(self, sha256: str) -> Path:
        """Return where the bytes with a digest lie."""
        return self.folder / "objects" / sha256[:2] / sha256

    def holds(self, stored: StoredFile | None) -> bool:
        """Return whether an item's bytes are in the store, in full length."""
        if stored is None or not stored.sha256:
            return False
        path = self.object_path(stored.sha256)
        return path.is_file() and path.stat().st_size == stored.bytes

    def partial_path(self, url: str) -> Path:
        """Return where a download of an address waits until it is whole."""
        return self.folder / "partial" / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.part"

    def keep(self, part: Path) -> tuple[str, int]:
        """Move a whole download among the objects; return its digest and size."""
        sha256, size = digest_of(part)
        place = self.object_path(sha256)
        with storage_errors(place):
            place.parent.mkdir(exist_ok=True)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(place)
        return sha256, size

    def keep_bytes(self, data: bytes) -> tuple[str, int]:
        """Write bytes among the objects; return their digest and size."""
        part = self.folder / "partial" / f"{hashlib.sha256(data).hexdigest()}.part"
        with storage_errors(part):
            part.write_bytes(data)
        return self.keep(part)

    def read(self, stored: StoredFile) -> bytes:
        """Return an item's bytes. Raises StorageError when they are missing."""
        try:
            return self.object_path(stored.sha256).read_bytes()
        except OSError as error:
            raise StorageError(
                f"a raw file is missing: {stored.source}/{stored.path}", where=str(error.filename), fix="collect again"
            ) from error

    def verify(self) -> list[StoredFile]:
        """Return the rows whose bytes are missing or no longer have their digest."""
        query = "SELECT facts, gone FROM files WHERE kind != 'local' ORDER BY source, path"
        rows = [row for row in map(_stored, self._state.execute(query)) if row.sha256]
        return [row for row in rows if not self.holds(row) or digest_of(self.object_path(row.sha256))[0] != row.sha256]

    def _make_tables(self) -> None:
        self._state.execute(
            "CREATE TABLE IF NOT EXISTS files"
            " (source TEXT, path TEXT, kind TEXT, gone INTEGER, facts TEXT, PRIMARY KEY (source, path))"
        )
        self._state.execute(
            "CREATE TABLE IF NOT EXISTS marks (source TEXT, name TEXT, value TEXT, PRIMARY KEY (source, name))"
        )


def digest_of(path: Path, make: Callable[[], Any] = hashlib.sha256) -> tuple[str, int]:
    """Return the digest of a file as hexadecimal digits, and its size; any hash of `hashlib` may be asked for."""
    found, size = make(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            found.update(chunk)
            size += len(chunk)
    return str(found.hexdigest()), size


@contextmanager
def storage_errors(where: Path) -> Iterator[None]:
    """Turn a full disk, or one that cannot be written, into a StorageError."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageError(
            f"the store cannot be written: {reason}", where=str(where), fix="free some disk space and run it again"
        ) from error


def _stored(row: tuple[str, int]) -> StoredFile:
    return StoredFile(**{**json.loads(row[0]), "gone": bool(row[1])})
