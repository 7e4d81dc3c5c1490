"""The HTTP application over one served model: routes, error answers, request ids, health.

A request goes `app -> chat | completions -> service -> engine` and comes back through `stream`.
"""

import asyncio
import contextlib
import logging
import platform
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response

import caslon
from caslon.engine.engine import Engine
from caslon.errors import CaslonError
from caslon.server.accounts import LIMIT_HEADERS
from caslon.server.admin import add_admin
from caslon.server.api_page import api_page
from caslon.server.chat import create_chat_completion
from caslon.server.chat_wire import ChatRequest, TemplateRequest, TokenizeRequest
from caslon.server.completions import create_completion
from caslon.server.embeddings import EmbeddingRequest, create_embeddings
from caslon.server.errors import ERROR_DESCRIPTION, SERVER_ERROR, HookRefusal, Refused, refused_from
from caslon.server.generate import GenerateRequest, generate
from caslon.server.guard import BodyLimit, KeyGuard, RequestRecord
from caslon.server.messages import CountRequest, MessagesRequest, count_message_tokens, create_message
from caslon.server.metrics import CONTENT_TYPE
from caslon.server.models import Models
from caslon.server.responses import ResponsesRequest, create_response
from caslon.server.service import Service
from caslon.server.settings import ServerSettings
from caslon.server.stream import taken_on
from caslon.server.tokenize import apply_template, detokenize, tokenize
from caslon.server.version import commit
from caslon.server.watch import Watch
from caslon.server.wire import CompletionRequest, DetokenizeRequest, Wire

log = logging.getLogger("caslon.server")

Endpoint = Callable[[Service, Request], Awaitable[Response]]


def create_app(
    engine: Engine, model_name: str, settings: ServerSettings | None = None, *, fingerprint: str | None = None
) -> FastAPI:
    """Return the application that serves an engine. The engine stays the caller's to close."""
    settings = settings or ServerSettings()
    service = Service(engine, model_name, settings, fingerprint=fingerprint)
    return app_of(Models(service, settings), settings)


def app_of(models: Models, settings: ServerSettings) -> FastAPI:
    """Return the application that serves models."""
    service = models.first
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
    app.state.models = models
    _add_error_answers(app)
    _add_api(app, models)
    _add_health(app, models)
    if settings.page and service.remote is None:
        from caslon.ui.playground import mount_page  # Gradio takes seconds to import

        app = mount_page(app, service)
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(KeyGuard, service=service)
    app.add_middleware(RequestRecord, service=service)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "x-api-key", "x-request-id", "anthropic-version"],
            expose_headers=["x-request-id", "retry-after", "x-caslon-ignored", *LIMIT_HEADERS],
        )
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    models: Models = app.state.models
    watch = asyncio.create_task(Watch(models).run())
    try:
        yield
    finally:
        watch.cancel()
        models.interrupt()
        await to_thread.run_sync(models.close)


def _add_api(app: FastAPI, models: Models) -> None:
    shapes: dict[str, Any] = {}

    def described() -> dict[str, Any]:
        description = FastAPI.openapi(app)
        description.setdefault("components", {}).setdefault("schemas", {}).update(shapes)
        return description

    app.openapi = described  # type: ignore[method-assign]

    def add(path: str, endpoint: Endpoint, shape: type[Wire]) -> None:
        async def answer(request: Request) -> Response:
            call = request.state.call
            admission = models.first.admission
            if admission.wants_body:
                call.body = await request.body()
            if admission.hooks is not None:
                hooked = await to_thread.run_sync(admission.hooks.before, call)
                if hooked is not None:
                    return JSONResponse(hooked)
            async with models.asked_by(request) as service:
                response = await endpoint(service, request)
                await taken_on(call, request)
                return response

        schema = shape.model_json_schema(ref_template="#/components/schemas/{model}")
        shapes.update(schema.pop("$defs", {}))
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        app.add_api_route(
            path,
            answer,
            methods=["POST"],
            name=endpoint.__name__,
            description=shape.__doc__,
            openapi_extra={"requestBody": body},
            responses={"default": ERROR_DESCRIPTION},
        )

    add("/v1/completions", create_completion, CompletionRequest)
    add("/v1/chat/completions", create_chat_completion, ChatRequest)
    add("/v1/responses", create_response, ResponsesRequest)
    add("/v1/messages", create_message, MessagesRequest)
    add("/v1/messages/count_tokens", count_message_tokens, CountRequest)
    add("/v1/embeddings", create_embeddings, EmbeddingRequest)
    add("/generate", generate, GenerateRequest)
    add("/tokenize", tokenize, TokenizeRequest)
    add("/detokenize", detokenize, DetokenizeRequest)
    add("/apply-template", apply_template, TemplateRequest)

    add_admin(app, models)

    @app.get("/docs", include_in_schema=False)
    def docs() -> Response:
        """Show the API to a person."""
        return HTMLResponse(api_page(app.openapi()))

    @app.get("/v1/models")
    async def list_models(request: Request) -> dict[str, Any]:
        """List the models the key allows."""
        return {"object": "list", "data": models.cards(request.state.call)}

    @app.get("/v1/models/{model:path}")
    async def model(model: str, request: Request) -> dict[str, Any]:
        """Describe a served model."""
        return models.card(model, request.state.call)

    @app.api_route("/v1/{rest:path}", methods=["GET", "POST", "PUT", "DELETE", "PATCH"], include_in_schema=False)
    async def nothing_here(rest: str, request: Request) -> Response:
        """Say in the API's own shape that there is no such path, before the page could answer with HTML."""
        raise Refused(404, f"there is no {request.method} /v1/{rest} here", code="not_found")


def _add_health(app: FastAPI, models: Models) -> None:
    @app.get("/health")
    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """Answer 200 while the process works, 500 when the engine has work and does none of it."""
        if any(service.is_stuck for service in models):
            raise Refused(500, "the engine has work and takes no step", code="engine_stuck", kind=SERVER_ERROR)
        return {"status": "ok"}

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        """Answer 200 while new requests are taken."""
        if models.first.queue.draining:
            raise Refused(503, "the server is shutting down", code="draining", kind=SERVER_ERROR)
        return {"status": "ready"}

    @app.get("/version")
    def version() -> dict[str, str]:
        """Name the versions at work, and how the model is computed."""
        versions = {"version": caslon.__version__, "commit": commit(), "python": platform.python_version()}
        return {**versions, "model": models.first.model_name, **models.first.engine.description}

    @app.get("/metrics")
    def metrics() -> Response:
        """Return the figures for Prometheus."""
        return Response(models.metrics_text(), media_type=CONTENT_TYPE)


def _add_error_answers(app: FastAPI) -> None:
    async def known(request: Request, error: Exception) -> Response:
        refused = refused_from(error)
        app.state.service.metrics.refused(refused.code)
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
    app.add_exception_handler(HookRefusal, known)
    app.add_exception_handler(CaslonError, known)
    app.add_exception_handler(HTTPException, from_starlette)
    app.add_exception_handler(Exception, known)
