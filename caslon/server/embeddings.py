"""POST /v1/embeddings: texts in, vectors of length one out. Texts of all requests share batches.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

import base64
import struct
from typing import Any, Literal

from anyio import to_thread
from fastapi import Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from caslon.engine.request import ContextLengthExceeded
from caslon.server.batcher import Pooling, Vector
from caslon.server.errors import invalid
from caslon.server.reading import read
from caslon.server.service import Service
from caslon.server.wire import Wire

MAX_INPUTS = 2048


class EmbeddingRequest(Wire):
    """POST /v1/embeddings."""

    model: str | None = None
    input: Any = Field(description="text, texts, token ids or lists of token ids; at most 2,048")
    pooling: Pooling = Field("mean", description="of all tokens' states, or the last one's")
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, description="keep this many numbers, made length one again")
    user: str | None = Field(None, description="accepted, not stored")


async def create_embeddings(service: Service, request: Request) -> Response:
    """Answer with a vector for each text."""
    fields = await read(service, request, EmbeddingRequest)
    service.check_model(fields.model)
    if service.remote is not None:
        message = "vectors of the models of other servers are not passed on; ask that server itself"
        raise invalid(message, "model", "unsupported_by_upstream")
    texts = await to_thread.run_sync(_texts, service, fields)
    vectors = await service.embeddings.vectors(texts, fields.pooling)
    return JSONResponse(await to_thread.run_sync(_whole, service, fields, texts, vectors))


def _texts(service: Service, fields: EmbeddingRequest) -> list[list[int]]:
    texts = [_ids(service, text) for text in _inputs(fields.input)]
    for ids in texts:
        if len(ids) > service.context:
            raise ContextLengthExceeded(len(ids), 0, service.context)
    service.read(sum(map(len, texts)))
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


def _whole(service: Service, fields: EmbeddingRequest, texts: list[list[int]], vectors: list[Vector]) -> dict[str, Any]:
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
    return base64.b64encode(
        struct.pack(f"<{len(vector)}f", *vector)
    ).decode()  # little-endian float32, as OpenAI sends it
