"""Answers from the engine's thread to the event loop, and from there to the client as server-sent events.

The engine's thread puts each piece on the event loop's queue; no thread waits for an answer. When the client goes away, its
answers are cancelled at once.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from caslon.engine.request import Completion, Piece
from caslon.server.calls import Call
from caslon.server.errors import SERVER_ERROR, Refused, refused_from
from caslon.server.service import Answer

log = logging.getLogger("caslon.server")

# Unicode's other line ends: plain text to the standard, but some clients split events at them.
LINE_ENDS = {number: f"\\u{number:04x}" for number in (0x85, 0x2028, 0x2029)}
MOST_WAITING_BYTES = 1 << 20
EVENT_BYTES = 250  # what stands around a piece's text
# Proxies must not hold pieces back until there are many.
UNBUFFERED = {"cache-control": "no-cache", "x-accel-buffering": "no"}
DONE = b"data: [DONE]\n\n"


def event(body: Any) -> bytes:
    """Return a JSON value as one server-sent event."""
    return b"data: " + compact(body) + b"\n\n"


def named_event(name: str, body: Any) -> bytes:
    """Return a JSON value as one server-sent event of a name."""
    return b"event: " + name.encode() + b"\n" + event(body)


def compact(body: Any) -> bytes:
    """Return a value as JSON without spaces."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).translate(LINE_ENDS).encode()


def error_event(error: BaseException) -> bytes:
    """Return an error as an event of that name, with the body an error answer would have had."""
    return named_event("error", {"type": "error", **refused_from(error).body()})


def check_whole(completion: Completion) -> Completion:
    """Return a completion that came to its own end; `Refused` for one that the server broke off."""
    if completion.finish_reason == "abort":
        raise Refused(503, "the answer was broken off by the server", code="aborted", kind=SERVER_ERROR)
    if completion.finish_reason == "error":
        raise Refused(500, "the engine failed on this request", code="internal_error", kind=SERVER_ERROR)
    return completion


def _bytes_of(piece: Piece) -> int:
    """Return about how many bytes a piece takes as an event."""
    return EVENT_BYTES * (1 + len(piece.logprobs)) + len(piece.text)


class Pieces:
    """The pieces of a request's answers, from the engine's thread to the event loop that made this object."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._answers: Sequence[Answer] = ()
        self._put_bytes = 0
        self._taken_bytes = 0

    def put(self, index: int, piece: Piece) -> None:
        """Add a piece of the answer at `index`, from any thread. When its reader is too far behind, the answers end."""
        self._put_bytes += _bytes_of(piece)
        if self._put_bytes - self._taken_bytes > MOST_WAITING_BYTES:
            message = f"the client is more than {MOST_WAITING_BYTES} bytes behind"
            for answer in self._answers:
                answer.break_off(Refused(408, message, code="slow_reader"))
        self._loop.call_soon_threadsafe(self._queue.put_nowait, (index, piece))

    async def of(self, answers: Sequence[Answer]) -> AsyncIterator[tuple[int, Piece]]:
        """Yield places and pieces in the order they come, until all answers have ended; raise when one was broken off."""
        self._answers = answers
        ended = 0
        while ended < len(answers):
            index, piece = await self._queue.get()
            self._taken_bytes += _bytes_of(piece)
            if piece.finish_reason is not None:
                check_whole(answers[index].result())
                ended += 1
            yield index, piece


async def whole_answers(request: Request, answers: Sequence[Answer], pieces: Pieces) -> list[Completion]:
    """Return all answers when they have ended. A client that goes away meanwhile cancels them: `Refused`."""
    watch = asyncio.create_task(_cancel_when_gone(request.receive, answers))
    try:
        async for _ in pieces.of(answers):
            pass
        return [answer.result() for answer in answers]
    finally:
        watch.cancel()
        cancel_all(answers)


def cancel_all(answers: Sequence[Answer]) -> None:
    """Cancel answers; those that have ended stay as they are."""
    for answer in answers:
        answer.cancel()


async def taken_on(call: Call, request: Request) -> None:
    """Return when other servers that were asked have begun to answer, so that who they are stands before the answer.

    `Refused` when they all failed before they began.
    """
    for asked in call.asked:
        begun = asyncio.wrap_future(asked.begun)
        over = asyncio.ensure_future(call.ended())
        watch = asyncio.create_task(_cancel_when_gone(request.receive, call.answers))
        try:
            waited: set[asyncio.Future[Any]] = {begun, over}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            watch.cancel()
        if begun.done():
            call.served_by = begun.result()
        else:
            for answer in call.answers:  # broken off while they waited for their turn
                answer.result()


async def _cancel_when_gone(receive: Receive, answers: Sequence[Answer]) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
    cancel_all(answers)


class EventStream(StreamingResponse):
    """A stream of events that cancels its answers when it ends, however it ends."""

    def __init__(self, events: AsyncIterator[bytes], answers: Sequence[Answer]) -> None:
        super().__init__(_with_error_event(events), media_type="text/event-stream", headers=UNBUFFERED)
        self.answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client goes."""
        watch = asyncio.create_task(_cancel_when_gone(receive, self.answers))
        try:
            await self.stream_response(send)
        except OSError:  # the client is gone: nobody is left to tell
            log.debug("a client left in the middle of a stream")
        finally:
            watch.cancel()
            cancel_all(self.answers)


class TextStream(EventStream):
    """A stream of plain text. An error in it breaks the connection off, for plain text has no word for one."""

    def __init__(self, texts: AsyncIterator[bytes], answers: Sequence[Answer]) -> None:
        StreamingResponse.__init__(self, texts, media_type="text/plain; charset=utf-8", headers=UNBUFFERED)
        self.answers = answers


async def _with_error_event(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass events on; an error becomes the last event, since the status has been sent."""
    try:
        async for item in events:
            yield item
    except Exception as error:
        if not isinstance(error, Refused):
            log.exception("a stream failed")
        yield error_event(error)
