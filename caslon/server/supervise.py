"""Runs several replicas behind one port until it is told to stop, and lets who runs them replace them: `caslon serve reload`."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from caslon.engine.settings import EngineSettings
from caslon.errors import CaslonError, UserError
from caslon.model.folder import ModelFolder
from caslon.server.admission import check_exposure
from caslon.server.proxy import control_app, proxy_app
from caslon.server.replicas import Replicas
from caslon.server.run import DrainingServer, Ready, listening_socket, url_of
from caslon.server.settings import ServerSettings

CONTROL_SOCKET = "control.sock"
LONGEST_SOCKET_PATH = 100  # the system takes 107 bytes


def serve_replicas(
    folder: Path,
    settings: ServerSettings,
    engine_settings: EngineSettings,
    count: int,
    *,
    on_ready: Callable[[Ready], None],
) -> None:
    """Serve a model folder by several processes, as `run.serve` does by one. The web page belongs to a single process."""
    check_exposure(settings)
    path = ModelFolder.open(folder).path
    settings = settings.model_copy(update={"page": False})
    with listening_socket(settings.host, settings.port) as listener:
        replicas = Replicas(path, settings, engine_settings, count)
        stopped_by = asyncio.run(_serve(listener, replicas, on_ready))
    if stopped_by == signal.SIGINT:
        raise KeyboardInterrupt


def reload(state: Path) -> dict[str, Any]:
    """Replace all replicas of the service of a state folder, one by one, and return what came of it."""
    path = state / CONTROL_SOCKET
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=None) as http:  # noqa: S113  as long as it takes
            answer = http.post("http://control/reload")
    except httpx.TransportError:
        raise UserError(
            f"no service with replicas runs with the state folder {state}",
            where="--state",
            fix="start it with caslon serve MODEL --replicas N --state DIR",
        ) from None
    if answer.status_code != 200:
        raise CaslonError("the service could not reload; its log has the cause")
    found: dict[str, Any] = answer.json()
    return found


async def _serve(listener: socket.socket, replicas: Replicas, on_ready: Callable[[Ready], None]) -> int | None:
    began = time.perf_counter()
    try:
        first = await replicas.start()
        server = DrainingServer(proxy_app(replicas), replicas.settings, replicas)
        seconds = time.perf_counter() - began
        ready = dataclasses.replace(first, url=url_of(listener, replicas.settings), seconds=seconds)
        server.on_started = lambda: on_ready(ready)
        async with _control(replicas):
            await server.serve(sockets=[listener])
    finally:
        await replicas.stop()
    return server.stopped_by


@contextlib.asynccontextmanager
async def _control(replicas: Replicas) -> AsyncIterator[None]:
    """Listen to who runs the service while the block runs, where there is a folder to meet in."""
    state = replicas.settings.state
    if state is None:
        yield
        return
    path = state.resolve() / CONTROL_SOCKET
    if len(str(path)) > LONGEST_SOCKET_PATH:
        raise UserError(f"the path of {path} is too long for a socket", where="state", fix="use a shorter one")
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen()
        config = uvicorn.Config(control_app(replicas), log_level="warning", access_log=False, lifespan="off", ws="none")
        server = _QuietServer(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await task
            path.unlink(missing_ok=True)


class _QuietServer(uvicorn.Server):
    """A second server in one process, which leaves the signals to the first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle no signal."""
        yield
