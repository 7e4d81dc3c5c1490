"""POST /v1/chat/completions: a conversation in, the assistant's next turn out, whole or in pieces.

Source: https://platform.openai.com/docs/api-reference/chat
"""

import time
from collections.abc import AsyncIterator
from typing import Any

from anyio import to_thread
from fastapi import Request
from starlette.responses import JSONResponse, Response

from caslon.engine.request import Completion, Piece
from caslon.server.chat_wire import ChatRequest
from caslon.server.conversation import Conversation, Part, Text, Thinking, ToolCallBegins, Whole, begin
from caslon.server.errors import invalid
from caslon.server.logprobs import chat_logprobs
from caslon.server.reading import read
from caslon.server.service import Service
from caslon.server.stream import DONE, EventStream, Pieces, event, whole_answers
from caslon.server.upstream.pieces import wire_logprobs
from caslon.server.usage import timings, usage


async def create_chat_completion(service: Service, request: Request) -> Response:
    """Answer a chat request."""
    fields = await read(service, request, ChatRequest)
    _check_combination(fields)
    pieces = Pieces()
    talk = await to_thread.run_sync(begin, service, fields, pieces)
    if fields.stream:
        head = _head(talk, request, "chat.completion.chunk")
        return EventStream(_events(talk, head, pieces), talk.answers)
    completions = await whole_answers(request, talk.answers, pieces)
    head = _head(talk, request, "chat.completion")
    return JSONResponse(await to_thread.run_sync(_whole, talk, head, completions))


def _head(talk: Conversation, request: Request, kind: str) -> dict[str, Any]:
    """Return what every object of the answer begins with."""
    return {
        "id": f"chatcmpl-{request.state.request_id}",
        "object": kind,
        "created": int(time.time()),
        "model": talk.service.model_name,
        "system_fingerprint": talk.service.fingerprint,
    }


def _check_combination(fields: ChatRequest) -> None:
    if fields.stream_options and not fields.stream:
        raise invalid("'stream_options' needs 'stream': true", "stream_options")
    if fields.top_logprobs is not None and not fields.logprobs:
        raise invalid("'top_logprobs' needs 'logprobs': true", "top_logprobs")
    both = fields.max_tokens is not None and fields.max_completion_tokens is not None
    if both and fields.max_tokens != fields.max_completion_tokens:
        raise invalid("'max_tokens' and 'max_completion_tokens' are two names of one thing and differ", "max_tokens")


def _whole(talk: Conversation, head: dict[str, Any], completions: list[Completion]) -> dict[str, Any]:
    choices = [_choice(talk, index, completion) for index, completion in enumerate(completions)]
    return {**head, "choices": choices, "usage": usage(completions[:1], completions), **_timings(talk, completions)}


def _timings(talk: Conversation, completions: list[Completion]) -> dict[str, Any]:
    return timings(completions) if talk.service.settings.request_timings else {}


def _choice(talk: Conversation, index: int, completion: Completion) -> dict[str, Any]:
    reader = talk.reader()
    whole = Whole.of(reader.of_completion(completion))
    message: dict[str, Any] = {"role": "assistant", "content": whole.text, "refusal": None}
    if whole.thinking:
        message["reasoning_content"] = whole.thinking
    if whole.calls:
        message["content"] = whole.text or None
        message["tool_calls"] = [_call(call) for call in whole.calls]
    return {
        "index": index,
        "message": message,
        "logprobs": _logprobs(talk, completion),
        "finish_reason": reader.finish_reason(completion.finish_reason),
    }


def _call(call: dict[str, str]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    return {"id": call["id"], "type": "function", "function": function}


def _logprobs(talk: Conversation, written: Completion | Piece) -> dict[str, Any] | None:
    if talk.service.remote is not None:
        return wire_logprobs(written)
    if not talk.fields.logprobs or not written.logprobs:
        return None
    return chat_logprobs(talk.service.tokenizer, written.logprobs, talk.fields.top_logprobs or 0)


async def _events(talk: Conversation, head: dict[str, Any], pieces: Pieces) -> AsyncIterator[bytes]:
    with_usage = bool(talk.fields.stream_options and talk.fields.stream_options.include_usage)
    head = {**head, "usage": None} if with_usage else head
    readers = [talk.reader() for _ in talk.answers]
    for index in range(len(talk.answers)):
        yield event({**head, "choices": [_chunk(index, {"role": "assistant", "content": ""})]})
    async for index, piece in pieces.of(talk.answers):
        logprobs = _logprobs(talk, piece)
        for part in readers[index].of_piece(piece):
            yield event({**head, "choices": [_chunk(index, _delta(part), logprobs)]})
            logprobs = None
        if logprobs:
            yield event({**head, "choices": [_chunk(index, {"content": ""}, logprobs)]})
        if piece.finish_reason:
            reason = readers[index].finish_reason(piece.finish_reason)
            yield event({**head, "choices": [_chunk(index, {}, None, reason)]})
    if with_usage:
        done = [answer.result() for answer in talk.answers]
        yield event({**head, "choices": [], "usage": usage(done[:1], done), **_timings(talk, done)})
    yield DONE


def _delta(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"content": part.text}
    if isinstance(part, Thinking):
        return {"reasoning_content": part.text}
    if isinstance(part, ToolCallBegins):
        function = {"name": part.name, "arguments": ""}
        return {"tool_calls": [{"index": part.index, "id": part.id, "type": "function", "function": function}]}
    return {"tool_calls": [{"index": part.index, "function": {"arguments": part.text}}]}


def _chunk(
    index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
