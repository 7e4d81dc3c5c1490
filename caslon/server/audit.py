"""The audit log: one JSON line for each request, chained by SHA-256, so that an edited, removed or reordered line is found.

Each line begins with the hash of the line before it. Beside the log, `audit.head` holds the number of lines and the last hash,
so that lines missing at the end are found too; who keeps a copy of it elsewhere need not trust this disk. Full files are renamed
`audit-000001.jsonl` and the chain goes on in a new one. Processes of one service write to one log.
Source: https://www.usenix.org/legacy/publications/library/proceedings/sec98/full_papers/schneier/schneier.pdf (without its keys)
"""

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caslon.errors import CaslonError, UserError
from caslon.server.calls import Call

AUDIT_FILE = "audit.jsonl"
HEAD_FILE = "audit.head"
FULL = "audit-{:06d}.jsonl"
FULL_GLOB = "audit-*.jsonl"
BEGINNING = "0" * 64
HEAD_WIDTH = 85  # a number of 20 digits, a space, a hash


@dataclass(frozen=True)
class Head:
    """Where a chain ends: how many lines it has, and the hash of the last one."""

    lines: int
    digest: str


class AuditLog:
    """An open log. A line that `append` has written outlives a killed process."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.max_bytes = max_bytes
        self._thread_lock = threading.Lock()
        # The head file is also the lock between processes: unlike the log it is never renamed.
        self._head = os.open(folder / HEAD_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        self._log = self._open_log()

    def append(self, fields: Mapping[str, Any]) -> None:
        """Write a line; `OSError` when the disk does not take it."""
        with self._thread_lock:
            fcntl.flock(self._head, fcntl.LOCK_EX)
            try:
                self._append(fields)
            finally:
                fcntl.flock(self._head, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files."""
        os.close(self._log)
        os.close(self._head)

    def _append(self, fields: Mapping[str, Any]) -> None:
        if (self.folder / AUDIT_FILE).stat().st_ino != os.fstat(self._log).st_ino:  # another process began a new file
            os.close(self._log)
            self._log = self._open_log()
        head = self._whole_head()
        line = json.dumps({"previous": head.digest, **fields}, ensure_ascii=False, separators=(",", ":")).encode()
        os.write(self._log, line + b"\n")
        head = Head(head.lines + 1, _digest(line))
        os.pwrite(self._head, f"{head.lines:020d} {head.digest}".encode(), 0)
        if os.fstat(self._log).st_size >= self.max_bytes:
            self._rotate()

    def _whole_head(self) -> Head:
        """Return the head, caught up with a line whose writer was killed before it could say so."""
        head = _head_of(os.pread(self._head, HEAD_WIDTH, 0))
        last = _last_line(self._log)
        if last and _digest(last) != head.digest and json.loads(last).get("previous") == head.digest:
            return Head(head.lines + 1, _digest(last))
        return head

    def _rotate(self) -> None:
        number = len(list(self.folder.glob(FULL_GLOB))) + 1
        (self.folder / AUDIT_FILE).rename(self.folder / FULL.format(number))
        os.close(self._log)
        self._log = self._open_log()

    def _open_log(self) -> int:
        log = os.open(self.folder / AUDIT_FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        size = os.fstat(log).st_size
        if size and os.pread(log, 1, size - 1) != b"\n":  # a writer was killed within its line
            os.ftruncate(log, size - len(_torn_end(log)))
        return log


def verify_audit(folder: Path, head: Head | None = None) -> Head:
    """Return the head of a whole chain; `CaslonError` names the first line that does not follow the one before it.

    With `head`, one that was kept elsewhere, the chain must reach at least there and have had that very line.
    """
    lines, digest, kept = 0, BEGINNING, None
    for place, line in _lines(folder):
        previous = _previous(line)
        if previous != digest:
            raise CaslonError(
                "the audit log is not what was written: this line does not follow the one before it",
                where=place, fix="a line here or just before it was edited, removed, added or moved",
            )  # fmt: skip
        lines, digest = lines + 1, _digest(line)
        if head is not None and lines == head.lines:
            kept = digest
    stored = _head_of((folder / HEAD_FILE).read_bytes())
    # A process that was killed between a line and its head leaves the head one line behind.
    if stored.lines > lines or (stored.lines == lines and stored.digest != digest):
        raise _missing_end(folder, lines, stored)
    if head is not None and kept != head.digest:
        raise _missing_end(folder, lines, head)
    return Head(lines, digest)


def audit_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log, oldest first."""
    for _, line in _lines(folder):
        yield json.loads(line)


def audit_fields(call: Call, door: str) -> dict[str, Any]:
    """Return what the log says of a request: who, what, how much, how long; never a text, an address or a key.

    `door` is the model of a request that was turned away before one was chosen.
    """
    prompt_tokens, completion_tokens = call.tokens()
    first = next((answer.clock for answer in call.answers), None)
    return {
        "time": round(call.began, 6),
        "request_id": call.request_id,
        "key": call.key.id if call.key else None,
        "endpoint": call.endpoint,
        "model": call.served.model_name if call.served else door,
        "fingerprint": call.served.fingerprint if call.served else None,
        **({"served_by": call.served_by} if call.served_by else {}),
        "parameters": call.parameters(),
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "status": call.status,
        "finish": [answer.finish_reason for answer in call.answers],
        "seconds": round(call.seconds, 6),
        "first_token_seconds": None if first is None or first.first is None else round(first.first - call.received, 6),
    }


def _missing_end(folder: Path, lines: int, head: Head) -> CaslonError:
    return CaslonError(
        f"the audit log has {lines:,} lines, its head knows {head.lines:,}: lines at its end were removed or edited",
        where=str(folder / AUDIT_FILE),
    )


def _lines(folder: Path) -> Iterator[tuple[str, bytes]]:
    files = [*sorted(folder.glob(FULL_GLOB)), folder / AUDIT_FILE]
    if not files[-1].is_file():
        raise UserError("there is no audit log", where=str(folder), fix="name the folder given to serve as --state")
    for path in files:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                yield f"{path}, line {number}", line.rstrip(b"\n")


def _previous(line: bytes) -> str | None:
    try:
        return str(json.loads(line)["previous"])
    except (ValueError, KeyError, TypeError):
        return None


def _head_of(content: bytes) -> Head:
    lines, _, digest = content.decode("ascii", "replace").partition(" ")
    return Head(int(lines), digest) if lines.isdigit() else Head(0, BEGINNING)


def _last_line(log: int) -> bytes:
    size = os.fstat(log).st_size
    end = os.pread(log, min(size, 1 << 16), max(0, size - (1 << 16)))
    return end.rstrip(b"\n").rpartition(b"\n")[2]


def _torn_end(log: int) -> bytes:
    size = os.fstat(log).st_size
    return os.pread(log, min(size, 1 << 20), max(0, size - (1 << 20))).rpartition(b"\n")[2]


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
