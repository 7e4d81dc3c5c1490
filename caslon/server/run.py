"""Runs the server: in the foreground until it is told to stop, or in a thread for as long as a block of code."""

import asyncio
import contextlib
import hashlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Protocol

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

import caslon
from caslon.engine.engine import Engine
from caslon.engine.request import SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.errors import CaslonError, UserError
from caslon.model.folder import ModelFolder
from caslon.server.admission import check_exposure
from caslon.server.app import app_of, create_app
from caslon.server.doorway import Doorway
from caslon.server.head import TimedHead
from caslon.server.models import Models
from caslon.server.service import Service
from caslon.server.settings import ServerSettings
from caslon.server.shelf import Shelf, check_together, opened
from caslon.server.upstream.settings import offers_of

LOOPBACK = "127.0.0.1"
START_TIMEOUT_SECONDS = 60.0
BACKLOG = 2048
READER_TIMEOUT_MILLISECONDS = 30_000
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Ready:
    """What to tell the user once requests are answered."""

    url: str
    model_name: str
    context_tokens: int
    with_key: bool
    seconds: float
    computed: str  # the number format, and what computes in it
    kv_blocks: int
    longest_at_once: int  # answers that fill the context and still fit into the cache together
    others: tuple[str, ...] = ()  # further models

    @staticmethod
    def of(models: Models, url: str, seconds: float) -> "Ready":
        """Return what there is to tell of the models of a server."""
        service, others = models.first, tuple(models.names[1:])
        engine, blocks = service.engine, 0 if service.remote else service.engine.stats().blocks_total
        blocks_each = -(-engine.model_context // engine.settings.block_tokens)
        with_key = service.admission.keys is not None
        computed = f"{engine.description['dtype']} by {engine.description['kernels']} kernels"
        at_once = blocks // blocks_each
        return Ready(
            url, service.model_name, engine.model_context, with_key, seconds, computed, blocks, at_once, others
        )


def serve(
    folder: Path,
    settings: ServerSettings | None = None,
    engine_settings: EngineSettings | None = None,
    *,
    on_ready: Callable[[Ready], None] | None = None,
) -> None:
    """Serve a model folder until SIGTERM or Ctrl-C; running answers get `drain_timeout_seconds` to end.

    `UserError`, before weights are read, for a bad folder, a port in use, or a host open to the network without a key.
    """
    settings = settings or ServerSettings()
    check_exposure(settings)
    offers_of(settings.upstream)
    model = ModelFolder.open(folder)
    engine_settings = engine_settings or EngineSettings()
    name = settings.model_name or model_name_of(model.path)
    check_together({name: model, **opened(settings, name)}, engine_settings, settings.max_loaded)
    with listening_socket(settings.host, settings.port) as listener:
        serve_on(listener, model, settings, engine_settings, on_ready=on_ready)


def serve_on(
    listener: socket.socket,
    model: ModelFolder,
    settings: ServerSettings,
    engine_settings: EngineSettings,
    *,
    on_ready: Callable[[Ready], None] | None = None,
    behind_proxy: bool = False,
) -> None:
    """Serve a model on a socket that listens already, as `serve` does. `behind_proxy` believes what the caller says of whom
    it speaks for; only for a socket that nobody else can reach.
    """
    began = time.perf_counter()
    engines: list[Engine] = []
    failures: list[BaseException] = []

    def load() -> FastAPI:
        engine = read(model)
        engines.append(engine)
        name = settings.model_name or model_name_of(model.path)
        first = Service(engine, name, settings, fingerprint=fingerprint_of(model))

        def offer(name: str, folder: ModelFolder, engine: Engine) -> Service:
            return Service(engine, name, settings, fingerprint=fingerprint_of(folder), beside=first)

        shelf = Shelf(opened(settings, name), settings, read, offer) if settings.models else None
        app = app_of(Models(first, settings, shelf), settings)
        first.metrics.start_seconds.set(time.perf_counter() - began)
        return app

    def read(folder: ModelFolder) -> Engine:
        engine = Engine.load(folder.path, engine_settings)
        _warm_up(engine)
        return engine

    def is_open(failure: BaseException | None) -> None:
        if failure is not None:
            failures.append(failure)
            server.should_exit = True
        elif on_ready is not None:
            on_ready(Ready.of(doorway.models, url_of(listener, settings), time.perf_counter() - began))

    doorway = Doorway(load, is_open)
    server = DrainingServer(doorway, settings, doorway, behind_proxy=behind_proxy)
    try:
        server.run(sockets=[listener])
    finally:
        for engine in engines:
            engine.close()
    if failures:
        raise failures[0]
    if server.stopped_by == signal.SIGINT:
        raise KeyboardInterrupt


def _warm_up(engine: Engine) -> None:
    """Read one prompt and write two tokens, so that the first request pays for nothing that is done only once."""
    params = SamplingParams(max_tokens=min(2, engine.model_context - 1), temperature=0, ignore_eos=True)
    engine.generate([[engine.tokenizer.end_of_text_id]], params)


@contextlib.contextmanager
def running_server(
    engine: Engine, model_name: str, settings: ServerSettings | None = None, *, fingerprint: str | None = None
) -> Iterator[str]:
    """Serve an engine on a free loopback port from a thread while the block runs; gives the server's URL."""
    settings = (settings or ServerSettings(page=False)).model_copy(update={"host": LOOPBACK, "port": 0})
    with listening_socket(LOOPBACK, 0) as listener:
        app = create_app(engine, model_name, settings, fingerprint=fingerprint)
        server = DrainingServer(app, settings, app.state.models)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server", daemon=True)
        url = url_of(listener, settings)
        thread.start()
        try:
            server.wait_started(thread)
            yield url
        finally:
            server.stop()
            thread.join()


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens; `UserError` when the address is taken or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(
        socket, "TCP_USER_TIMEOUT"
    ):  # a client that takes nothing is cut, even with its last bytes in our buffer
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, READER_TIMEOUT_MILLISECONDS)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            where="port" if port else "host",
            fix="stop the program that uses the port, or choose another one: --port 8001",
        ) from None
    return listener


def url_of(listener: socket.socket, settings: ServerSettings | None = None) -> str:
    """Return the address a client uses."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound to
    scheme = "https" if settings is not None and settings.tls_cert is not None else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def model_name_of(folder: Path) -> str:
    """Return the name a model folder is served under: its own, or for `runs/<run>/<stage>/model` run and stage."""
    path = folder.resolve()
    if path.name != "model" or len(path.parts) < 4:
        return path.name
    return f"{path.parent.parent.name}-{path.parent.name}"


def fingerprint_of(model: ModelFolder) -> str:
    """Return `system_fingerprint`: the same for the same model folder and the same engine."""
    return "fp_" + hashlib.sha256(f"{model.digest()} {caslon.__version__}".encode()).hexdigest()[:16]


class Served(Protocol):
    """What a server can stop."""

    def drain(self) -> None:
        """Take no new requests any more."""

    def interrupt(self) -> None:
        """Break off what runs."""


class DrainingServer(uvicorn.Server):
    """uvicorn that refuses new work at SIGTERM, lets running answers end, breaks off the rest in time, and exits 0."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, served: Served, *, behind_proxy: bool = False) -> None:
        drain = settings.drain_timeout_seconds
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            http=partial(TimedHead, head_seconds=settings.header_timeout_seconds),  # type: ignore[arg-type]
            # Between the front and its replicas nobody listens in.
            ssl_certfile=None if behind_proxy else settings.tls_cert,
            ssl_keyfile=None if behind_proxy else settings.tls_key,
            # Answers are broken off after the drain time; uvicorn's own axe falls later.
            timeout_graceful_shutdown=int(drain) + 10,
            ws="none",
            proxy_headers=behind_proxy,
            forwarded_allow_ips="*" if behind_proxy else "",
        )
        super().__init__(config)
        self.served = served
        self.drain_timeout_seconds = drain
        self.stopped_by: int | None = None
        self.on_started: Callable[[], None] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        if self.started:
            self.on_started()

    def stop(self) -> None:
        """Refuse new requests and end when the running ones have; a second call ends now."""
        self.force_exit = self.should_exit
        self.served.drain()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for running answers, but not longer than the drain time."""
        if self.force_exit:
            self.served.interrupt()
        axe = asyncio.get_running_loop().call_later(self.drain_timeout_seconds, self.served.interrupt)
        try:
            await super().shutdown(sockets)
        finally:
            axe.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals without raising them again afterwards: a server that was told to stop has not failed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = number
        self.stop()

    def wait_started(self, thread: threading.Thread) -> None:
        """Return when requests are answered; `CaslonError` when the server ended or hangs instead."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise CaslonError("the server did not start; its log has the cause")
            time.sleep(0.01)
