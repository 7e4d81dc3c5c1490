"""OpenAI's chat fields to Anthropic's messages, and its events back.

Source: https://docs.anthropic.com/en/api/messages-streaming
"""

import json
from collections.abc import AsyncIterator
from itertools import groupby

from caslon.server.upstream.failure import UpstreamFailure
from caslon.server.upstream.lines import Json, count_in, events_of, object_in, text_in
from caslon.server.upstream.pieces import Asked, CallDelta, Delta, Usage
from caslon.server.upstream.settings import UpstreamSettings

VERSION = "2023-06-01"
_SAME = ("temperature", "top_p", "top_k")
FIELDS = {"chat": {name: name for name in (*_SAME, "stop", "tools", "tool_choice", "parallel_tool_calls")}}
REASONS = {"max_tokens": "length", "model_context_window_exceeded": "length", "refusal": "content_filter"}
CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def headers(secret: str | None) -> dict[str, str]:
    """Return what shows the key and the version that is spoken."""
    return {"anthropic-version": VERSION, **({"x-api-key": secret} if secret else {})}


def refusal(asked: Asked, settings: UpstreamSettings) -> str | None:
    """Return the field whose value cannot be honoured: its temperatures end at 1, and it stops at no blank."""
    stop = asked.fields.get("stop", [])
    if any(not one.strip() for one in ([stop] if isinstance(stop, str) else stop)):
        return "stop"
    return "temperature" if asked.fields.get("temperature", 0) > 1 else None


def body(asked: Asked, model: str, settings: UpstreamSettings) -> tuple[str, Json]:
    """Return where to ask, and what."""
    fields = asked.fields
    whole: Json = {"model": model, "max_tokens": asked.params.max_tokens, "stream": True}
    whole |= {name: fields[name] for name in _SAME if name in fields}
    if stop := fields.get("stop"):
        whole["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    system = [one["content"] for one in fields["messages"] if one["role"] in ("system", "developer")]
    if system:
        whole["system"] = "\n\n".join(system)
    if fields.get("tools"):
        whole["tools"] = [_tool(tool["function"]) for tool in fields["tools"]]
        whole["tool_choice"] = _tool_choice(fields)
    whole["messages"] = _messages([one for one in fields["messages"] if one["role"] not in ("system", "developer")])
    return "/v1/messages", whole


def _tool(function: Json) -> Json:
    empty = {"type": "object", "properties": {}}
    described = {"description": function["description"]} if "description" in function else {}
    strict = {"strict": True} if function.get("strict") else {}
    return {"name": function["name"], **described, **strict, "input_schema": function.get("parameters", empty)}


def _tool_choice(fields: Json) -> Json:
    wanted = fields.get("tool_choice", "auto")
    named = not isinstance(wanted, str)
    choice = {"type": "tool", "name": wanted["function"]["name"]} if named else {"type": CHOICES[wanted]}
    if fields.get("parallel_tool_calls") is False and choice["type"] != "none":
        return {**choice, "disable_parallel_tool_use": True}
    return choice


def _messages(messages: list[Json]) -> list[Json]:
    """Return the turns: results of tools are the user's, and what one side says in a row is one turn."""
    turns = [
        ("assistant" if one["role"] == "assistant" else "user", block) for one in messages for block in _blocks(one)
    ]
    return [
        {"role": role, "content": [block for _, block in group]} for role, group in groupby(turns, lambda turn: turn[0])
    ]


def _blocks(message: Json) -> list[Json]:
    text = message.get("content") or ""
    if message["role"] == "tool":
        return [{"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": text}]
    blocks: list[Json] = [{"type": "text", "text": text}] if text else []
    for call in message.get("tool_calls", ()):
        function = call["function"]
        given = json.loads(function["arguments"] or "{}")
        blocks.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": given})
    return blocks


async def deltas(chunks: AsyncIterator[bytes], asked: Asked) -> AsyncIterator[Delta]:
    """Yield what the events say; `UpstreamFailure` when the last one is missing."""
    calls: dict[int, int] = {}  # number of a block -> of the call in it
    read = Usage()
    async for item in events_of(chunks):
        kind = None if item is None else item.get("type")
        if item is None or kind == "error":
            raise UpstreamFailure("failed", message="an error event")
        if kind == "message_start":
            read = _read(object_in(object_in(item.get("message")).get("usage")))
        elif kind == "content_block_start":
            if delta := _begun(item, calls):
                yield delta
        elif kind == "content_block_delta":
            yield _grown(item, calls)
        elif kind == "message_delta":
            reason = text_in(object_in(item.get("delta")).get("stop_reason"))
            written = count_in(object_in(item.get("usage")).get("output_tokens"))
            usage = Usage(read.prompt_tokens, written, read.cached_tokens)
            yield Delta(finish_reason=REASONS.get(reason, "stop"), usage=usage)
        elif kind == "message_stop":
            return
    raise UpstreamFailure("cut")


def _read(usage: Json) -> Usage:
    cached = count_in(usage.get("cache_read_input_tokens")) or 0
    fresh, stored = count_in(usage.get("input_tokens")), count_in(usage.get("cache_creation_input_tokens")) or 0
    return Usage(None if fresh is None else fresh + stored + cached, None, cached)


def _begun(item: Json, calls: dict[int, int]) -> Delta | None:
    block = object_in(item.get("content_block"))
    if block.get("type") == "tool_use":
        number = calls[count_in(item.get("index")) or 0] = len(calls)
        return Delta(calls=(CallDelta(number, text_in(block.get("id")), text_in(block.get("name"))),))
    if block.get("type") in ("text", "thinking", "redacted_thinking"):
        text, thinking = text_in(block.get("text")), text_in(block.get("thinking"))
        return Delta(text=text, thinking=thinking) if text or thinking else None
    raise UpstreamFailure("garbled", message="an unknown block")


def _grown(item: Json, calls: dict[int, int]) -> Delta:
    said = object_in(item.get("delta"))
    if said.get("type") == "input_json_delta":
        index = count_in(item.get("index")) or 0
        if index not in calls:
            raise UpstreamFailure("garbled", message="arguments of no call")
        return Delta(calls=(CallDelta(calls[index], arguments=text_in(said.get("partial_json"))),))
    return Delta(text=text_in(said.get("text")), thinking=text_in(said.get("thinking")))
