"""An engine without a model: every answer takes fixed times, so that clients, limits and dashboards are tested at any scale.

One thread holds all answers in a heap by the time of their next piece. A piece is one token; the next one is due from the time
the last one was due, not from when it was sent, so that delays do not add up.
"""

import heapq
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, cast

from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from caslon.bench.gate import SIMULATION
from caslon.bench.simulation import WORDS, Simulation
from caslon.engine.answer import OnPiece
from caslon.engine.engine import Engine, EngineStats
from caslon.engine.form import AnswerForm
from caslon.engine.request import (
    Completion,
    Constraint,
    ContextLengthExceeded,
    EngineClosed,
    InvalidParameter,
    Piece,
    SamplingParams,
    Times,
)
from caslon.engine.sections import NO_SECTIONS, Sections
from caslon.engine.settings import EngineSettings
from caslon.server.admission import check_exposure
from caslon.server.app import create_app
from caslon.server.errors import SERVER_ERROR, Refused
from caslon.server.run import DrainingServer, Ready, listening_socket, url_of
from caslon.server.settings import ServerSettings
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer

CONTEXT_TOKENS = 131_072
MAX_RUNNING = 1024  # a simulated answer costs next to nothing
FINGERPRINT = "fp_simulated"


class SimulatedHandle:
    """One answer: where it is, and what the caller of `submit` holds."""

    def __init__(
        self, prompt_tokens: int, params: SamplingParams, pieces: Iterator[tuple[float, str]], on_piece: OnPiece
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.params = params
        self.pieces = pieces
        self.on_piece = on_piece
        self.submitted = time.perf_counter()
        self.first_token: float | None = None
        self.next_text = ""
        self.text = ""
        self.tokens = 0
        self.reason: str | None = None
        self.done = threading.Event()
        self.wake: Callable[[], None] = lambda: None

    def cancel(self) -> None:
        """End the answer as aborted; harmless after its end."""
        if self.reason is None:
            self.reason = "abort"
            self.wake()

    @property
    def is_done(self) -> bool:
        """Return whether the answer has ended."""
        return self.done.is_set()

    def result(self, timeout_seconds: float | None = None) -> Completion:
        """Wait for the end and return the completion."""
        if not self.done.wait(timeout_seconds):
            raise TimeoutError(f"no answer within {timeout_seconds} s")
        assert self.reason is not None
        return Completion(
            ids=(0,) * self.tokens,
            text=self.text,
            finish_reason=self.reason,
            stop_reason=None,
            logprobs=(),
            prompt_tokens=self.prompt_tokens,
            cached_tokens=0,
            prompt_logprobs=None,
            seed=self.params.seed or 0,
            times=Times(0.0, self.first_token, time.perf_counter() - self.submitted),
        )


class SimulatedEngine:
    """Has the part of `Engine` that a server asks for. Every answer is of `max_tokens` tokens, each one word."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.tokenizer: Tokenizer = train_tokenizer(["".join(WORDS) * 40], vocab_size=320)
        self.end_ids = frozenset(self.tokenizer.stop_ids)
        self.settings = EngineSettings(max_running=MAX_RUNNING, max_step_tokens=2 * MAX_RUNNING)
        self.model_context = self.largest_request_tokens = CONTEXT_TOKENS
        self.description = {
            "engine": SIMULATION,
            "dtype": "none",
            "device": "none",
            "quantization": "none",
            "kernels": "no",
        }
        self._numbers = itertools.count(1)
        self._due: list[tuple[float, int, SimulatedHandle]] = []
        self._running: set[SimulatedHandle] = set()
        self._finished: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._send_for_ever, name="simulated-engine", daemon=True)
        self._thread.start()

    def params(self, **fields: Any) -> SamplingParams:
        """Return sampling parameters."""
        return SamplingParams(**fields)

    def prompt_ids(self, text: str) -> list[int]:
        """Return the ids of a text prompt."""
        return self.tokenizer.encode(text)

    def check(self, prompt_ids: Sequence[int], params: SamplingParams) -> None:
        """Raise `ContextLengthExceeded` for a request that is too long even here."""
        if len(prompt_ids) + params.max_tokens > CONTEXT_TOKENS:
            raise ContextLengthExceeded(len(prompt_ids), params.max_tokens, CONTEXT_TOKENS)

    def constraint(self, form: AnswerForm) -> Constraint:
        """Refuse: nobody reads what this engine writes."""
        raise InvalidParameter("response_format", form.kind, "left out: a simulated engine keeps to no form")

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        on_piece: OnPiece,
        *,
        constraint: Constraint | None = None,
        sections: Sections = NO_SECTIONS,
    ) -> SimulatedHandle:
        """Start an answer. `ContextLengthExceeded` for one that is too long even here."""
        self.check(prompt_ids, params)
        number = next(self._numbers)
        pieces = self.simulation.answer(number, params.max_tokens)
        handle = SimulatedHandle(len(prompt_ids), params, pieces, on_piece)
        handle.wake = lambda: self._put(time.perf_counter(), number, handle)
        with self._wake:
            if self._closed:
                raise EngineClosed("the engine is closed")
            self._running.add(handle)
            self._counts["prompt_tokens"] += handle.prompt_tokens
        self._next(handle.submitted, number, handle)
        return handle

    def stats(self) -> EngineStats:
        """Return the counts of this moment; there is no cache, so one free block stands for it."""
        with self._wake:
            running = len(self._running)
        return EngineStats(
            running=running,
            waiting=0,
            blocks_total=1,
            blocks_used=0,
            blocks_known=0,
            waste_tokens=0,
            kv_bytes=0,
            steps=self._counts["steps"],
            preemptions=0,
            prompt_tokens=self._counts["prompt_tokens"],
            cached_tokens=0,
            generated_tokens=self._counts["generated_tokens"],
            finished=dict(self._finished),
        )

    def close(self) -> None:
        """End all answers as aborted and stop the thread."""
        with self._wake:
            running = list(self._running)
        for handle in running:
            handle.cancel()
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, due: float, number: int, handle: SimulatedHandle) -> None:
        with self._wake:
            heapq.heappush(self._due, (due, number, handle))
            self._wake.notify_all()

    def _next(self, since: float, number: int, handle: SimulatedHandle) -> None:
        """Let the next piece come in its time; after the last one there is none."""
        following = next(handle.pieces, None)
        if following is None:
            handle.reason = handle.reason or "length"
            self._end(handle)
            return
        seconds, handle.next_text = following
        if seconds != float("inf"):
            self._put(since + seconds, number, handle)

    def _send_for_ever(self) -> None:
        while True:
            with self._wake:
                while not self._closed and not (self._due and self._due[0][0] <= time.perf_counter()):
                    self._wake.wait(self._due[0][0] - time.perf_counter() if self._due else None)
                if not self._due:
                    return
                due, number, handle = heapq.heappop(self._due)
            self._send(due, number, handle)

    def _send(self, due: float, number: int, handle: SimulatedHandle) -> None:
        if handle.done.is_set():
            return
        if handle.reason is not None:
            self._end(handle)
            return
        if handle.first_token is None:
            handle.first_token = time.perf_counter() - handle.submitted
        handle.text += handle.next_text
        handle.tokens += 1
        self._counts["generated_tokens"] += 1
        self._counts["steps"] += 1
        handle.on_piece(Piece(handle.next_text, (0,)))
        self._next(due, number, handle)

    def _end(self, handle: SimulatedHandle) -> None:
        assert handle.reason is not None
        with self._wake:
            self._running.discard(handle)
        self._finished[handle.reason] += 1
        handle.done.set()
        handle.on_piece(Piece("", (), (), handle.reason))


class Refusals:
    """ASGI middleware: refuses every n-th request for an answer, as a server does that has too much to do."""

    def __init__(self, app: ASGIApp, every: int) -> None:
        self.app = app
        self.every = every
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and scope["method"] == "POST" and next(self._numbers) % self.every == 0:
            refused = Refused(503, "simulated overload", code="overloaded", kind=SERVER_ERROR)
            await JSONResponse(refused.body(), 503, {"retry-after": "1"})(scope, receive, send)
            return
        await self.app(scope, receive, send)


def simulated_app(engine: SimulatedEngine, model_name: str, settings: ServerSettings) -> FastAPI:
    """Return the application that serves a simulated engine, with its refusals."""
    # It has what a server asks of an engine and nothing else.
    app = create_app(cast(Engine, engine), model_name, settings, fingerprint=FINGERPRINT)
    if every := engine.simulation.faults.get("refused"):
        app.add_middleware(Refusals, every=every)
    return app


def serve_simulated(
    simulation: Simulation,
    model_name: str,
    settings: ServerSettings,
    *,
    on_ready: Callable[[Ready], None],
) -> None:
    """Serve a simulated engine until SIGTERM or Ctrl-C, as `caslon.server.run.serve` does a model folder."""
    check_exposure(settings)
    began = time.perf_counter()
    with listening_socket(settings.host, settings.port) as listener, SimulatedEngine(simulation) as engine:
        app = simulated_app(engine, model_name, settings)
        ready = Ready.of(app.state.models, url_of(listener, settings), time.perf_counter() - began)
        server = DrainingServer(app, settings, app.state.models)
        server.on_started = lambda: on_ready(ready)
        server.run(sockets=[listener])
