"""One request to an upstream and, where that fails before anything came, to its fallbacks: deltas in, pieces out.

Everything here runs on the event loop of `loop.UpstreamLoop`; what others may call from their threads is said to be.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from caslon.engine.answer import OnPiece
from caslon.engine.request import Times
from caslon.server.errors import SERVER_ERROR, Refused
from caslon.server.upstream.failure import UpstreamFailure
from caslon.server.upstream.kinds import not_honoured
from caslon.server.upstream.pieces import Asked, Delta, RemoteCompletion, RemotePiece, Usage
from caslon.server.upstream.upstream import Upstream

log = logging.getLogger("caslon.server")

FINISHED = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
Count = Callable[[str], int | None]


class Loop(Protocol):
    """Where exchanges run."""

    def call(self, act: Callable[..., None], *arguments: object) -> None:
        """Call something on the loop, from any thread."""


class RemoteHandle:
    """One answer of an exchange, as who asked holds it."""

    def __init__(self, exchange: "Exchange", choice: int) -> None:
        self._exchange = exchange
        self.choice = choice
        self.on_piece: OnPiece | None = None
        self.submitted = time.perf_counter()
        self.first_token: float | None = None
        self.deltas: list[Delta] = []
        self.tokens = 0
        self.reason: str | None = None
        self.waiting: list[RemotePiece] = []
        self.completion: RemoteCompletion | None = None
        self.done = threading.Event()

    @property
    def is_done(self) -> bool:
        """Whether the answer has ended."""
        return self.done.is_set()

    def cancel(self) -> None:
        """End the answer as aborted, from any thread; harmless after its end."""
        self._exchange.loop.call(self._exchange.cancel, self)

    def result(self, timeout_seconds: float | None = None) -> RemoteCompletion:
        """Wait for the end, in any thread, and return the whole answer."""
        if not self.done.wait(timeout_seconds):
            raise TimeoutError(f"no answer within {timeout_seconds} s")
        assert self.completion is not None
        return self.completion


class Exchange:
    """All answers to one request."""

    def __init__(self, asked: Asked, model: str, upstreams: Sequence[Upstream], loop: Loop, count: Count) -> None:
        self.asked = asked
        self.model = model
        self.loop = loop
        self._upstreams = upstreams
        self._count = count
        self._handles = [RemoteHandle(self, choice) for choice in range(asked.choices)]
        self._usage = Usage()
        self._task: asyncio.Task[None] | None = None

    def join(self, choice: int, on_piece: OnPiece) -> RemoteHandle:
        """Return the handle of an answer whose pieces are wanted from now on; from any thread. The first one to join asks."""
        handle = self._handles[choice]
        self.loop.call(self._join, handle, on_piece)
        return handle

    def _join(self, handle: RemoteHandle, on_piece: OnPiece) -> None:
        handle.on_piece = on_piece
        handle.submitted = time.perf_counter()
        for piece in handle.waiting:
            on_piece(piece)
        handle.waiting.clear()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def cancel(self, handle: RemoteHandle) -> None:
        """End one answer; with the last one the upstream is left."""
        if handle.completion is None:
            self._end(handle, "abort")
        if self._task is not None and all(one.completion is not None for one in self._handles if one.on_piece):
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._ask()
        except asyncio.CancelledError:
            self._fail(Refused(503, "the answer was broken off by the server", code="aborted", kind=SERVER_ERROR))
        except UpstreamFailure as failure:
            self._fail(failure.refused(self.model))
        except Exception:  # the border of a task: without a last word the caller would wait for ever
            log.exception("an exchange with an upstream failed")
            message = "the server failed to answer; its log has the cause"
            self._fail(Refused(500, message, code="internal_error", kind=SERVER_ERROR))
        else:
            self._finish()

    async def _ask(self) -> None:
        failure = UpstreamFailure("unreachable")
        for upstream in self._upstreams:
            if not_honoured(self.asked, upstream.settings) or not upstream.breaker.lets_through():
                continue
            try:
                await self._ask_one(upstream)
            except UpstreamFailure as found:
                failure = found
                if self.asked.begun.done() or found.is_callers:
                    raise
                log.warning("upstream %s: %s (%s)", upstream.settings.name, found.reason, found.message)
            else:
                return
        raise failure

    async def _ask_one(self, upstream: Upstream) -> None:
        async for delta in upstream.deltas(self.asked, upstream.settings.models[self.model]):
            if delta.is_answer and not self.asked.begun.done():
                self.asked.begun.set_result(upstream.settings.name)
            self._take(delta)

    def _take(self, delta: Delta) -> None:
        handle = self._handles[delta.choice]
        if delta.usage is not None:
            self._usage = delta.usage
        if delta.finish_reason is not None:
            # A call ends an answer like any other stop; that there is one is seen by its parts.
            handle.reason = FINISHED.get(delta.finish_reason, "stop")
        if handle.completion is not None or not (delta.has_token or delta.logprobs):
            return
        handle.deltas.append(delta)
        # The name of a call has its tokens counted at the end.
        counted = 1 if delta.text or delta.thinking else 0
        if counted and handle.first_token is None:
            handle.first_token = time.perf_counter() - handle.submitted
        handle.tokens += counted
        self._send(handle, RemotePiece(delta.text, (0,) * counted, delta=delta))

    def _finish(self) -> None:
        """End all answers with the tokens that the upstream counted, or with as many as there seem to be."""
        open_handles = [handle for handle in self._handles if handle.completion is None]
        total, estimated = self._usage.completion_tokens, self._usage.completion_tokens is None
        if total is None:
            counts = [self._counted(handle) for handle in open_handles]
            estimated = any(not known for _, known in counts)
            wanted = [tokens for tokens, _ in counts]
        else:
            seen = [handle.tokens for handle in self._handles]
            wanted = [handle.tokens for handle in open_handles]
            if wanted:
                wanted[-1] += max(0, total - sum(seen))
        prompt, known = self._prompt_tokens()
        for handle, tokens in zip(open_handles, wanted, strict=True):
            missing = max(0, tokens - handle.tokens)
            handle.tokens += missing
            self._end(handle, handle.reason or "stop", missing, prompt, estimated=estimated or not known)

    def _counted(self, handle: RemoteHandle) -> tuple[int, bool]:
        """Return the tokens of an answer, and whether they were counted rather than guessed."""
        text = "".join(
            delta.thinking + delta.text + "".join(call.name + call.arguments for call in delta.calls)
            for delta in handle.deltas
        )
        counted = self._count(text)
        if counted is not None:
            return max(counted, handle.tokens), True
        return max(handle.tokens, estimated_tokens(text)), False

    def _prompt_tokens(self) -> tuple[int, bool]:
        if self._usage.prompt_tokens is not None:
            return self._usage.prompt_tokens, True
        return self.asked.likely_tokens, self.asked.is_counted

    def _fail(self, refused: Refused) -> None:
        prompt, _ = self._prompt_tokens()
        if not self.asked.begun.done():
            self.asked.begun.set_exception(refused)
            prompt = 0  # nobody has read it
        for handle in self._handles:
            if handle.completion is None:
                self._end(handle, "error", 0, prompt, refused=refused, estimated=True)

    def _end(
        self, handle: RemoteHandle, reason: str, missing: int = 0, prompt: int | None = None,
        *, refused: Refused | None = None, estimated: bool = False,
    ) -> None:  # fmt: skip
        usage, deltas = self._usage, tuple(handle.deltas)
        now = time.perf_counter() - handle.submitted
        if missing and handle.first_token is None:
            handle.first_token = now
        handle.completion = RemoteCompletion(
            ids=(0,) * handle.tokens,
            text="".join(delta.text for delta in deltas),
            finish_reason=reason,
            stop_reason=None,
            logprobs=(),
            prompt_tokens=self._prompt_tokens()[0] if prompt is None else prompt,
            cached_tokens=usage.cached_tokens,
            prompt_logprobs=None,
            seed=self.asked.params.seed or 0,
            times=Times(0.0, handle.first_token, now),
            thinking="".join(delta.thinking for delta in deltas),
            thinking_tokens=usage.thinking_tokens if handle.choice == 0 else 0,
            deltas=deltas,
            estimated=estimated,
        )
        handle.done.set()
        piece = RemotePiece("", (0,) * missing, finish_reason=reason, prompt_tokens=handle.completion.prompt_tokens,
                            refused=refused)  # fmt: skip
        self._send(handle, piece)

    def _send(self, handle: RemoteHandle, piece: RemotePiece) -> None:
        if handle.on_piece is None:
            handle.waiting.append(piece)
        else:
            handle.on_piece(piece)


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has, where no tokenizer is known: four bytes each."""
    return -(-len(text.encode()) // 4)
