"""A scripted server on loopback that answers as an upstream would: each request takes the next script, the last one stays."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Script:
    """A status, headers, and the chunks of a body with a pause before each. `cut` closes the connection in the middle."""

    chunks: Sequence[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False


class FakeUpstream:
    """Holds the scripts and what was asked: path, headers, body."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.left = threading.Event()
        self.url = ""

    def next_script(self) -> Script:
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]


@contextmanager
def fake_upstream() -> Iterator[FakeUpstream]:
    fake = FakeUpstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            fake.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            script = fake.next_script()
            self.send_response(script.status)
            for name, value in script.headers.items():
                self.send_header(name, value)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            try:
                for chunk in script.chunks:
                    time.sleep(script.delay)
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                    self.wfile.flush()
                if not script.cut:
                    self.wfile.write(b"0\r\n\r\n")
            except OSError:
                fake.left.set()
            self.close_connection = script.cut

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()


def sse(*objects: Any, done: bool = True) -> list[bytes]:
    """Return objects as server-sent events, each a chunk."""
    events = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in objects]
    return [*events, b"data: [DONE]\n\n"] if done else events


def lines(*objects: Any) -> list[bytes]:
    """Return objects as lines, each a chunk."""
    return [json.dumps(one).encode() + b"\n" for one in objects]
