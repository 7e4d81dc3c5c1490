"""Files and archives as streams: turns one path into the raw files in it.

Archives (.tar, .zip, .gz, .bz2, .xz, .zst and tars packed with them) are never unpacked to disk, so a member's name can
lead nowhere; an archive inside an archive is read too, one level deep. A cut-off archive gives the files that could be
read, and the last of them carries the problem. Files of records above `Limits.single_bytes` come in parts (see `parts`).
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

from caslon.corpus.collect import parts
from caslon.corpus.collect.parts import CHUNK_BYTES, HEAD_BYTES, MAX_FILE_BYTES, Limits, Part, read_some
from caslon.corpus.collect.raw_file import PART, Problem, RawFile

MAX_RATIO = 100  # unpacked bytes per packed byte; text packs 3 to 10 times, bombs 1000 times
RATIO_FREE_BYTES = 1 << 20  # tiny archives of blanks may pack better than that
ZSTD_STEP_BYTES = 1 << 10  # packed bytes unpacked at once: a bomb gives at most 32 MiB for them
NESTED = "!"  # between the names of an archive inside an archive and of its member
READ_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)

__all__ = ["MAX_FILE_BYTES", "MAX_RATIO", "NESTED", "Limits", "read_path"]


class _Bomb(Exception):
    """More came out of an archive than its size allows."""


def read_path(
    source: str, path: Path, name: str, member: str | None = None, limits: Limits | None = None
) -> Iterator[RawFile]:
    """Yield the file itself, or the members of it when it is an archive (only `member` when given)."""
    try:
        with path.open("rb") as file:
            reader = _Reader(source, name, member, limits or Limits(), path.stat().st_size)
            yield from reader.file(file, "", 0)
    except PermissionError as error:
        yield _raw(source, name, "", b"", (("fetch_failed", f"the file cannot be opened: {error.strerror}"),))


class _CutOff(Exception):
    """A tar ends inside a member, which is then no complete file; the archive carries the problem."""


class _Budget:
    """Unpacked bytes that an archive of a given size may still give, at most those of the archive around it."""

    def __init__(self, packed_bytes: int, outer: "_Budget | None" = None) -> None:
        self.left = max(packed_bytes * MAX_RATIO, RATIO_FREE_BYTES)
        self._outer = outer
        if outer is not None:
            self.left = min(self.left, outer.left)
        self._taken = 0
        self._is_exceeded = False

    def take(self, count: int) -> bool:
        """Take so many bytes; False, and nothing is taken, when they are too many."""
        if count > self.left:
            self._is_exceeded = True
            return False
        self.left -= count
        self._taken += count
        return True

    def settle(self) -> None:
        """Charge the archive around this one, unless nothing came of it because it was a bomb."""
        if self._outer is not None and not self._is_exceeded:
            self._outer.take(self._taken)


class _Metered(io.RawIOBase):
    """A stream out of a packer that stops with an error once it gave more than the budget."""

    def __init__(self, stream: IO[bytes], budget: _Budget) -> None:
        self._stream, self._budget = stream, budget

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        data = read_some(self._stream, size if size >= 0 else CHUNK_BYTES)
        if not self._budget.take(len(data)):
            raise _Bomb
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _TarMember(io.RawIOBase):
    """A member of a tar, whose damage is the damage of the archive."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except READ_ERRORS as error:
            raise _CutOff(str(error)) from error
        buffer[: len(data)] = data
        return len(data)


class _Reader:
    """Reads one file; `wanted` names the only member to give, with the range of a part or without."""

    def __init__(self, source: str, name: str, wanted: str | None, limits: Limits, size: int) -> None:
        self._source, self._name, self._limits = source, name, limits
        self._wanted = wanted
        span = PART.search(wanted or "")
        self._span = (int(span[1]), int(span[2])) if span else None
        self._budget = _Budget(size)

    def file(self, file: IO[bytes], member: str, depth: int) -> Iterator[RawFile]:
        """Yield what is in a file that can be rewound."""
        kind = _archive_kind(file)
        if kind == "zip":
            yield from self._zip_members(file, member, depth)
        elif kind is None:
            yield from self._content(file, member, depth)
        elif kind.startswith("tar"):
            yield from self._tar_members(file, member, depth, kind.removeprefix("tar").removeprefix(" "))
        else:
            with _unpacking(kind, file) as stream:
                yield from self._content(cast(IO[bytes], _Metered(stream, self._budget)), member, depth + 1)

    # --- one file's content

    def _content(self, stream: IO[bytes], member: str, depth: int) -> Iterator[RawFile]:
        try:
            if self._span and self._is_wanted(PART.sub("", self._wanted or ""), member):
                yield self._part_again(stream, member)
                return
            buffer = bytearray()
            problem = _fill(stream, buffer, HEAD_BYTES)
            if depth == 1 and problem is None and _magic(buffer[:512]):
                yield from self._nested(stream, buffer, member)
                return
            yield from self._sized_content(stream, buffer, problem, member)
        except _Bomb:
            yield self._raw(member, b"", ("too_large", f"it unpacks to more than {MAX_RATIO} times its size"))

    def _sized_content(
        self, stream: IO[bytes], buffer: bytearray, problem: Problem | None, member: str
    ) -> Iterator[RawFile]:
        limits = self._limits
        problem = problem or _fill(stream, buffer, limits.single_bytes + 1)
        records = None
        if problem is None and len(buffer) > min(limits.single_bytes, limits.file_bytes):
            records = parts.records_of(bytes(buffer[:HEAD_BYTES]), PurePosixPath(member or self._name).name)
            problem = _fill(stream, buffer, limits.file_bytes + 1) if records is None else None
            if records is None and len(buffer) > limits.file_bytes:
                buffer, problem = bytearray(), ("too_large", f"the limit is {limits.file_bytes:,} bytes")
        if records is None or len(buffer) <= limits.single_bytes:
            yield self._raw(member, bytes(buffer), *([problem] if problem else []))
            return
        last = 0
        try:
            for part in parts.parts_of(stream, buffer, records, limits):
                yield self._part(part, member)
                last = part.end
        except READ_ERRORS as error:
            yield self._raw(member, b"", ("truncated", f"cut off after {last:,} unpacked bytes: {error}"))

    def _part(self, part: Part, member: str) -> RawFile:
        raw = self._raw(f"{member}@{part.start}-{part.end}", part.bytes, *([part.problem] if part.problem else []))
        offsets = {"line_offset": part.line_offset, "byte_offset": part.byte_offset}
        return RawFile(raw.source, raw.path, raw.member, raw.bytes, raw.sha256, offsets, raw.problems)

    def _part_again(self, stream: IO[bytes], member: str) -> RawFile:
        assert self._span is not None
        try:
            return self._part(parts.part_between(stream, *self._span, PurePosixPath(member or self._name).name), member)
        except (*READ_ERRORS, ValueError) as error:
            return self._raw(self._wanted or "", b"", ("truncated", f"the part is not there any more: {error}"))

    def _nested(self, stream: IO[bytes], buffer: bytearray, member: str) -> Iterator[RawFile]:
        limit = self._limits.file_bytes
        problem = _fill(stream, buffer, limit + 1)
        if problem is None and len(buffer) > limit:
            problem, buffer = ("too_large", f"an archive inside an archive; the limit is {limit:,} bytes"), bytearray()
        if problem:
            yield self._raw(member, bytes(buffer), problem)
            return
        around, self._budget = self._budget, _Budget(len(buffer), self._budget)
        yield from self.file(io.BytesIO(bytes(buffer)), member, 1)
        self._budget.settle()
        self._budget = around

    # --- archives

    def _tar_members(self, file: IO[bytes], outer: str, depth: int, packer: str) -> Iterator[RawFile]:
        try:
            stream = _unpacking(packer, file) if packer else file
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for info in archive:
                    if not info.isfile() or not self._leads_to(member := _inside(outer, info.name)):
                        continue
                    problem = self._member_problem(info.name, info.size)
                    if problem:
                        yield self._raw(member, b"", problem)
                        continue
                    content = archive.extractfile(info)
                    assert content is not None
                    yield from self._content(cast(IO[bytes], _TarMember(content)), member, depth + 1)
        except (*READ_ERRORS, _CutOff) as error:
            yield self._raw(outer, b"", ("truncated", f"the archive is cut off or damaged: {error}"))

    def _zip_members(self, file: IO[bytes], outer: str, depth: int) -> Iterator[RawFile]:
        try:
            archive = zipfile.ZipFile(file)
        except (*READ_ERRORS, ValueError) as error:
            yield self._raw(outer, b"", ("truncated", f"the archive is cut off or damaged: {error}"))
            return
        with archive:
            for info in sorted(archive.infolist(), key=lambda item: item.filename):
                if not info.is_dir() and self._leads_to(_inside(outer, info.filename)):
                    yield from self._zip_member(archive, info, _inside(outer, info.filename), depth)

    def _zip_member(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, member: str, depth: int
    ) -> Iterator[RawFile]:
        problem = self._member_problem(info.filename, info.file_size)
        if problem:
            yield self._raw(member, b"", problem)
            return
        if info.flag_bits & 0x1:
            yield self._raw(member, b"", ("encrypted", "the member of the zip archive is locked with a password"))
            return
        try:
            with archive.open(info) as stream:
                yield from self._content(stream, member, depth + 1)
        except (*READ_ERRORS, NotImplementedError, RuntimeError) as error:
            yield self._raw(member, b"", ("truncated", f"the member cannot be read: {error}"))

    def _member_problem(self, name: str, size: int) -> Problem | None:
        if name.startswith(("/", "\\")) or ".." in PurePosixPath(name.replace("\\", "/")).parts:
            return "malformed_record", f"the member's name '{name}' leads out of the archive"
        if not self._budget.take(size):
            return "too_large", f"the archive unpacks to more than {MAX_RATIO} times its size"
        return None

    # --- names

    def _leads_to(self, member: str) -> bool:
        """Whether the wanted member is this one, or inside it."""
        wanted = self._wanted
        return wanted is None or self._is_wanted(wanted, member) or self._is_wanted(PART.sub("", wanted), member)

    @staticmethod
    def _is_wanted(wanted: str, member: str) -> bool:
        return wanted == member or wanted.startswith(member + NESTED)

    def _raw(self, member: str, data: bytes, *problems: Problem) -> RawFile:
        return _raw(self._source, self._name, member, data, problems)


def _raw(source: str, name: str, member: str, data: bytes, problems: tuple[Problem, ...] = ()) -> RawFile:
    return RawFile(source, name, member, data, hashlib.sha256(data).hexdigest(), {}, problems)


def _inside(outer: str, name: str) -> str:
    return f"{outer}{NESTED}{name}" if outer else name


def _fill(stream: IO[bytes], buffer: bytearray, size: int) -> Problem | None:
    """Read until the buffer holds `size` bytes or the stream ends; return what was wrong with the stream."""
    try:
        while len(buffer) < size and (chunk := read_some(stream, min(CHUNK_BYTES, size - len(buffer)))):
            buffer += chunk
    except READ_ERRORS as error:
        return "truncated", f"cut off after {len(buffer):,} unpacked bytes: {error}"
    return None


# --- kinds and packers -------------------------------------------------------------------------------------------------


def _archive_kind(file: IO[bytes]) -> str | None:
    """Return `zip`, `tar`, `tar PACKER`, a packer or None, by the first bytes; the file is rewound."""
    head = file.read(512)
    file.seek(0)
    magic = _magic(head)
    if magic == "zip":
        return None if _is_zip_document(file) else "zip"
    if magic in (None, "tar"):
        return magic
    inner = bytearray()
    with _unpacking(magic, file) as stream:
        _fill(stream, inner, 512)
    file.seek(0)
    return f"tar {magic}" if _magic(inner) == "tar" else magic


def _magic(head: bytes | bytearray) -> str | None:
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"BZh"):
        return "bzip2"
    if head.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "zstd"
    return "tar" if head[257:262] == b"ustar" else None


def _is_zip_document(file: IO[bytes]) -> bool:
    """Word files, e-books and Slack exports are zip archives too, but belong together."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False
    finally:
        file.seek(0)
    return bool(names & {"[Content_Types].xml", "META-INF/container.xml"}) or {"users.json", "channels.json"} <= names


def _unpacking(packer: str, file: IO[bytes]) -> IO[bytes]:
    """Return the unpacked stream; closing it leaves the file open."""
    opened: Any
    if packer == "gzip":
        opened = gzip.GzipFile(fileobj=file, mode="rb")
    elif packer == "bzip2":
        opened = bz2.BZ2File(file)
    elif packer == "xz":
        opened = lzma.LZMAFile(file)  # noqa: SIM115 - the caller closes it
    else:
        opened = io.BufferedReader(_ZstdStream(file), CHUNK_BYTES)
    return cast(IO[bytes], opened)


class _ZstdStream(io.RawIOBase):
    """Zstandard frames one after another; unlike the library's own reader it notices that the last one is cut off."""

    def __init__(self, file: IO[bytes]) -> None:
        import zstandard

        self._file = file
        self._make = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj
        self._error = zstandard.ZstdError
        self._frame = self._make()
        self._packed = self._data = b""
        self._is_inside = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._data:
            self._packed = self._packed or self._file.read(ZSTD_STEP_BYTES)
            if not self._packed:
                if self._is_inside:
                    raise EOFError("the zstandard frame is cut off")
                return 0
            self._unpack()
        size = min(len(buffer), len(self._data))
        buffer[:size] = self._data[:size]
        self._data = self._data[size:]
        return size

    def _unpack(self) -> None:
        try:
            self._data = self._frame.decompress(self._packed)
        except self._error as error:
            raise OSError(str(error)) from error
        self._is_inside, self._packed = not self._frame.eof, b""
        if self._frame.eof:
            self._packed = self._frame.unused_data
            self._frame = self._make()
