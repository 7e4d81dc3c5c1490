"""A server on this machine that answers as tests tell it to, well or badly, and remembers what it was asked."""

import hashlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    """One answer. `cut_after` breaks the connection after so many bytes of the body, `stall_seconds` waits there instead."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_seconds: float = 0.0
    announce_length: bool = True


@dataclass
class Asked:
    """One request the server got."""

    path: str
    headers: dict[str, str]
    sent_bytes: int = 0


class Loopback:
    """Answers by path: a queue of replies, of which the last stays. GETs of files understand Range and ETags."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.replies: dict[str, deque[Reply]] = defaultdict(deque)
        self.first: dict[str, deque[Reply]] = defaultdict(deque)
        self.files: dict[str, tuple[bytes, str]] = {}
        self.make: dict[str, Callable[[str], Reply]] = {}  # path without query -> reply to the whole path
        self.url = ""

    def reply(self, path: str, *replies: Reply) -> str:
        """Queue replies for a path and return its address."""
        self.replies[path].extend(replies)
        return self.url + path

    def once(self, path: str, reply: Reply) -> str:
        """Answer one request to a path in another way than the later ones, and return its address."""
        self.first[path].append(reply)
        return self.url + path

    def file(self, path: str, body: bytes, etag: str | None = None) -> str:
        """Serve bytes with an ETag (of their content unless given) and return the address."""
        self.files[path] = (body, etag if etag is not None else f'"{hashlib.md5(body).hexdigest()}"')
        return self.url + path

    def paths(self) -> list[str]:
        """The paths asked for, but for robots.txt."""
        return [asked.path for asked in self.asked if asked.path != "/robots.txt"]

    def answer(self, asked: Asked) -> Reply:
        """Return what is answered to a request."""
        if self.first[asked.path]:
            return self.first[asked.path].popleft()
        queue = self.replies.get(asked.path)
        if queue:
            return queue.popleft() if len(queue) > 1 else queue[0]
        bare = asked.path.split("?")[0]
        if bare in self.make:
            return self.make[bare](asked.path)
        if asked.path in self.files:
            return self._file(asked, *self.files[asked.path])
        return Reply(b"not here", 404)

    def _file(self, asked: Asked, body: bytes, etag: str) -> Reply:
        headers = {"etag": etag} if etag else {}
        if etag and asked.headers.get("if-none-match") == etag:
            return Reply(b"", 304, headers)
        start = asked.headers.get("range", "").removeprefix("bytes=").rstrip("-")
        if start and asked.headers.get("if-range") == etag:
            headers["content-range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return Reply(body[int(start) :], 206, headers)
        return Reply(body, 200, headers)


@contextmanager
def serving() -> Iterator[Loopback]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    loopback = Loopback()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            asked = Asked(self.path, {name.lower(): value for name, value in self.headers.items()})
            loopback.asked.append(asked)
            self._send(loopback.answer(asked), asked)

        def _send(self, reply: Reply, asked: Asked) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.announce_length and reply.status != 304:
                self.send_header("content-length", str(len(reply.body)))
            else:
                self.close_connection = True
            self.end_headers()
            body = reply.body if reply.cut_after is None else reply.body[: reply.cut_after]
            self.wfile.write(body)
            self.wfile.flush()
            asked.sent_bytes = len(body)
            if reply.cut_after is not None:
                time.sleep(reply.stall_seconds)
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    loopback.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield loopback
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class FakeTime:
    """A clock that only sleeping moves."""

    seconds: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.slept.append(seconds)
        self.seconds += seconds

    def clock(self) -> float:
        """The time."""
        return self.seconds
