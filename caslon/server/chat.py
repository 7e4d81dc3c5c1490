"""POST /v1/chat/completions: a conversation in, the assistant's next turn out, whole or in pieces.

Source: https://platform.openai.com/docs/api-reference/chat
"""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from anyio import to_thread
from fastapi import Request
from starlette.responses import JSONResponse, Response

from caslon.engine.request import Completion, Piece
from caslon.server.errors import invalid
from caslon.server.logprobs import chat_logprobs
from caslon.server.sampling import sampling_params
from caslon.server.service import Answer, Service
from caslon.server.stream import DONE, EventStream, Pieces, event, whole_answers
from caslon.server.usage import usage
from caslon.server.wire import ChatMessage, ChatRequest, parse

# The newer name of a role that chat templates know under the older one.
ROLES = {"developer": "system"}


@dataclass(frozen=True)
class Work:
    """A request that was taken on: its answers are on their way."""

    service: Service
    fields: ChatRequest
    answers: list[Answer]

    def head(self, request_id: str, kind: str) -> dict[str, Any]:
        """Return what every object of the answer begins with."""
        return {
            "id": f"chatcmpl-{request_id}",
            "object": kind,
            "created": int(time.time()),
            "model": self.service.model_name,
            "system_fingerprint": self.service.fingerprint,
        }


async def create_chat_completion(service: Service, request: Request) -> Response:
    """Answer a chat request."""
    body = await request.body()
    pieces = Pieces()
    work = await to_thread.run_sync(begin, service, body, pieces)
    if work.fields.stream:
        head = work.head(request.state.request_id, "chat.completion.chunk")
        return EventStream(_events(work, head, pieces), work.answers)
    completions = await whole_answers(request, work.answers, pieces)
    head = work.head(request.state.request_id, "chat.completion")
    return JSONResponse(await to_thread.run_sync(_whole, work, head, completions))


def begin(service: Service, body: bytes, pieces: Pieces) -> Work:
    """Read a request, turn its conversation into tokens and start its answers."""
    fields = parse(ChatRequest, body)
    service.check_model(fields.model)
    _check_combination(fields)
    ids = service.chat_ids(plain_messages(fields.messages))
    params = sampling_params(
        service, fields, max_tokens=_max_tokens(service, fields, len(ids)), logprobs=_alternatives(fields)
    )
    return Work(service, fields, service.submit([ids] * len(params), params, pieces.put))


def plain_messages(messages: list[ChatMessage]) -> list[dict[str, str]]:
    """Return messages as role and text, as the chat template takes them."""
    return [{"role": ROLES.get(message.role, message.role), "content": message.text()} for message in messages]


def _check_combination(fields: ChatRequest) -> None:
    if fields.stream_options and not fields.stream:
        raise invalid("'stream_options' needs 'stream': true", "stream_options")
    if fields.top_logprobs is not None and not fields.logprobs:
        raise invalid("'top_logprobs' needs 'logprobs': true", "top_logprobs")
    both = fields.max_tokens is not None and fields.max_completion_tokens is not None
    if both and fields.max_tokens != fields.max_completion_tokens:
        raise invalid("'max_tokens' and 'max_completion_tokens' are two names of one thing and differ", "max_tokens")


def _max_tokens(service: Service, fields: ChatRequest, prompt_tokens: int) -> int:
    for wanted in (fields.max_completion_tokens, fields.max_tokens):
        if wanted is not None:
            return wanted
    # The rest of the context; at least one token, so that the engine can say how far a prompt is over it.
    return max(1, service.context - prompt_tokens)


def _alternatives(fields: ChatRequest) -> int | None:
    return (fields.top_logprobs or 0) if fields.logprobs else None


def _whole(work: Work, head: dict[str, Any], completions: list[Completion]) -> dict[str, Any]:
    choices = [_choice(work, index, completion) for index, completion in enumerate(completions)]
    return {**head, "choices": choices, "usage": usage(completions[:1], completions)}


def _choice(work: Work, index: int, completion: Completion) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": completion.text, "refusal": None},
        "logprobs": _logprobs(work, completion),
        "finish_reason": completion.finish_reason,
    }


def _logprobs(work: Work, written: Completion | Piece) -> dict[str, Any] | None:
    alternatives = _alternatives(work.fields)
    if alternatives is None or not written.logprobs:
        return None
    return chat_logprobs(work.service.tokenizer, written.logprobs, alternatives)


async def _events(work: Work, head: dict[str, Any], pieces: Pieces) -> AsyncIterator[bytes]:
    with_usage = bool(work.fields.stream_options and work.fields.stream_options.include_usage)
    head = {**head, "usage": None} if with_usage else head
    for index in range(len(work.answers)):
        yield event({**head, "choices": [_chunk(index, {"role": "assistant", "content": ""})]})
    async for index, piece in pieces.of(work.answers):
        logprobs = _logprobs(work, piece)
        if piece.text or logprobs:
            yield event({**head, "choices": [_chunk(index, {"content": piece.text}, logprobs)]})
        if piece.finish_reason:
            yield event({**head, "choices": [_chunk(index, {}, None, piece.finish_reason)]})
    if with_usage:
        done = [answer.result() for answer in work.answers]
        yield event({**head, "choices": [], "usage": usage(done[:1], done)})
    yield DONE


def _chunk(
    index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
