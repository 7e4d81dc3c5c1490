"""One request from its receipt to its last byte: who asked, what was reserved, which answers it got.

Made by the outermost middleware and read when the request is over, for the accounts, the audit log, traces and hooks.
"""

import asyncio
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from caslon.server.accounts import Entry
from caslon.server.keys import Key

if TYPE_CHECKING:
    from caslon.server.service import Answer, Service
    from caslon.server.upstream.pieces import Asked


@dataclass(eq=False)
class Call:
    """`endpoint` is the pattern of the route, `traceparent` what the caller sent of the trace it stands in."""

    request_id: str
    endpoint: str
    address: str = ""
    key: Key | None = None
    entry: Entry | None = None
    limits: dict[str, str] = field(default_factory=dict)  # headers that tell what the caller has left
    traceparent: str | None = None
    body: bytes = b""
    began: float = field(default_factory=time.time)  # seconds since 1970
    received: float = field(default_factory=time.perf_counter)
    answers: list["Answer"] = field(default_factory=list)
    served: "Service | None" = None  # the model that was asked
    asked: list["Asked"] = field(default_factory=list)  # what was sent on to other servers
    served_by: str | None = None  # which of them answers
    read_tokens: int = 0  # of texts that were read and got no answer, as for embeddings
    status: int = 0
    closed: bool = False
    _all_ended: "Future[None] | None" = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def holder(self) -> str:
        """Whose turn it is in the queue, and whose use is counted: the key's, or else the address's."""
        return f"key:{self.key.holder}" if self.key else f"address:{self.address}"

    @property
    def weight(self) -> int:
        """How many turns the caller has in a round."""
        return self.key.weight if self.key else 1

    @property
    def seconds(self) -> float:
        """Seconds since its receipt."""
        return time.perf_counter() - self.received

    @property
    def all_ended(self) -> bool:
        """Whether every answer has ended; true of a request that got none."""
        return all(answer.ended for answer in self.answers)

    def note_end(self) -> None:
        """Wake who waits for the answers, when the last one has ended; from any thread."""
        with self._lock:
            if self._all_ended is not None and self.all_ended and not self._all_ended.done():
                self._all_ended.set_result(None)

    async def ended(self) -> None:
        """Return when all answers have ended."""
        with self._lock:
            if self.all_ended:
                return
            self._all_ended = Future()
        await asyncio.wrap_future(self._all_ended)

    def tokens(self) -> tuple[int, int]:
        """Return prompt and completion tokens; a prompt counts once however many answers it got."""
        prompt = self.read_tokens + sum(answer.counted_prompt_tokens for answer in self.answers)
        return prompt, sum(answer.tokens for answer in self.answers)

    def parameters(self) -> dict[str, Any]:
        """Return the sampling parameters that hold no text: numbers and switches that differ from the defaults."""
        if not self.answers:
            return {}
        params = self.answers[0].params
        fresh = type(params)()
        given = {
            name: value
            for name, value in vars(params).items()
            if isinstance(value, bool | int | float) and value != getattr(fresh, name)
        }
        return {**given, "max_tokens": params.max_tokens, "answers": len(self.answers)}
