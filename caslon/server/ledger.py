"""One SQLite file that all processes of a service write: transactions nothing comes between, and who of the writers still lives.

A commit waits for no disk: what a killed process wrote stays in the file's write-ahead log, and only a power cut loses the last
of it. Moving the log into the file does wait for the disk, so a thread of its own does that.
Source: https://www.sqlite.org/wal.html
"""

import contextlib
import fcntl
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

BUSY_SECONDS = 2.0
TURN_SECONDS = 0.0002  # a transaction takes about half of it
CHECKPOINT_SECONDS = 1.0
LONG_LOG_PAGES = 16_384  # 64 MiB: from here on writers wait a moment so that the log can begin anew

log = logging.getLogger("caslon.server")


class Ledger:
    """An open file with its tables. Every method may be called from any thread."""

    def __init__(self, path: Path, tables: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = path.parent
        self._lock = threading.Lock()
        self._file = _opened(path)
        self._file.executescript(tables)
        self._file.execute("PRAGMA wal_autocheckpoint=0")
        self._file.execute("PRAGMA busy_timeout=0")
        self.worker, self._worker_lock = _registered_worker(self._folder)
        self._closing = threading.Event()
        self._checkpoints = threading.Thread(
            target=_keep_short, args=(path, self._closing), name="checkpoints", daemon=True
        )
        self._checkpoints.start()

    def close(self) -> None:
        """Leave the file to the others."""
        self._closing.set()
        self._checkpoints.join()
        with self._lock:
            self._file.close()
        Path(self._worker_lock.name).unlink(missing_ok=True)
        self._worker_lock.close()

    @contextlib.contextmanager
    def transaction(self, clock: Callable[[], float]) -> Iterator[float]:
        """Give the time within a transaction that no other thread or process can come between; `sqlite3.Error`."""
        with self._lock:
            self._begin()
            try:
                yield clock()
            except BaseException:
                self._file.execute("ROLLBACK")
                raise
            self._file.execute("COMMIT")

    def _begin(self) -> None:
        """Wait for the turn of this process. SQLite's own waits grow to a tenth of a second, and a busy file starves them."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._file.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(TURN_SECONDS)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement of a transaction."""
        return self._file.execute(statement, values)

    def rows(self, statement: str) -> list[Any]:
        """Return what a question outside a transaction finds."""
        with self._lock:
            return self._file.execute(statement).fetchall()

    def is_alive(self, worker: str) -> bool:
        """Return whether the process that goes by this name still has the file open."""
        path = self._folder / "workers" / worker
        try:
            with path.open("r+") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True


def _opened(path: Path) -> sqlite3.Connection:
    file = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
    file.execute("PRAGMA journal_mode=WAL")
    file.execute("PRAGMA synchronous=NORMAL")
    return file


def _keep_short(path: Path, closing: threading.Event) -> None:
    """Move the log into the file again and again, beside the writers."""
    with contextlib.closing(_opened(path)) as file:
        while not closing.wait(CHECKPOINT_SECONDS):
            try:
                _, pages, _ = file.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if pages > LONG_LOG_PAGES:
                    file.execute("PRAGMA wal_checkpoint(RESTART)")
            except sqlite3.Error:  # the log grows until it works again; no figure in it is lost
                log.warning("the log of %s could not be moved into it", path.name, exc_info=True)


def _registered_worker(folder: Path) -> tuple[str, IO[str]]:
    """Return a name for this process and the lock that shows others, as long as it lives, that it does."""
    workers = folder / "workers"
    workers.mkdir(exist_ok=True, mode=0o700)
    worker = uuid.uuid4().hex
    handle = (workers / worker).open("w")
    fcntl.flock(handle, fcntl.LOCK_EX)
    return worker, handle
