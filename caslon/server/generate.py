"""POST /generate: a prompt in, plain text out as it is written. For people at a terminal: it does not say why a text ended."""

from collections.abc import AsyncIterator
from typing import Any

from anyio import to_thread
from fastapi import Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from caslon.server.completions import Work, begin
from caslon.server.errors import invalid
from caslon.server.reading import read
from caslon.server.service import Service
from caslon.server.stream import Pieces, TextStream, whole_answers
from caslon.server.usage import usage
from caslon.server.wire import CompletionRequest, NotOffered, SamplingFields


class GenerateRequest(SamplingFields):
    """POST /generate."""

    prompt: str = Field(description="text to continue")
    stream: bool | None = Field(True, description="send the text as it is written; false: JSON at the end")
    max_length: Any = Field(None, description="not offered: it counted the prompt too; use max_tokens")
    n: NotOffered = None
    stream_options: NotOffered = None


async def generate(service: Service, request: Request) -> Response:
    """Answer with the continuation of a prompt."""
    fields = await read(service, request, GenerateRequest)
    if fields.max_length is not None:
        message = (
            "'max_length' is not offered: it counted the prompt's tokens too; say how many new ones with 'max_tokens'"
        )
        raise invalid(message, "max_length", "unsupported_parameter")
    given = fields.model_dump(exclude={"max_length", "n", "stream", "stream_options"}, exclude_none=True, by_alias=True)
    completion = CompletionRequest.model_validate(given)
    pieces = Pieces()
    work = await to_thread.run_sync(begin, service, completion, pieces)
    if fields.stream is not False:
        return TextStream(_texts(work, pieces), work.answers)
    [whole] = await whole_answers(request, work.answers, pieces)
    body = {"text": whole.text, "prompt": fields.prompt, "finish_reason": whole.finish_reason}
    return JSONResponse({**body, "usage": usage([whole], [whole])})


async def _texts(work: Work, pieces: Pieces) -> AsyncIterator[bytes]:
    async for _, piece in pieces.of(work.answers):
        if piece.text:
            yield piece.text.encode()
