"""What the server refuses before any work: bodies that are too long, callers without a key, answers beyond the queue."""

import base64
import hashlib
import hmac
import math
import threading
import time
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caslon.errors import UserError
from caslon.server.errors import SERVER_ERROR, Refused
from caslon.server.settings import LOOPBACK_HOSTS, ServerSettings

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/version"})


def key_digest(key: str) -> str:
    """Return the SHA-256 of a key as 64 hex digits: the only form in which a key is kept."""
    return hashlib.sha256(key.encode()).hexdigest()


def check_exposure(settings: ServerSettings) -> None:
    """Raise `UserError` when the model would be open to the network without a key."""
    if settings.host in LOOPBACK_HOSTS or settings.api_key_sha256 or settings.no_auth:
        return
    raise UserError(
        f"refusing to serve on {settings.host} without an API key: anyone who reaches this machine could use the model",
        fix="set api_key_sha256, or listen on 127.0.0.1, or say no_auth = true (--no-auth)",
    )


class BodyLimit:
    """ASGI middleware: a body over the limit is 413, whether it announces its length or not."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body counted."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > self.max_body_bytes:
            await refuse(self._too_long(), scope, receive, send)
            return
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self.max_body_bytes:
                raise self._too_long()
            return message

        await self.app(scope, counted, send)

    def _too_long(self) -> Refused:
        message = f"the request body is longer than {self.max_body_bytes} bytes"
        return Refused(413, message, code="request_too_large", headers={"connection": "close"})


class KeyGuard:
    """ASGI middleware: lets in who shows a key, as OpenAI's bearer token or, in a browser, as the password it asks for."""

    def __init__(self, app: ASGIApp, digests: Sequence[str]) -> None:
        self.app = app
        self.digests = tuple(digests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] != "http" or self._let_in(scope):
            await self.app(scope, receive, send)
        else:
            await refuse(self._unknown(scope["path"]), scope, receive, send)

    def _let_in(self, scope: Scope) -> bool:
        free = not self.digests or scope["path"] in OPEN_PATHS
        return free or self._known(Headers(scope=scope).get("authorization", ""))

    def _known(self, authorization: str) -> bool:
        shown = key_digest(_shown_key(authorization))
        # Every digest is compared, each in constant time: how long it takes tells nothing about the keys.
        return sum(hmac.compare_digest(shown, digest) for digest in self.digests) > 0

    def _unknown(self, path: str) -> Refused:
        # A browser asks for a password only when told so; a client of the API must not be.
        asks = (
            {} if path.startswith("/v1/") else {"www-authenticate": 'Basic realm="caslon: any name, key as password"'}
        )
        return Refused(401, "no valid API key was given", code="invalid_api_key", headers=asks)


def _shown_key(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # no key at all then
            return ""
    return ""


async def refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with an error."""
    response = JSONResponse(refused.body(), status_code=refused.status, headers=refused.headers)
    await response(scope, receive, send)


class Admission:
    """Counts the answers that are open and refuses what would wait too long. Safe to use from many threads."""

    def __init__(self, running: int, waiting: int) -> None:
        self.running = running  # what the engine works on at once
        self.most = running + waiting
        self.draining = False
        self._open = 0
        self._seconds_per_answer = 1.0
        self._last_end: float | None = None
        self._lock = threading.Lock()

    @property
    def open(self) -> int:
        """Answers that are admitted and not yet at their end."""
        return self._open

    def enter(self, answers: int) -> None:
        """Admit a request for some answers; `Refused` (503) when the queue is full or the server is going down."""
        with self._lock:
            if self.draining:
                raise Refused(503, "the server is shutting down", code="draining", kind=SERVER_ERROR)
            # A request for more answers than the queue holds is taken when nothing else is open.
            if self._open and self._open + answers > self.most:
                raise self._overloaded()
            self._open += answers

    def leave(self) -> None:
        """Note the end of one answer."""
        with self._lock:
            self._open -= 1
            now = time.monotonic()
            if self._last_end is not None and self._open:
                self._seconds_per_answer += 0.2 * (now - self._last_end - self._seconds_per_answer)
            self._last_end = now

    def _overloaded(self) -> Refused:
        waiting = max(1, self._open - self.running + 1)
        seconds = min(60, max(1, math.ceil(waiting * self._seconds_per_answer)))
        message = f"{self._open} answers are running or waiting; at most {self.most} are taken"
        return Refused(503, message, code="overloaded", kind=SERVER_ERROR, headers={"retry-after": str(seconds)})
