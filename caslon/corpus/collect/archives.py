"""Files and archives as streams: turns one path into the raw files in it.

Archives (.tar, .zip, .gz, .bz2, .xz and tars packed with them) are never unpacked to disk, so a member's name can lead
nowhere. A cut-off archive gives the files that could be read, and the last of them carries the problem.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from caslon.corpus.collect.raw_file import Problem, RawFile

MAX_RATIO = 100  # unpacked bytes per packed byte; text packs 3 to 10 times, bombs 1000 times
RATIO_FREE_BYTES = 1 << 20  # tiny archives of blanks may pack better than that
MAX_FILE_BYTES = 100 << 20
CHUNK_BYTES = 1 << 20


def read_path(source: str, path: Path, name: str, member: str | None) -> Iterator[RawFile]:
    """Yield the file itself, or the members of it when it is an archive (only `member` when given)."""
    kind = _archive_kind(path)
    if kind == "zip":
        yield from _zip_members(source, path, name, member)
    elif kind == "tar":
        yield from _tar_members(source, path, name, member)
    elif kind is not None:
        yield from _packed_file(source, path, name, kind)
    else:
        yield _plain_file(source, path, name)


def _archive_kind(path: Path) -> str | None:
    """Return `tar` (packed or not), `zip`, `gzip`, `bzip2`, `xz` or None, by the file's first bytes."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04"):
        return None if _is_zip_document(path) else "zip"
    packer = _packer(head)
    if packer is None:
        return "tar" if head[257:262] == b"ustar" else None
    with _unpacking(packer, path.open("rb")) as stream:
        try:
            inner = stream.read(512)
        except (OSError, EOFError, zlib.error, lzma.LZMAError):
            return packer
    return "tar" if inner[257:262] == b"ustar" else packer


def _packer(head: bytes) -> str | None:
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"BZh"):
        return "bzip2"
    return "xz" if head.startswith(b"\xfd7zXZ\x00") else None


def _is_zip_document(path: Path) -> bool:
    """Word files and e-books are zip archives too, but one document."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False
    return "[Content_Types].xml" in names or "META-INF/container.xml" in names


def _unpacking(packer: str, file: IO[bytes]) -> IO[bytes]:
    opened: Any
    if packer == "gzip":
        opened = gzip.GzipFile(fileobj=file, mode="rb")
    elif packer == "bzip2":
        opened = bz2.BZ2File(file)
    else:
        opened = lzma.LZMAFile(file)  # noqa: SIM115 - the caller closes it
    return cast(IO[bytes], opened)


def _raw(source: str, name: str, member: str, data: bytes, problems: tuple[Problem, ...] = ()) -> RawFile:
    return RawFile(source, name, member, data, hashlib.sha256(data).hexdigest(), {}, problems)


def _plain_file(source: str, path: Path, name: str) -> RawFile:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        return _raw(source, name, "", b"", (("too_large", f"{size:,} bytes; the limit is {MAX_FILE_BYTES:,}"),))
    return _raw(source, name, "", path.read_bytes())


def _packed_file(source: str, path: Path, name: str, packer: str) -> Iterator[RawFile]:
    limit = max(path.stat().st_size * MAX_RATIO, RATIO_FREE_BYTES)
    with path.open("rb") as file, _unpacking(packer, file) as stream:
        data, problems = _read_limited(stream, min(limit, MAX_FILE_BYTES))
    yield _raw(source, name, "", data, problems)


def _read_limited(stream: IO[bytes], limit: int) -> tuple[bytes, tuple[Problem, ...]]:
    """Return what the stream gives and what was wrong: `truncated` keeps what came before, `too_large` keeps nothing."""
    parts = io.BytesIO()
    try:
        while chunk := stream.read1(CHUNK_BYTES) if hasattr(stream, "read1") else stream.read(CHUNK_BYTES):
            parts.write(chunk)
            if parts.tell() > limit:
                return b"", (("too_large", f"unpacks to more than {limit:,} bytes ({MAX_RATIO} times its size)"),)
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError) as error:
        return parts.getvalue(), (("truncated", f"cut off after {parts.tell():,} unpacked bytes: {error}"),)
    return parts.getvalue(), ()


def _tar_members(source: str, path: Path, name: str, member: str | None) -> Iterator[RawFile]:
    budget = _Budget(path.stat().st_size)
    try:
        with tarfile.open(path, "r|*") as archive:
            for info in archive:
                if not info.isfile() or (member is not None and info.name != member):
                    continue
                problem = _member_problem(info.name, info.size, budget)
                if problem:
                    yield _raw(source, name, info.name, b"", (problem,))
                    continue
                stream = archive.extractfile(info)
                assert stream is not None
                yield _raw(source, name, info.name, stream.read())
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        yield _raw(source, name, "", b"", (("truncated", f"the archive is cut off or damaged: {error}"),))


def _zip_members(source: str, path: Path, name: str, member: str | None) -> Iterator[RawFile]:
    budget = _Budget(path.stat().st_size)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        yield _raw(source, name, "", b"", (("truncated", f"the archive is cut off or damaged: {error}"),))
        return
    with archive:
        for info in sorted(archive.infolist(), key=lambda item: item.filename):
            if not info.is_dir() and member in (None, info.filename):
                yield _zip_member(source, name, archive, info, budget)


def _zip_member(source: str, name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: "_Budget") -> RawFile:
    problem = _member_problem(info.filename, info.file_size, budget)
    if info.flag_bits & 1:
        problem = ("encrypted", "the member is locked with a password")
    if problem:
        return _raw(source, name, info.filename, b"", (problem,))
    try:
        with archive.open(info) as stream:
            data, problems = _read_limited(stream, info.file_size)
    except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError) as error:
        return _raw(source, name, info.filename, b"", (("truncated", f"the member cannot be read: {error}"),))
    return _raw(source, name, info.filename, data, problems)


class _Budget:
    """Unpacked bytes that an archive of a given size may still give."""

    def __init__(self, packed_bytes: int) -> None:
        self.left = max(packed_bytes * MAX_RATIO, RATIO_FREE_BYTES)

    def take(self, count: int) -> bool:
        self.left -= count
        return self.left >= 0


def _member_problem(name: str, size: int, budget: _Budget) -> Problem | None:
    if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        return "malformed_record", f"the member's name '{name}' leads out of the archive"
    if size > MAX_FILE_BYTES:
        return "too_large", f"{size:,} bytes; the limit is {MAX_FILE_BYTES:,}"
    if not budget.take(size):
        return "too_large", f"the archive unpacks to more than {MAX_RATIO} times its size"
    return None
