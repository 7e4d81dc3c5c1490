"""The one port before several replicas: passes each request on byte for byte, and each answer back as it comes.

A replica that is gone before it has begun to answer is no failure: another one is asked. Health is the supervisor's own; figures
are those of all replicas, told apart by the label `replica`.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from caslon.server.errors import SERVER_ERROR, Refused
from caslon.server.metrics import CONTENT_TYPE
from caslon.server.replicas import Replica, Replicas, taken
from caslon.server.stream import error_event

log = logging.getLogger("caslon.server")

# They speak of one connection, and there are two.
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"})
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]


def proxy_app(replicas: Replicas) -> Starlette:
    """Return the application that stands before the replicas."""
    proxy = Proxy(replicas)
    return Starlette(
        routes=[
            Route("/health", proxy.live),
            Route("/health/live", proxy.live),
            Route("/health/ready", proxy.ready),
            Route("/metrics", proxy.metrics),
            Route("/{path:path}", proxy.passed_on, methods=METHODS),
        ]
    )


def control_app(replicas: Replicas) -> Starlette:
    """Return the application for who runs the service, on a socket file that only they can open."""

    async def reload(_: Request) -> Response:
        return JSONResponse(await replicas.reload())

    return Starlette(routes=[Route("/reload", reload, methods=["POST"])])


class Proxy:
    """Passes requests on."""

    def __init__(self, replicas: Replicas) -> None:
        self.replicas = replicas

    async def live(self, _: Request) -> Response:
        """Answer while the process works."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """Answer 200 while requests are taken."""
        if self.replicas.draining:
            return _error(Refused(503, "the server is shutting down", code="draining", kind=SERVER_ERROR))
        if self.replicas.chosen(b"") is None:
            return _error(_no_replica())
        return JSONResponse({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """Return the figures of all replicas."""
        texts = []
        for place, replica in enumerate(list(self.replicas.replicas)):
            if replica.retired:
                continue
            answer = await replica.http.get("/metrics", headers=_headers(request))
            if answer.status_code != 200:
                return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])
            texts.append((str(place), answer.text))
        return PlainTextResponse(merged_metrics(texts, self.replicas.restarts), media_type=CONTENT_TYPE)

    async def passed_on(self, request: Request) -> Response:
        """Return a replica's answer."""
        if self.replicas.draining:
            return _error(Refused(503, "the server is shutting down", code="draining", kind=SERVER_ERROR))
        try:
            body = await self._body(request)
        except Refused as refused:
            return _error(refused)
        except ClientDisconnect:
            return Response(status_code=499)
        tried: list[Replica] = []
        while (replica := self.replicas.chosen(body, tried)) is not None:
            tried.append(replica)
            hold = contextlib.AsyncExitStack()
            await hold.enter_async_context(taken(replica))
            try:
                asked = replica.http.build_request(
                    request.method, _target(request), content=body, headers=_headers(request)
                )
                answer = await replica.http.send(asked, stream=True)
            except httpx.TransportError as error:
                await hold.aclose()
                log.warning("replica %s did not answer (%r); another one is asked", replica.name, error)
                continue
            hold.push_async_callback(answer.aclose)
            return PassedOn(answer, hold)
        return _error(_no_replica())

    async def _body(self, request: Request) -> bytes:
        parts, length = [], 0
        async for part in request.stream():
            length += len(part)
            if length > self.replicas.settings.max_body_bytes:
                message = f"the request body is longer than {self.replicas.settings.max_body_bytes} bytes"
                raise Refused(413, message, code="request_too_large", headers={"connection": "close"})
            parts.append(part)
        return b"".join(parts)


class PassedOn(StreamingResponse):
    """An answer on its way through; when the client goes, the replica is told."""

    def __init__(self, answer: httpx.Response, hold: contextlib.AsyncExitStack) -> None:
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        super().__init__(_bytes_of(answer), answer.status_code, headers)
        self.hold = hold

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer until it ends or the client goes."""
        sending = asyncio.create_task(self.stream_response(send))
        watch = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, watch):
                task.cancel()
            await asyncio.gather(sending, watch, return_exceptions=True)
            await self.hold.aclose()


def merged_metrics(texts: list[tuple[str, str]], restarts: int) -> str:
    """Return the figures of several replicas as one text, each sample with the label `replica`."""
    heads: dict[str, list[str]] = {}
    for replica, text in texts:
        for family in text_string_to_metric_families(text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            lines = heads.setdefault(name, [f"# HELP {name} {family.documentation}", f"# TYPE {name} {family.type}"])
            lines += [_sample(sample, replica) for sample in family.samples]
    own = [
        "# HELP caslon:replica_restarts_total Replicas started again because they ended by themselves.",
        "# TYPE caslon:replica_restarts_total counter",
        f"caslon:replica_restarts_total {restarts}",
    ]
    return "\n".join([*(line for lines in heads.values() for line in lines), *own]) + "\n"


def _sample(sample: Any, replica: str) -> str:
    labels = ",".join(f"{name}={json.dumps(value)}" for name, value in {**sample.labels, "replica": replica}.items())
    return f"{sample.name}{{{labels}}} {sample.value!r}"


async def _bytes_of(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for part in answer.aiter_raw():
            yield part
    except httpx.TransportError:
        # Of a stream that broke off the client learns by an event; anything else is seen to be cut by its length.
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            message = "the replica that wrote this answer ended"
            yield error_event(Refused(503, message, code="aborted", kind=SERVER_ERROR))
            return
        raise


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _headers(request: Request) -> list[tuple[str, str]]:
    """Return the headers to pass on; whom the request comes from is what we see, not what it says."""
    left_out = HOP_BY_HOP | {"x-forwarded-for", "x-forwarded-proto", "content-length"}
    headers = [(name, value) for name, value in Headers(scope=request.scope).items() if name.lower() not in left_out]
    address = request.client.host if request.client else ""
    return [*headers, ("x-forwarded-for", address)]


def _target(request: Request) -> str:
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope["query_string"]
    return raw.decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")


def _no_replica() -> Refused:
    return Refused(503, "no replica can answer now", code="loading", kind=SERVER_ERROR, headers={"retry-after": "1"})


def _error(refused: Refused) -> Response:
    return JSONResponse(refused.body(), refused.status, refused.headers)
