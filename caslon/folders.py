"""Stage folders: one folder a stage, complete when it exists, described by `manifest.json`, addressed by content.

Work goes to `<stage>.partial/`, which is renamed when it is whole. Content files have their SHA-256 in the manifest and
make up the folder's digest; records (events, reports, timings) lie beside them and do not.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from caslon.errors import StorageError, UserError

MANIFEST = "manifest.json"
PARTIAL = ".partial"
KEY_FILE = "key.json"
RECORDS = ("events.jsonl", "metrics.jsonl", "tracking.json", "report.html", "report.json", KEY_FILE, MANIFEST)
CHUNK_BYTES = 1 << 20
LOCK_TRIES = 5


@dataclass(frozen=True)
class FileEntry:
    """One output file: its size and SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a stage did: enough to repeat it, to check it and to know what it came from."""

    stage: str
    stage_version: int
    key: str
    digest: str
    seed: int
    settings: dict[str, Any]
    inputs: dict[str, dict[str, str]]  # kind -> {"folder": relative path, "digest": content digest}
    sources: dict[str, str]  # outside path -> SHA-256
    files: dict[str, FileEntry]
    totals: dict[str, Any]  # figures with their unit in the name
    versions: dict[str, str]
    device: str
    started: str
    seconds: float
    base: str = ""  # the folder the command was given in, where relative paths in settings start
    command: str = ""

    def to_json(self) -> str:
        """Return the manifest as indented JSON text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> "Manifest":
        """Return the manifest that `to_json` wrote."""
        data = json.loads(text)
        data["files"] = {name: FileEntry(**entry) for name, entry in data["files"].items()}
        return Manifest(**data)


@dataclass(frozen=True)
class StageFolder:
    """A complete stage folder. It is never changed after it was made."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """The digest of the folder's content, whatever its name, time or machine."""
        return self.manifest.digest

    @staticmethod
    def open(path: Path) -> "StageFolder":
        """Open a complete stage folder; `UserError` when there is none at `path`."""
        file = path / MANIFEST
        if not file.is_file():
            raise UserError(f"no finished stage at {path}", fix="run its recipe first: caslon run RECIPE")
        return StageFolder(path, Manifest.from_json(file.read_text(encoding="utf-8")))

    def verify(self) -> None:
        """Recompute every digest; `StorageError` names the first file that differs."""
        for name, entry in self.manifest.files.items():
            file = self.path / name
            if not file.is_file():
                raise StorageError("a stored file is missing", where=str(file))
            if sha256_of_file(file) != entry.sha256:
                raise StorageError("a stored file was changed after it was written", where=str(file))


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_of(value: object) -> str:
    """Return the SHA-256 of a JSON value in canonical form as 64 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def content_files(folder: Path, records: tuple[str, ...] = RECORDS) -> dict[str, FileEntry]:
    """Return every content file below `folder` by relative path. Links and records are left out."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.is_file() or name in records or _below_link(path, folder):
            continue
        entries[name] = FileEntry(path.stat().st_size, sha256_of_file(path))
    return entries


def _below_link(path: Path, folder: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents if parent != folder and folder in parent.parents)


def content_digest(files: Mapping[str, FileEntry]) -> str:
    """Return the digest of a set of files: names and bytes, nothing else."""
    return digest_of({name: entry.sha256 for name, entry in files.items()})


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, whole; `StorageError` when the disk is full."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write: {error.strerror}", where=str(path), fix="free some disk space") from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_folder(folder: Path, key: str, superseded: Path) -> Path:
    """Return `<folder>.partial` as it was left by work with the same key, or new.

    Work begun with another key is set aside, and comes back when that key does.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    earlier_key = begun_with(partial)
    if earlier_key == key:
        return partial
    if earlier_key is None:  # killed before the key was written: nothing is in it
        shutil.rmtree(partial, ignore_errors=True)
    else:
        superseded.mkdir(parents=True, exist_ok=True)
        partial.rename(superseded / f"{partial.name}-{earlier_key[:16]}")
    earlier = superseded / f"{partial.name}-{key[:16]}"
    if earlier.is_dir():
        earlier.rename(partial)
        return partial
    partial.mkdir(parents=True)
    write_atomic(partial / KEY_FILE, json.dumps({"key": key}))
    return partial


def adopt_partial(folder: Path, key: str) -> None:
    """Let work begun under another key go on under this one; `UserError` when no work was begun."""
    partial = folder.with_name(folder.name + PARTIAL)
    if not partial.is_dir():
        raise UserError(f"nothing was begun at {folder}", fix="run its recipe: caslon run RECIPE")
    write_atomic(partial / KEY_FILE, json.dumps({"key": key}))


def reopen(folder: Path) -> None:
    """Turn a finished stage folder into one that was begun, so that work on it can go on; the finished one stays.

    Files are shared by links: what goes on replaces whole files and never writes into one.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    shutil.copytree(folder, partial, symlinks=True, copy_function=_link_or_copy)
    (partial / MANIFEST).unlink()


def _link_or_copy(source: str, target: str) -> None:
    if Path(source).name.endswith(".jsonl"):  # logs are appended to
        shutil.copy2(source, target)
        return
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def discard(folder: Path, superseded: Path) -> None:
    """Move a stage's finished and begun folders to `superseded/`, under names where no later run looks for them."""
    for path in (folder, folder.with_name(folder.name + PARTIAL)):
        if path.is_dir():
            superseded.mkdir(parents=True, exist_ok=True)
            number = 1 + len(list(superseded.glob(f"{path.name}.replaced-*")))
            path.rename(superseded / f"{path.name}.replaced-{number}")


def begun_with(partial: Path) -> str | None:
    """Return the key under which work in a partial folder was begun; None when it never came so far as to write it."""
    if not (partial / KEY_FILE).is_file():
        return None
    return str(json.loads((partial / KEY_FILE).read_text(encoding="utf-8"))["key"])


def complete(partial: Path, folder: Path, manifest: Manifest, superseded: Path) -> StageFolder:
    """Turn a partial folder into the finished one. An older result under that name moves to `superseded/`."""
    write_atomic(partial / MANIFEST, manifest.to_json())
    (partial / KEY_FILE).unlink(missing_ok=True)
    sync_folder(partial)
    set_aside(folder, superseded)
    partial.rename(folder)
    sync_folder(folder.parent)
    return StageFolder(folder, manifest)


def set_aside(folder: Path, superseded: Path) -> None:
    """Move a finished folder to `superseded/<stage>-<key>`, where a later run with the same key finds it again."""
    if not folder.exists():
        return
    target = superseded / f"{folder.name}-{StageFolder.open(folder).manifest.key[:16]}"
    superseded.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; `UserError` naming the owner's pid when another one holds it.

    The lock is the operating system's and ends with the process, so a killed run leaves none behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    with path.open("a+", encoding="utf-8") as file:
        if not _locked(file):
            file.seek(0)
            raise UserError(
                f"another run is at work on this folder (process {file.read().strip() or 'unknown'})",
                where=str(folder),
                fix="wait for it, or stop it, or give this run another name: --set name=...",
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _locked(file: TextIO) -> bool:
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)  # a listing of runs holds the lock for a moment only
        else:
            return True
    return False
