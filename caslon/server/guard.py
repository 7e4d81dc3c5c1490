"""The middleware every request passes: its record, its key and limits, the length of its body."""

import asyncio
import base64
import logging
import re
import uuid
from urllib.parse import quote

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caslon.server.calls import Call
from caslon.server.errors import Refused
from caslon.server.service import Service

log = logging.getLogger("caslon.server")

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/version"})
# What the API counts and writes down; pages and figures are only guarded.
API_PATHS = ("/v1/", "/tokenize", "/detokenize", "/apply-template", "/generate", "/admin/")
SCOPES = {
    "/v1/embeddings": "embed",
    "/metrics": "metrics",
    "/admin/": "admin",
    "/v1/load_lora_adapter": "admin",
    "/v1/unload_lora_adapter": "admin",
}
ANY_SCOPE = frozenset({"/v1/models", "/docs", "/openapi.json"})
MOST_HEADER_BYTES = 1024
CLIENT_GONE = 499  # nginx's word for a client that left before its answer
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# A page may run its own scripts and styles and talk to its own server, and nobody else, whatever a model writes into it.
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class ReaderStalled(OSError):
    """A client that has read nothing for too long."""


class RequestRecord:
    """ASGI middleware: gives each request an id (the caller's when it sent one), counts it, and settles it at its end.

    What stands in the accounts and the audit log is written before the last byte of the answer, for a stream before the
    event that says how it ended.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its record."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call = _call_of(scope)
        scope.setdefault("state", {}).update(call=call, request_id=call.request_id)

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                call.endpoint = _route(scope)
                headers = MutableHeaders(scope=message)
                headers.update({"x-request-id": call.request_id, **SECURITY_HEADERS})
                headers.update(call.limits)
                headers.update({"x-caslon-served-by": call.served_by} if call.served_by else {})
                if ignored := scope["state"].get("ignored"):
                    headers["x-caslon-ignored"] = ",".join(map(quote, ignored))[:MOST_HEADER_BYTES]
                self.service.metrics.http_request(call.endpoint, message["status"])
            elif not message.get("more_body") or (call.answers and call.all_ended):
                await self._leave(call)
            await self._sent(send, message)

        try:
            await self.app(scope, receive, send_recorded)
        finally:
            if not call.status:
                call.status, call.endpoint = CLIENT_GONE, _route(scope)
            await self._leave(call)

    async def _leave(self, call: Call) -> None:
        for answer in call.answers:  # nothing more of them could be sent
            answer.cancel()
        await call.ended()
        if not call.closed and _is_api(call.endpoint) and not self.service.admission.is_open:
            await to_thread.run_sync(self.service.admission.leave, call)

    async def _sent(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self.service.settings.reader_timeout_seconds):
                await send(message)
        except TimeoutError:
            raise ReaderStalled("the client stopped reading") from None


class KeyGuard:
    """ASGI middleware: lets in who shows a key that may do this, within its limits.

    A key is OpenAI's bearer token, Anthropic's `x-api-key` or, in a browser, the password it asks for.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 403, 429 or 503."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        call: Call = scope["state"]["call"]
        try:
            if not self.service.admission.is_open:
                await to_thread.run_sync(self._let_in, scope, call)
        except Refused as refused:
            self.service.metrics.refused(refused.code)
            await refuse(_with_question(refused, scope["path"]), scope, receive, send)
            return
        if call.entry is not None and call.entry.delay_seconds:
            await asyncio.sleep(call.entry.delay_seconds)
        await self.app(scope, receive, send)

    def _let_in(self, scope: Scope, call: Call) -> None:
        admission = self.service.admission
        path = scope["path"]
        call.key = admission.authenticated(_shown_key(Headers(scope=scope)), call.address)
        allowed = call.key is None or _allows(call.key.scopes, path)
        if _is_api(path) and not (allowed and scope["method"] == "POST"):
            admission.tell(call)
        if call.key is not None and not allowed:
            message = f"this key's scopes ({', '.join(call.key.scopes)}) do not allow {path}"
            raise Refused(403, message, code="scope_missing", kind="permission_error")
        if scope["method"] == "POST" and _is_api(path):
            admission.enter(call)


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


async def refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with an error."""
    response = JSONResponse(refused.body(), status_code=refused.status, headers=refused.headers)
    await response(scope, receive, send)


def _call_of(scope: Scope) -> Call:
    headers = Headers(scope=scope)
    given = headers.get("x-request-id", "")
    request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    address = scope["client"][0] if scope.get("client") else ""
    return Call(request_id, scope["path"], address, traceparent=headers.get("traceparent"))


def _shown_key(headers: Headers) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # no key at all then
            return ""
    return headers.get("x-api-key", "")


def _allows(scopes: tuple[str, ...], path: str) -> bool:
    if path in ANY_SCOPE or path.startswith("/v1/models/"):
        return True
    return next((scope for prefix, scope in SCOPES.items() if path.startswith(prefix)), "infer") in scopes


def _with_question(refused: Refused, path: str) -> Refused:
    """Let a browser ask for a password, which it does only when told so; a client of the API must not be told."""
    if refused.status == 401 and not path.startswith("/v1/"):
        refused.headers["www-authenticate"] = 'Basic realm="caslon: any name, key as password"'
    return refused


def _is_api(path: str) -> bool:
    return path.startswith(API_PATHS)


def _route(scope: Scope) -> str:
    """Return the pattern of the route, which bounds the number of labels; the page's many paths count as one."""
    path = getattr(scope.get("route"), "path", None)
    if isinstance(path, str) and path.startswith((*API_PATHS, "/health", "/metrics")):
        return path
    return "/v1/refused" if _is_api(scope["path"]) else "page"
