"""The HTTP application over one served model: routes, error answers, request ids, health.

A request goes `app -> chat | completions -> service -> engine` and comes back through `stream`.
"""

import asyncio
import contextlib
import logging
import platform
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import caslon
from caslon.engine.engine import Engine
from caslon.errors import CaslonError
from caslon.server.api_page import api_page
from caslon.server.chat import create_chat_completion
from caslon.server.completions import create_completion
from caslon.server.errors import SERVER_ERROR, Refused, refused_from
from caslon.server.limits import BodyLimit, KeyGuard
from caslon.server.metrics import CONTENT_TYPE
from caslon.server.service import Service
from caslon.server.settings import ServerSettings
from caslon.server.tokenize import detokenize, tokenize
from caslon.server.wire import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest, Wire

log = logging.getLogger("caslon.server")

LAG_PROBE_SECONDS = 0.25
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# A page may run its own scripts and styles and talk to its own server, and nobody else, whatever a model writes into it.
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
Endpoint = Callable[[Service, Request], Awaitable[Response]]


def create_app(
    engine: Engine, model_name: str, settings: ServerSettings | None = None, *, fingerprint: str | None = None
) -> FastAPI:
    """Return the application that serves an engine. The engine stays the caller's to close."""
    settings = settings or ServerSettings()
    service = Service(engine, model_name, settings, fingerprint=fingerprint)
    app = FastAPI(
        title="caslon",
        version=caslon.__version__,
        lifespan=_lifespan,
        # FastAPI's own pages load their scripts from a CDN: they stay off.
        docs_url=None,
        redoc_url=None,
        # No variable of the environment may make the server send anything anywhere.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.service = service
    _add_error_answers(app)
    _add_api(app, service)
    _add_health(app, service)
    if settings.page:
        from caslon.ui.playground import mount_page  # Gradio takes seconds to import

        app = mount_page(app, service)
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(KeyGuard, digests=settings.api_key_sha256)
    app.add_middleware(RequestRecord, service=service)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    probe = asyncio.create_task(_probe_lag(service))
    try:
        yield
    finally:
        probe.cancel()
        service.interrupt()


async def _probe_lag(service: Service) -> None:
    while True:
        due = time.perf_counter() + LAG_PROBE_SECONDS
        await asyncio.sleep(LAG_PROBE_SECONDS)
        service.metrics.loop_lag.set(max(0.0, time.perf_counter() - due))


def _add_api(app: FastAPI, service: Service) -> None:
    def add(path: str, endpoint: Endpoint, shape: type[Wire]) -> None:
        async def answer(request: Request) -> Response:
            return await endpoint(service, request)

        body = {"required": True, "content": {"application/json": {"schema": shape.model_json_schema()}}}
        app.add_api_route(
            path,
            answer,
            methods=["POST"],
            name=endpoint.__name__,
            description=shape.__doc__,
            openapi_extra={"requestBody": body},
        )

    add("/v1/completions", create_completion, CompletionRequest)
    add("/v1/chat/completions", create_chat_completion, ChatRequest)
    add("/tokenize", tokenize, TokenizeRequest)
    add("/detokenize", detokenize, DetokenizeRequest)

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        """Show the API to a person."""
        return HTMLResponse(api_page(app.openapi()))

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the served model."""
        return {"object": "list", "data": [_model_card(service)]}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        """Describe the served model."""
        service.check_model(model)
        return _model_card(service)

    @app.api_route("/v1/{rest:path}", methods=["GET", "POST", "PUT", "DELETE", "PATCH"], include_in_schema=False)
    async def nothing_here(rest: str, request: Request) -> Response:
        """Say in the API's own shape that there is no such path, before the page could answer with HTML."""
        raise Refused(404, f"there is no {request.method} /v1/{rest} here", code="not_found")


def _model_card(service: Service) -> dict[str, Any]:
    return {
        "id": service.model_name,
        "object": "model",
        "created": service.started,
        "owned_by": "caslon",
        "max_model_len": service.context,
        "vocab_size": service.tokenizer.vocab_size,
    }


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """Answer while the process works."""
        return {"status": "ok"}

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        """Answer 200 while new requests are taken."""
        if service.admission.draining:
            raise Refused(503, "the server is shutting down", code="draining", kind=SERVER_ERROR)
        return {"status": "ready"}

    @app.get("/version")
    async def version() -> dict[str, str]:
        """Name the versions at work, and how the model is computed."""
        versions = {"version": caslon.__version__, "python": platform.python_version()}
        return {**versions, "model": service.model_name, **service.engine.description}

    @app.get("/metrics")
    def metrics() -> Response:
        """Return the figures for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_error_answers(app: FastAPI) -> None:
    async def known(request: Request, error: Exception) -> Response:
        refused = refused_from(error)
        if refused.status >= 500 and refused.code == "internal_error":
            log.error("request %s failed", request.state.request_id, exc_info=error)
        return JSONResponse(refused.body(), status_code=refused.status, headers=refused.headers)

    async def from_starlette(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
        message = f"{request.method} {request.url.path}: {error.detail}"
        refused = Refused(error.status_code, message, code=code, headers=dict(error.headers or {}))
        return JSONResponse(refused.body(), status_code=refused.status, headers=refused.headers)

    app.add_exception_handler(Refused, known)
    app.add_exception_handler(CaslonError, known)
    app.add_exception_handler(HTTPException, from_starlette)
    app.add_exception_handler(Exception, known)


class RequestRecord:
    """ASGI middleware: gives each request an id (the caller's when it sent one) and counts it by route and status."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its id."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({"x-request-id": request_id, **SECURITY_HEADERS})
                self.service.metrics.http_request(_route(scope), message["status"])
            await send(message)

        await self.app(scope, receive, send_with_id)


def _request_id(scope: Scope) -> str:
    given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _route(scope: Scope) -> str:
    """Return the pattern of the route, which bounds the number of labels; the page's many paths count as one."""
    path = getattr(scope.get("route"), "path", None)
    return (
        path if isinstance(path, str) and path.startswith(("/v1", "/health", "/tok", "/detok", "/metrics")) else "page"
    )
