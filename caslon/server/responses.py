"""POST /v1/responses: OpenAI's newer shape of a chat, as a thin translation. Nothing is stored: each request brings its whole
conversation.

Source: https://platform.openai.com/docs/api-reference/responses
"""

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

from anyio import to_thread
from fastapi import Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from caslon.engine.request import Completion
from caslon.server.answer_blocks import AnswerBlocks, Block, Change, blocks_of
from caslon.server.chat_wire import MAX_MESSAGES, MAX_TOOLS, ChatRequest, Effort
from caslon.server.conversation import Conversation, begin
from caslon.server.errors import invalid
from caslon.server.reading import read
from caslon.server.service import Service
from caslon.server.stream import EventStream, Pieces, named_event, whole_answers
from caslon.server.wire import NotOffered, StreamOptions, Wire, checked

TEXT_PARTS = ("input_text", "output_text", "text")


class ResponseTextFormat(Wire):
    """The form of the answer; see `response_format` of a chat."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseText(Wire):
    """How the answer's text is shaped."""

    format: ResponseTextFormat | None = None
    verbosity: Literal["medium"] | None = Field(None, description="only the usual one is offered")


class ResponseReasoning(Wire):
    """How much to think."""

    effort: Effort | None = None
    summary: NotOffered = None


class ResponseTool(Wire):
    """A function the model may call."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedResponseTool(Wire):
    """The one tool that is to be called."""

    type: Literal["function"]
    name: str


class ResponsesRequest(Wire):
    """POST /v1/responses."""

    model: str | None = None
    input: Any = Field(description="a text, or a list of messages, calls and their outputs")
    instructions: str | None = Field(None, description="a system message before the input")
    max_output_tokens: int | None = Field(None, description="most tokens to write, thinking included")
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = Field(None, description="caslon's own")
    min_p: float | None = Field(None, description="caslon's own")
    seed: int | None = Field(None, description="caslon's own: same seed, same answer")
    text: ResponseText | None = None
    reasoning: ResponseReasoning | None = None
    tools: list[ResponseTool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedResponseTool | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    truncation: Literal["disabled"] | None = Field(None, description="nothing is ever cut")
    user: str | None = Field(None, description="accepted, not stored")
    metadata: dict[str, str] | None = Field(None, description="returned, not stored")
    safety_identifier: str | None = Field(None, description="accepted, not stored")
    prompt_cache_key: str | None = Field(None, description="accepted; prompts are always cached")
    service_tier: Literal["auto", "default"] | None = None
    store: NotOffered = None
    previous_response_id: NotOffered = None
    conversation: NotOffered = None
    background: NotOffered = None
    include: NotOffered = None
    max_tool_calls: NotOffered = None
    prompt: NotOffered = None
    top_logprobs: NotOffered = None


async def create_response(service: Service, request: Request) -> Response:
    """Answer a request in the shape of OpenAI's responses."""
    fields = await read(service, request, ResponsesRequest)
    pieces = Pieces()
    talk = await to_thread.run_sync(begin, service, as_chat(fields), pieces)
    head = _head(talk, fields, request.state.request_id)
    if fields.stream:
        return EventStream(_events(talk, head, pieces), talk.answers)
    [completion] = await whole_answers(request, talk.answers, pieces)
    blocks = blocks_of(talk.reader().of_completion(completion))
    return JSONResponse({**head, **_ending(completion, blocks)})


def as_chat(fields: ResponsesRequest) -> ChatRequest:
    """Return the same request in the shape of a chat; `Refused` for items that have no place in it."""
    given = fields.input
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise invalid("'input' is a text or a list of items", "input")
    if len(items) > MAX_MESSAGES:
        raise invalid(f"{len(items)} items; at most {MAX_MESSAGES} are taken", "input")
    system = [{"role": "system", "content": fields.instructions}] if fields.instructions else []
    chat: dict[str, Any] = {
        "model": fields.model,
        "messages": [*system, *_messages(items)],
        "max_tokens": fields.max_output_tokens,
        "temperature": fields.temperature,
        "top_p": fields.top_p,
        "top_k": fields.top_k,
        "min_p": fields.min_p,
        "seed": fields.seed,
        "stream": fields.stream,
        "response_format": _format(fields.text),
        "reasoning_effort": fields.reasoning.effort if fields.reasoning else None,
        "parallel_tool_calls": fields.parallel_tool_calls,
        **_tools(fields),
    }
    return checked(ChatRequest, {name: value for name, value in chat.items() if value is not None})


def _messages(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return items as messages; thoughts and calls join the assistant's turn they belong to."""
    messages: list[dict[str, Any]] = []
    for place, item in enumerate(items):
        kind = item.get("type", "message")
        if kind == "message":
            _add_message(messages, item, place)
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            _assistant_turn(messages).setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            said = _text(item.get("output"), place)
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": said})
        elif kind == "reasoning":
            parts = [part for part in item.get("content") or [] if isinstance(part, dict)]
            thought = "".join(str(part.get("text", "")) for part in parts)
            messages.append({"role": "assistant", "content": "", "reasoning_content": thought})
        else:
            raise invalid(f"input items of type {kind!r} are not offered", f"input.{place}.type", "unsupported_content")
    return messages


def _add_message(messages: list[dict[str, Any]], item: dict[str, Any], place: int) -> None:
    text = _text(item.get("content"), place)
    last = messages[-1] if messages else {}
    if item.get("role") == "assistant" and last.get("role") == "assistant" and not last["content"]:
        last["content"] = text  # its thoughts or calls came before it
    else:
        messages.append({"role": item.get("role"), "content": text})


def _assistant_turn(messages: list[dict[str, Any]]) -> dict[str, Any]:
    if not messages or messages[-1].get("role") != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]


def _text(content: Any, place: int) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise invalid("a message needs a content: a text or a list of parts", f"input.{place}.content")
    for part in content:
        if part.get("type") not in TEXT_PARTS or not isinstance(part.get("text"), str):
            message = f"content parts of type {part.get('type')!r} are not offered; only text is"
            raise invalid(message, f"input.{place}.content", "unsupported_content")
    return "".join(part["text"] for part in content)


def _format(text: ResponseText | None) -> dict[str, Any] | None:
    wanted = text.format if text else None
    if wanted is None:
        return None
    if wanted.type != "json_schema":
        return {"type": wanted.type}
    schema = {"name": wanted.name or "answer", "schema": wanted.schema_, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": schema}


def _tools(fields: ResponsesRequest) -> dict[str, Any]:
    choice = fields.tool_choice
    if isinstance(choice, NamedResponseTool):
        chosen: Any = {"type": "function", "function": {"name": choice.name}}
    else:
        chosen = choice
    tools = [
        {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}
        for tool in fields.tools or ()
    ]
    return {"tools": tools or None, "tool_choice": chosen}


def _head(talk: Conversation, fields: ResponsesRequest, request_id: str) -> dict[str, Any]:
    """Return the response as it stands when its answer begins."""
    wanted = fields.text.format if fields.text else None
    form = wanted.model_dump(by_alias=True, exclude_none=True) if wanted else {"type": "text"}
    params = talk.answers[0].params
    choice = fields.tool_choice
    return {
        "id": f"resp_{request_id}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "metadata": fields.metadata or {},
        "model": talk.service.model_name,
        "output": [],
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": fields.reasoning.effort if fields.reasoning else None, "summary": None},
        "store": False,
        "temperature": params.temperature,
        "text": {"format": form},
        "tool_choice": choice.model_dump() if isinstance(choice, NamedResponseTool) else choice or "auto",
        "tools": [_shown_tool(tool) for tool in fields.tools or ()],
        "top_p": params.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": fields.user,
    }


def _shown_tool(tool: ResponseTool) -> dict[str, Any]:
    return {**tool.model_dump(), "strict": bool(tool.strict)}


def _ending(completion: Completion, blocks: list[Block]) -> dict[str, Any]:
    """Return what the end of the answer changes in the response."""
    whole = completion.finish_reason == "stop"
    return {
        "status": "completed" if whole else "incomplete",
        "incomplete_details": None if whole else {"reason": "max_output_tokens"},
        "output": [_item(block, "completed" if whole or block is not blocks[-1] else "incomplete") for block in blocks],
        "usage": {
            "input_tokens": completion.prompt_tokens,
            "input_tokens_details": {"cached_tokens": completion.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": len(completion.ids),
            "output_tokens_details": {"reasoning_tokens": completion.thinking_tokens},
            "total_tokens": completion.prompt_tokens + len(completion.ids),
        },
    }


def _item(block: Block, status: str) -> dict[str, Any]:
    """Return a block as an item of the output; one that has just opened has no content yet."""
    content = [_part(block)] if status != "in_progress" else []
    if block.kind == "text":
        head = {"id": f"msg_{block.index}", "type": "message", "role": "assistant"}
        return {**head, "status": status, "content": content}
    if block.kind == "thinking":
        return {"id": f"rs_{block.index}", "type": "reasoning", "summary": [], "status": status, "content": content}
    call = {"id": f"fc_{block.index}", "type": "function_call", "call_id": block.id, "name": block.name}
    return {**call, "arguments": block.text, "status": status}


def _part(block: Block) -> dict[str, Any]:
    if block.kind == "thinking":
        return {"type": "reasoning_text", "text": block.text}
    return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}


async def _events(talk: Conversation, head: dict[str, Any], pieces: Pieces) -> AsyncIterator[bytes]:
    numbered = _Numbered()
    yield numbered.event("response.created", response=head)
    yield numbered.event("response.in_progress", response=head)
    reader, answer = talk.reader(), AnswerBlocks()
    async for _, piece in pieces.of(talk.answers):
        for part in reader.of_piece(piece):
            for change in answer.add(part):
                for item in _changes(change, numbered):
                    yield item
    for change in answer.close():
        for item in _changes(change, numbered):
            yield item
    response = {**head, **_ending(talk.answers[0].result(), answer.blocks)}
    yield numbered.event(f"response.{response['status']}", response=response)


class _Numbered:
    """Gives each event of a stream its number."""

    def __init__(self) -> None:
        self._next = 0

    def event(self, kind: str, **fields: Any) -> bytes:
        number, self._next = self._next, self._next + 1
        return named_event(kind, {"type": kind, "sequence_number": number, **fields})


def _changes(change: Change, numbered: _Numbered) -> Iterator[bytes]:
    block = change.block
    at: dict[str, Any] = {"output_index": block.index}
    item = _item(block, "in_progress" if change.what == "open" else "completed")
    if change.what == "open":
        yield numbered.event("response.output_item.added", item=item, **at)
    at["item_id"] = item["id"]
    if block.kind == "call":
        yield from _call_changes(change, numbered, at)
    else:
        yield from _text_changes(change, numbered, {**at, "content_index": 0})
    if change.what == "close":
        yield numbered.event("response.output_item.done", item=item, output_index=block.index)


def _call_changes(change: Change, numbered: _Numbered, at: dict[str, Any]) -> Iterator[bytes]:
    kind = "response.function_call_arguments"
    if change.what == "grow":
        yield numbered.event(f"{kind}.delta", delta=change.text, **at)
    elif change.what == "close":
        yield numbered.event(f"{kind}.done", arguments=change.block.text, name=change.block.name, **at)


def _text_changes(change: Change, numbered: _Numbered, at: dict[str, Any]) -> Iterator[bytes]:
    block = change.block
    kind = "response.output_text" if block.kind == "text" else "response.reasoning_text"
    more: dict[str, Any] = {"logprobs": []} if block.kind == "text" else {}
    if change.what == "open":
        yield numbered.event("response.content_part.added", part={**_part(block), "text": ""}, **at)
    elif change.what == "grow":
        yield numbered.event(f"{kind}.delta", delta=change.text, **more, **at)
    else:
        yield numbered.event(f"{kind}.done", text=block.text, **more, **at)
        yield numbered.event("response.content_part.done", part=_part(block), **at)
