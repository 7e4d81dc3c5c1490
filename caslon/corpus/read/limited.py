"""Reading with limits: turns a raw file into documents in a process of its own, so that no file can stop a build.

One long-lived process reads file after file; a hang, a crash or a memory blow-up costs that file alone, and a fresh process
takes the next one. The process is a new interpreter, not a fork: a fork of a program with threads may hang by itself. It is
handed on from one reader to the next, for starting one takes longer than reading many small files. Time is that of the
processor, so that a good file is not lost to a busy machine; a process that stands still for as long is ended too. Memory counts
from what the process held when the file came (RLIMIT_DATA, which the kernels of Linux enforce and those of macOS do not).
"""

import atexit
import copyreg
import io
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from caslon.corpus.collect import RawFile
from caslon.corpus.detect import looks_like_text
from caslon.corpus.document import Block, Document, Reject
from caslon.corpus.filters import reject
from caslon.corpus.read import STEP, ReadSettings, read
from caslon.corpus.steps import failure
from caslon.errors import CaslonError

if TYPE_CHECKING:
    from caslon.corpus.settings import ReadLimits  # the child has no use for pydantic

Then = Callable[[Document], Document | Reject]

START_SECONDS = 120.0  # for the new interpreter and its imports, on a busy machine
WORKING_SHARE = 0.01  # of the time; a process that takes less of the processor stands still
PROCESS_CLOCK = 2  # a process's clock by its number, as clock_getcpuclockid(3) forms it on Linux
HEAD_BYTES = 65_536
STATM = Path("/proc/self/statm")
PROGRAM = "import sys; sys.path[:] = {path!r}; from caslon.corpus.read.limited import serve; serve({handle})"


class LimitedReader:
    """`read` within limits of time and memory. As a context manager it hands its process on at the end.

    `then` is applied to every document inside the process, under the same limits; it must be picklable (a function of a
    module, or a `functools.partial` of one), and a document it fails on becomes a `step_failed` reject of the step
    `then_step`.
    """

    def __init__(self, limits: "ReadLimits", then: Then | None = None, then_step: str = STEP) -> None:
        self.seconds, self.memory_bytes = limits.seconds, limits.memory_bytes
        self._then, self._then_step = then, then_step
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hand the process on to the next reader of this program."""
        if self._child is not None:
            _idle.append(self._child)
            self._child = None

    def read(self, raw: RawFile, settings: ReadSettings | None = None) -> Iterator[Document | Reject]:
        """Yield what `read` yields; a file beyond the limits ends with a `timeout` reject, a crash with `step_failed`.

        What was found before that is kept. Raises `CaslonError` when no process can be started.
        """
        child, self._child = self._child or _take_idle(), None
        if not child.is_alive():
            child.stop()
            child = _Child()
        try:
            yield from self._answers(child, raw, settings)
        finally:
            if child.is_idle:
                self._child = child
            else:
                child.stop()

    def _answers(self, child: "_Child", raw: RawFile, settings: ReadSettings | None) -> Iterator[Document | Reject]:
        found = 0
        failed = child.send(_Request(raw, settings, self.seconds, self.memory_bytes, self._then, self._then_step))
        while failed is None:
            answer = child.receive(self.seconds)
            if isinstance(answer, _Failed):
                failed = answer
            elif answer is None:
                return
            else:
                found += 1
                yield answer
        yield _rejected(raw, failed, found)


@dataclass(frozen=True)
class _Request:
    raw: RawFile
    settings: ReadSettings | None
    seconds: float
    memory_bytes: int
    then: Then | None
    then_step: str


@dataclass(frozen=True)
class _Failed:
    """Why a file was given up."""

    code: str
    reason: str


def _rejected(raw: RawFile, failed: _Failed, found: int) -> Reject:
    """Return the reject of a file that was given up; beside documents found before, it has an id of its own."""
    is_text = looks_like_text(raw.bytes[:HEAD_BYTES])
    text = raw.bytes[: None if is_text else ReadSettings().reject_bytes].decode("utf-8", errors="replace")
    reason = f"{failed.reason}; {found} documents or rejects came before" if found else failed.reason
    origin = replace(raw.origin, record=failed.code if found else "")
    return Reject(origin, STEP, failed.code, reason, text, 0, len(text), {"bytes": len(raw.bytes)})


# --- the parent's side -------------------------------------------------------------------------------------------------


class _Child:
    """The process at the other end, started at once."""

    def __init__(self) -> None:
        self.is_idle = True  # all answers to the last request have come
        self._owner = os.getpid()
        self._connection, far = Pipe()
        program = PROGRAM.format(path=sys.path, handle=far.fileno())
        with far:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=2, pass_fds=(far.fileno(),)
            )
        if not self._connection.poll(START_SECONDS) or not self._is_ready():
            self.stop()
            raise CaslonError("the process that reads files did not start", where=sys.executable)

    def _is_ready(self) -> bool:
        try:
            return self._connection.recv_bytes() == b""
        except (EOFError, OSError):
            return False

    def is_alive(self) -> bool:
        """Return whether the process lives and is this program's own (not that of one it was forked from)."""
        return self._owner == os.getpid() and self._process.poll() is None

    def send(self, request: _Request) -> _Failed | None:
        """Send a file; return what went wrong, for the process may die while it takes it."""
        self.is_idle = False
        data = pickle.dumps(request, pickle.HIGHEST_PROTOCOL)
        try:
            self._connection.send_bytes(data)
        except OSError:
            return self._obituary()
        return None

    def receive(self, seconds: float) -> Document | Reject | _Failed | None:
        """Return the next answer; None after the last one."""
        try:
            if not self._comes(seconds):
                return _Failed("timeout", "reading stood still for longer than the limit allows")
            answer: Document | Reject | _Failed | None = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - our own
        except (EOFError, OSError):
            return self._obituary()
        self.is_idle = answer is None
        return answer

    def _comes(self, seconds: float) -> bool:
        """Wait for an answer for as long as the process works on it, however little of the processor it gets."""
        if not seconds:  # no time at all is too little for any answer
            return False
        before = self._processor_seconds()
        while not self._connection.poll(seconds):
            now = self._processor_seconds()
            if now - before < WORKING_SHARE * seconds:
                return False
            before = now
        return True

    def _processor_seconds(self) -> float:
        """Return the processor time the process has taken; 0 where the system does not tell."""
        if sys.platform != "linux":
            return 0.0
        try:
            return time.clock_gettime(~self._process.pid << 3 | PROCESS_CLOCK)
        except OSError:  # it ended
            return 0.0

    def stop(self) -> None:
        """End the process and what belongs to it."""
        self._connection.close()
        if self._owner == os.getpid():
            self._process.kill()
            self._process.wait()

    def _obituary(self) -> _Failed:
        status = self._process.wait()
        if status == -signal.SIGPROF:
            return _Failed("timeout", "reading took more processor time than the limit allows")
        if status < 0:
            return _Failed("step_failed", f"the reading process was ended by the signal {signal.Signals(-status).name}")
        return _Failed("step_failed", f"the reading process ended with status {status}")


_idle: list[_Child] = []


def _take_idle() -> _Child:
    try:
        return _idle.pop()
    except IndexError:
        return _Child()


@atexit.register
def _stop_idle() -> None:
    while _idle:
        _idle.pop().stop()


# --- the child's side --------------------------------------------------------------------------------------------------


def serve(handle: int) -> None:
    """Answer requests that come over an open file descriptor until it is closed. The program of the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    connection = Connection(handle)
    connection.send_bytes(b"")
    while True:
        try:
            request: _Request = pickle.loads(connection.recv_bytes())  # noqa: S301 - from our parent
        except (EOFError, OSError):
            return
        if not _answer(request, connection):
            return


def _answer(request: _Request, connection: Connection) -> bool:
    """Send all documents of a file; return whether the process is fit for another one."""
    signal.setitimer(signal.ITIMER_PROF, request.seconds)
    answer = None
    try:
        with _memory_limit(request.memory_bytes):
            for item in read(request.raw, request.settings):
                _send(connection, _after(item, request))
    except MemoryError:
        answer = _Failed("timeout", f"reading took more than the {request.memory_bytes:,} bytes of memory allowed")
    except Exception as error:
        answer = _Failed("step_failed", failure(error))
    signal.setitimer(signal.ITIMER_PROF, 0)
    _send(connection, answer)
    return answer is None or answer.code != "timeout"


def _after(item: Document | Reject, request: _Request) -> Document | Reject:
    if request.then is None or isinstance(item, Reject):
        return item
    try:
        return request.then(item)
    except MemoryError:
        raise  # the whole file's affair
    except Exception as error:
        return reject(item, request.then_step, "step_failed", failure(error))


def _send(connection: Connection, answer: Document | Reject | _Failed | None) -> None:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = BY_PARTS
    pickler.dump(answer)
    try:
        connection.send_bytes(buffer.getbuffer())
    except OSError as error:
        raise SystemExit from error  # the parent is gone


def _block_parts(block: Block) -> tuple[type[Block], tuple[str, int, int]]:
    return Block, (block.text, block.start, block.end)


# Blocks are many and small: by their parts they travel at three times the speed.
BY_PARTS: dict[type, Callable[[Any], Any]] = {**copyreg.dispatch_table, Block: _block_parts}


@contextmanager
def _memory_limit(memory_bytes: int) -> Iterator[None]:
    """Refuse memory beyond what is held now and `memory_bytes`; a refusal shows as MemoryError in most libraries."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _data_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Return the bytes of data and stacks this process has mapped; 0 where the system does not tell."""
    try:
        return int(STATM.read_bytes().split()[5]) * resource.getpagesize()
    except OSError:
        return 0
