"""POST /v1/messages: Anthropic's shape of a chat, as a thin translation; and counting its tokens.

Source: https://docs.anthropic.com/en/api/messages
"""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Literal

from anyio import to_thread
from fastapi import Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from caslon.engine.request import Completion
from caslon.errors import CaslonError
from caslon.server.answer_blocks import AnswerBlocks, Block, Change, blocks_of
from caslon.server.chat_wire import MAX_MESSAGES, MAX_TOOLS, ChatRequest
from caslon.server.conversation import Conversation, begin, prompt_ids
from caslon.server.errors import Refused, invalid, refused_from
from caslon.server.reading import read
from caslon.server.service import Service
from caslon.server.stream import EventStream, Pieces, named_event, whole_answers
from caslon.server.wire import Wire, checked

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "timeout": "max_tokens"}
ERROR_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
MARKERS_OF_THINKING = 2


class MessageTurn(Wire):
    """One turn: text, or blocks of text, thinking, tool uses and tool results."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class MessageTool(Wire):
    """A tool the model may use."""

    name: str
    type: Literal["custom"] | None = None
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    cache_control: dict[str, Any] | None = Field(None, description="accepted; prompts are always cached")


class MessageToolChoice(Wire):
    """Whether a tool may, must or must not be used, or which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessageThinking(Wire):
    """Whether to think, and for how many tokens, which count as part of max_tokens."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(None, ge=0)
    display: Literal["summarized", "omitted"] | None = None


class MessagesRequest(Wire):
    """POST /v1/messages."""

    model: str | None = None
    messages: list[MessageTurn] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int = Field(description="most tokens to write, thinking included")
    system: str | list[dict[str, Any]] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[MessageTool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: MessageToolChoice | None = None
    thinking: MessageThinking | None = None
    stream: bool | None = None
    metadata: dict[str, str | None] | None = Field(None, description="accepted, not stored")
    cache_control: dict[str, Any] | None = Field(None, description="accepted; prompts are always cached")
    service_tier: str | None = Field(None, description="accepted; there is one tier")


class CountRequest(Wire):
    """POST /v1/messages/count_tokens."""

    model: str | None = None
    messages: list[MessageTurn] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: str | list[dict[str, Any]] | None = None
    tools: list[MessageTool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: MessageToolChoice | None = None
    thinking: MessageThinking | None = None


async def create_message(service: Service, request: Request) -> Response:
    """Answer a request in Anthropic's shape, errors included."""
    try:
        return await _answer(service, request)
    except (CaslonError, Refused) as error:
        return _refusal(refused_from(error))


async def count_message_tokens(service: Service, request: Request) -> Response:
    """Answer with the number of tokens a request's prompt has."""
    try:
        fields = await read(service, request, CountRequest)
        chat = as_chat(
            MessagesRequest(max_tokens=1, **{name: getattr(fields, name) for name in CountRequest.model_fields})
        )
        ids = await to_thread.run_sync(prompt_ids, service, chat)
        return JSONResponse({"input_tokens": len(ids)})
    except (CaslonError, Refused) as error:
        return _refusal(refused_from(error))


async def _answer(service: Service, request: Request) -> Response:
    fields = await read(service, request, MessagesRequest)
    pieces = Pieces()
    talk = await to_thread.run_sync(begin, service, as_chat(fields), pieces)
    id = f"msg_{request.state.request_id}"
    if fields.stream:
        return EventStream(_events(talk, id, pieces), talk.answers)
    [completion] = await whole_answers(request, talk.answers, pieces)
    reader = talk.reader()
    blocks = blocks_of(reader.of_completion(completion))
    head = _message(talk, id, [_content(block) for block in blocks])
    ending = _ending(completion, reader.finish_reason(completion.finish_reason))
    return JSONResponse({**head, **ending, "usage": _usage(completion)})


def _refusal(refused: Refused) -> Response:
    kind = ERROR_TYPES.get(refused.status, "invalid_request_error" if refused.status < 500 else "api_error")
    body = {"type": "error", "error": {"type": kind, "message": refused.message, "code": refused.code}}
    return JSONResponse(body, status_code=refused.status, headers=refused.headers)


def as_chat(fields: MessagesRequest) -> ChatRequest:
    """Return the same request in OpenAI's shape; `Refused` for blocks that have no place in it."""
    if fields.messages[-1].role == "assistant":
        raise invalid("the last message must be the user's: beginning the answer is not offered", "messages")
    chat: dict[str, Any] = {
        "model": fields.model,
        "messages": [*_system(fields.system), *(one for turn in fields.messages for one in _turn(turn))],
        "stop": fields.stop_sequences,
        "temperature": fields.temperature,
        "top_p": fields.top_p,
        "top_k": fields.top_k,
        "stream": fields.stream,
        **_thinking(fields),
        **_tools(fields),
    }
    return checked(ChatRequest, {name: value for name, value in chat.items() if value is not None})


def _system(system: str | list[dict[str, Any]] | None) -> Iterator[dict[str, Any]]:
    if system:
        yield {"role": "system", "content": system if isinstance(system, str) else _text(system, "system")}


def _text(blocks: Sequence[dict[str, Any]], param: str) -> str:
    for block in blocks:
        if block.get("type") != "text" or not isinstance(block.get("text"), str):
            message = f"blocks of type {block.get('type')!r} are not offered here; only text is"
            raise invalid(message, param, "unsupported_content")
    return "".join(block["text"] for block in blocks)


def _turn(turn: MessageTurn) -> Iterator[dict[str, Any]]:
    """Yield a turn as OpenAI's messages: each tool result is one of its own."""
    if isinstance(turn.content, str):
        yield {"role": turn.role, "content": turn.content}
        return
    results = [block for block in turn.content if block.get("type") == "tool_result"]
    uses = [block for block in turn.content if block.get("type") == "tool_use"]
    thoughts = [block for block in turn.content if block.get("type") in ("thinking", "redacted_thinking")]
    known = ("tool_result", "tool_use", "thinking", "redacted_thinking")
    text = _text([block for block in turn.content if block.get("type") not in known], "messages")
    if (results and turn.role != "user") or ((uses or thoughts) and turn.role != "assistant"):
        raise invalid("tool results are the user's, tool uses and thinking the assistant's", "messages")
    for block in results:
        content = block.get("content") or ""
        said = content if isinstance(content, str) else _text(content, "messages")
        yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": said}
    if text or uses or not results:
        thought = "".join(str(block.get("thinking") or "") for block in thoughts)
        message = {"role": turn.role, "content": text, "reasoning_content": thought or None}
        yield {**message, "tool_calls": [_call(block) for block in uses] or None}


def _call(block: dict[str, Any]) -> dict[str, Any]:
    function = {"name": block.get("name"), "arguments": json.dumps(block.get("input") or {}, ensure_ascii=False)}
    return {"id": block.get("id"), "type": "function", "function": function}


def _thinking(fields: MessagesRequest) -> dict[str, Any]:
    """Return how to think. Anthropic counts thinking as part of max_tokens, the engine gives it a budget of its own."""
    thinking = fields.thinking
    if thinking is None or thinking.type == "disabled":
        return {"max_tokens": fields.max_tokens, "thinking": "off" if thinking else None}
    mode = "hidden" if thinking.display == "omitted" else "shown"
    if thinking.budget_tokens is None:
        return {"max_tokens": fields.max_tokens, "thinking": mode}
    rest = fields.max_tokens - thinking.budget_tokens - MARKERS_OF_THINKING
    if rest < 1:
        raise invalid("'max_tokens' must be larger than 'thinking.budget_tokens'", "max_tokens")
    return {"max_tokens": rest, "thinking": mode, "thinking_budget": thinking.budget_tokens}


def _tools(fields: MessagesRequest) -> dict[str, Any]:
    choice = fields.tool_choice
    if not fields.tools:
        return {} if choice is None else {"tool_choice": {"any": "required"}.get(choice.type, "none")}
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.input_schema,
                "strict": tool.strict,
            },
        }
        for tool in fields.tools
    ]
    if choice is None:
        return {"tools": tools}
    named = {"type": "function", "function": {"name": choice.name or ""}}
    wanted = named if choice.type == "tool" else {"any": "required"}.get(choice.type, choice.type)
    return {"tools": tools, "tool_choice": wanted, "parallel_tool_calls": not choice.disable_parallel_tool_use}


def _message(talk: Conversation, id: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    kind = {"id": id, "type": "message", "role": "assistant", "model": talk.service.model_name}
    return {**kind, "content": content, "stop_reason": None, "stop_sequence": None}


def _content(block: Block) -> dict[str, Any]:
    if block.kind == "text":
        return {"type": "text", "text": block.text}
    if block.kind == "thinking":
        return {"type": "thinking", "thinking": block.text, "signature": ""}
    return {"type": "tool_use", "id": block.id, "name": block.name, "input": _input(block.text)}


def _input(text: str) -> Any:
    try:
        value = json.loads(text or "{}")
    except ValueError:  # cut by max_tokens
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": text}


def _ending(completion: Completion, reason: str) -> dict[str, Any]:
    if reason == "stop" and isinstance(completion.stop_reason, str):
        return {"stop_reason": "stop_sequence", "stop_sequence": completion.stop_reason}
    return {"stop_reason": STOP_REASONS.get(reason, reason), "stop_sequence": None}


def _usage(completion: Completion) -> dict[str, Any]:
    return {
        "input_tokens": completion.prompt_tokens - completion.cached_tokens,
        "cache_read_input_tokens": completion.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": len(completion.ids),
    }


async def _events(talk: Conversation, id: str, pieces: Pieces) -> AsyncIterator[bytes]:
    zero = {"input_tokens": len(talk.prompt), "output_tokens": 0}
    yield _event("message_start", message={**_message(talk, id, []), "usage": zero})
    reader, answer, reason = talk.reader(), AnswerBlocks(), "stop"
    async for _, piece in pieces.of(talk.answers):
        for part in reader.of_piece(piece):
            for change in answer.add(part):
                yield _change(change)
        reason = piece.finish_reason or reason
    for change in answer.close():
        yield _change(change)
    completion = talk.answers[0].result()
    yield _event("message_delta", delta=_ending(completion, reader.finish_reason(reason)), usage=_usage(completion))
    yield _event("message_stop")


def _change(change: Change) -> bytes:
    block = change.block
    if change.what == "close":
        return _event("content_block_stop", index=block.index)
    if change.what == "open":
        return _event("content_block_start", index=block.index, content_block=_content(block))
    deltas = {
        "text": {"type": "text_delta", "text": change.text},
        "thinking": {"type": "thinking_delta", "thinking": change.text},
        "call": {"type": "input_json_delta", "partial_json": change.text},
    }
    return _event("content_block_delta", index=block.index, delta=deltas[block.kind])


def _event(kind: str, **fields: Any) -> bytes:
    return named_event(kind, {"type": kind, **fields})
