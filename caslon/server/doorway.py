"""What answers while the model is still being read: health says so, and everything else waits for the model."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial

from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from caslon.server.errors import SERVER_ERROR, Refused
from caslon.server.guard import refuse
from caslon.server.models import Models

LIVE_PATHS = ("/health", "/health/live")


class Doorway:
    """An ASGI application that becomes the one `load` returns; then, or with what `load` raised, `opened` is called."""

    def __init__(self, load: Callable[[], FastAPI], opened: Callable[[BaseException | None], None]) -> None:
        self._load = load
        self._opened = opened
        self._app: FastAPI | None = None
        self._open = asyncio.Event()
        self._draining = False
        self._inner = contextlib.AsyncExitStack()

    @property
    def models(self) -> Models:
        """The models behind the door, when it is open."""
        assert self._app is not None
        models: Models = self._app.state.models
        return models

    def drain(self) -> None:
        """Take no new requests any more."""
        self._draining = True
        if self._app is not None:
            self.models.drain()

    def interrupt(self) -> None:
        """Break off what runs."""
        if self._app is not None:
            self.models.interrupt()

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
            refused = Refused(
                503, f"the server is {state}", code=state, kind=SERVER_ERROR, headers={"retry-after": "1"}
            )
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
        opening.cancel()
        await self._inner.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _become(self) -> None:
        try:
            app = await self._loaded()
            await self._inner.enter_async_context(app.router.lifespan_context(app))
        except Exception as error:
            self._open.set()
            self._opened(error)
            return
        self._app = app
        if self._draining:
            self.drain()
        self._open.set()
        self._opened(None)

    async def _loaded(self) -> FastAPI:
        """Load in a thread that does not keep a process alive which is told to stop meanwhile."""
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[FastAPI] = loop.create_future()

        def load() -> None:
            try:
                settle = partial(loaded.set_result, self._load())
            except Exception as error:
                settle = partial(loaded.set_exception, error)
            with contextlib.suppress(RuntimeError):  # told to stop meanwhile: the loop is closed
                loop.call_soon_threadsafe(lambda: None if loaded.done() else settle())

        threading.Thread(target=load, name="loading", daemon=True).start()
        return await loaded
