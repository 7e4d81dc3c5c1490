"""Texts of all requests to batches for the engine: one goes when it has 32 texts, or 5 ms after its first."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from anyio import to_thread

from caslon.server.errors import SERVER_ERROR, Refused

BATCH_TEXTS = 32
BATCH_SECONDS = 0.005

log = logging.getLogger("caslon.server")

Vector = list[float]
Pooling = Literal["mean", "last"]
Embed = Callable[[Sequence[Sequence[int]], Pooling], list[Vector]]


@dataclass(eq=False)
class _Waiting:
    ids: Sequence[int]
    pooling: Pooling
    vector: "asyncio.Future[Vector]"


class EmbeddingBatcher:
    """Gathers texts until their batch goes. Lives on one event loop."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def vectors(self, texts: Sequence[Sequence[int]], pooling: Pooling) -> list[Vector]:
        """Return the vector of each text."""
        loop = asyncio.get_running_loop()
        asked = [_Waiting(ids, pooling, loop.create_future()) for ids in texts]
        for one in asked:
            self._waiting.append(one)
            if len(self._waiting) == BATCH_TEXTS:
                self._flush()
        if self._waiting and self._timer is None:
            self._timer = loop.call_later(BATCH_SECONDS, self._flush)
        return list(await asyncio.gather(*(one.vector for one in asked)))

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = [one for one in self._waiting if not one.vector.cancelled()]
        self._waiting = []
        for pooling in sorted({one.pooling for one in batch}):  # neither waits for the other's step
            task = asyncio.get_running_loop().create_task(self._run([one for one in batch if one.pooling == pooling]))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, batch: list[_Waiting]) -> None:
        try:
            vectors = await to_thread.run_sync(self._embed, [one.ids for one in batch], batch[0].pooling)
        except Exception:  # whoever asked hears of it; the batcher goes on
            log.exception("a batch of %d embeddings failed", len(batch))
            _fail(batch)
        else:
            for one, vector in zip(batch, vectors, strict=True):
                if not one.vector.done():
                    one.vector.set_result(vector)


def _fail(batch: list[_Waiting]) -> None:
    for one in batch:
        if not one.vector.done():
            failed = Refused(500, "the engine failed on this request", code="internal_error", kind=SERVER_ERROR)
            one.vector.set_exception(failed)
