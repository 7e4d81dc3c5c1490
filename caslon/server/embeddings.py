"""POST /v1/embeddings: texts in, vectors of length one out. Texts of all requests share batches.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

import asyncio
import base64
import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from anyio import to_thread
from fastapi import Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from caslon.engine.request import ContextLengthExceeded
from caslon.server.errors import SERVER_ERROR, Refused, invalid
from caslon.server.reading import read
from caslon.server.service import Service
from caslon.server.wire import Wire

MAX_INPUTS = 2048
BATCH_TEXTS = 32
BATCH_SECONDS = 0.005

log = logging.getLogger("caslon.server")

Vector = list[float]
Pooling = Literal["mean", "last"]
Embed = Callable[[Sequence[Sequence[int]], Pooling], list[Vector]]


class EmbeddingRequest(Wire):
    """POST /v1/embeddings."""

    model: str | None = None
    input: Any = Field(description="text, texts, token ids or lists of token ids; at most 2,048")
    pooling: Pooling = Field("mean", description="of all tokens' states, or the last one's")
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, description="keep this many numbers, made length one again")
    user: str | None = Field(None, description="accepted, not stored")


@dataclass(eq=False)
class _Waiting:
    ids: Sequence[int]
    pooling: Pooling
    vector: "asyncio.Future[Vector]"


class EmbeddingBatcher:
    """Gathers texts of all requests: a batch goes when it has 32 of them, or 5 ms after its first. Lives on one event loop."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.batch_sizes: list[int] = []  # of the last batches, for metrics and tests

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
        if batch:
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, batch: list[_Waiting]) -> None:
        self.batch_sizes = [*self.batch_sizes[-999:], len(batch)]
        for pooling in sorted({one.pooling for one in batch}):
            group = [one for one in batch if one.pooling == pooling]
            try:
                vectors = await to_thread.run_sync(self._embed, [one.ids for one in group], pooling)
            except Exception:  # whoever asked hears of it; the batcher goes on
                log.exception("a batch of %d embeddings failed", len(group))
                failed = Refused(500, "the engine failed on this request", code="internal_error", kind=SERVER_ERROR)
                _settle(group, lambda one, _: one.vector.set_exception(failed))
                continue
            _settle(group, lambda one, index: one.vector.set_result(vectors[index]))  # noqa: B023 - called at once


def _settle(group: list[_Waiting], settle: Callable[[_Waiting, int], None]) -> None:
    for index, one in enumerate(group):
        if not one.vector.done():
            settle(one, index)


async def create_embeddings(service: Service, request: Request) -> Response:
    """Answer with a vector for each text."""
    fields = await read(service, request, EmbeddingRequest)
    service.check_model(fields.model)
    texts = await to_thread.run_sync(_texts, service, fields)
    vectors = await service.embeddings.vectors(texts, fields.pooling)
    return JSONResponse(await to_thread.run_sync(_whole, service, fields, texts, vectors))


def _texts(service: Service, fields: EmbeddingRequest) -> list[list[int]]:
    texts = [_ids(service, text) for text in _inputs(fields.input)]
    for ids in texts:
        if len(ids) > service.context:
            raise ContextLengthExceeded(len(ids), 0, service.context)
    service.reserve_prompt(sum(map(len, texts)))
    return texts


def _inputs(given: Any) -> list[str | list[int]]:
    if isinstance(given, str) or _is_ids(given):
        return [given]
    if not isinstance(given, list) or not given or not all(isinstance(text, str) or _is_ids(text) for text in given):
        raise invalid("'input' is a text, a list of texts, a list of token ids or a list of those", "input")
    if len(given) > MAX_INPUTS:
        raise invalid(f"{len(given)} inputs in one request; at most {MAX_INPUTS:,} are taken", "input")
    return given


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(part) is int for part in value)


def _ids(service: Service, text: str | list[int]) -> list[int]:
    if isinstance(text, str):
        return service.text_ids(text)
    service.check_ids(text, "input")
    return text


def _whole(
    service: Service, fields: EmbeddingRequest, texts: list[list[int]], vectors: list[Vector]
) -> dict[str, Any]:
    tokens = sum(map(len, texts))
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(_cut(vector, fields.dimensions), fields)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": service.model_name, "usage": usage}


def _cut(vector: Vector, dimensions: int | None) -> Vector:
    if dimensions is None or dimensions == len(vector):
        return vector
    if dimensions > len(vector):
        raise invalid(f"the model's vectors have {len(vector)} dimensions", "dimensions")
    kept = vector[:dimensions]
    length = sum(number * number for number in kept) ** 0.5
    return [number / length for number in kept] if length else kept


def _encoded(vector: Vector, fields: EmbeddingRequest) -> Vector | str:
    if fields.encoding_format != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()  # little-endian float32, as OpenAI sends it
