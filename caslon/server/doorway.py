"""What answers while the model is still being read: health says so, and everything else waits for the model."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from caslon.server.errors import SERVER_ERROR, Refused
from caslon.server.guard import refuse

log = logging.getLogger("caslon.server")

LIVE_PATHS = ("/health", "/health/live")


class Doorway:
    """An ASGI application that becomes the one `load` returns. `failed` gets what `load` raises; nothing is answered then."""

    def __init__(self, load: Callable[[], FastAPI], failed: Callable[[BaseException], None]) -> None:
        self._load = load
        self._failed = failed
        self._app: FastAPI | None = None
        self._open = asyncio.Event()
        self._draining = False
        self._inner = contextlib.AsyncExitStack()

    def drain(self) -> None:
        """Take no new requests any more."""
        self._draining = True
        if self._app is not None:
            self._app.state.service.drain()

    def interrupt(self) -> None:
        """Break off what runs."""
        if self._app is not None:
            self._app.state.service.interrupt()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or see the application through its life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if self._app is None and scope["path"] in LIVE_PATHS:
            await JSONResponse({"status": "ok"})(scope, receive, send)
            return
        if self._app is None and scope["path"] == "/health/ready":
            state = "draining" if self._draining else "loading"
            refused = Refused(503, f"the server is {state}", code=state, kind=SERVER_ERROR, headers={"retry-after": "1"})
            await refuse(refused, scope, receive, send)
            return
        await self._open.wait()
        if self._app is not None:
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        opening = asyncio.create_task(self._become())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if not opening.done():
            opening.cancel()
        await self._inner.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _become(self) -> None:
        try:
            app = await asyncio.to_thread(self._load)
            await self._inner.enter_async_context(app.router.lifespan_context(app))
            self._app = app
            if self._draining:
                app.state.service.drain()
        except BaseException as error:
            self._failed(error)
        self._open.set()
