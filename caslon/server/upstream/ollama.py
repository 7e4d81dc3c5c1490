"""OpenAI's fields to Ollama's own API, which alone lets a caller set the window, and its lines back.

Ollama cuts prompts that do not fit unless it is told not to; it is told.
Source: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

from caslon.server.upstream.failure import UpstreamFailure
from caslon.server.upstream.lines import Json, count_in, object_in, objects_in, objects_of, text_in
from caslon.server.upstream.pieces import Asked, CallDelta, Delta, Usage
from caslon.server.upstream.settings import UpstreamSettings

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
    "stop": "stop",
}
FIELDS = {
    "chat": {**_OPTIONS, "tools": "tools", "response_format": "format", "thinking": "think"},
    "completion": {**_OPTIONS, "suffix": "suffix", "response_format": "format"},
}
REASONS = {"length": "length"}


def headers(secret: str | None) -> dict[str, str]:
    """Return what shows the key."""
    return {"authorization": f"Bearer {secret}"} if secret else {}


def refusal(asked: Asked, settings: UpstreamSettings) -> str | None:
    """Return the field whose value cannot be honoured."""
    form = asked.fields.get("response_format", {}).get("type", "text")
    if form not in ("text", "json_object", "json_schema"):
        return "response_format"
    return None if isinstance(asked.fields.get("prompt", ""), str) else "prompt"


def body(asked: Asked, model: str, settings: UpstreamSettings) -> tuple[str, Json]:
    """Return where to ask, and what."""
    fields = asked.fields
    options = {there: fields[name] for name, there in _OPTIONS.items() if name in fields}
    options |= {"num_ctx": settings.context_tokens, "num_predict": asked.params.max_tokens}
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    whole: Json = {"model": model, "stream": True, "options": options, "truncate": False, "shift": False}
    form = fields.get("response_format", {})
    if form.get("type") == "json_object":
        whole["format"] = "json"
    elif form.get("type") == "json_schema":
        whole["format"] = form["json_schema"].get("schema", "json")
    if asked.api == "completion":
        more = {"suffix": fields["suffix"]} if "suffix" in fields else {"raw": True}  # else a template is put around it
        return "/api/generate", {**whole, "prompt": fields["prompt"], **more}
    if fields.get("thinking") == "off":
        whole["think"] = False
    if fields.get("tools"):
        whole["tools"] = fields["tools"]
    return "/api/chat", {**whole, "messages": _messages(fields["messages"])}


def _messages(messages: list[Json]) -> list[Json]:
    """Return messages with calls as Ollama has them: arguments are objects, and a result names its function."""
    names: dict[str, str] = {}
    found = []
    for message in messages:
        one: Json = {"role": message["role"], "content": message.get("content") or ""}
        if calls := message.get("tool_calls"):
            names |= {call["id"]: call["function"]["name"] for call in calls}
            one["tool_calls"] = [{"function": _with_object(call["function"])} for call in calls]
        if "tool_call_id" in message:
            one["tool_name"] = names.get(message["tool_call_id"], "")
        if "reasoning_content" in message:
            one["thinking"] = message["reasoning_content"]
        found.append(one)
    return found


def _with_object(function: Json) -> Json:
    return {"name": function["name"], "arguments": json.loads(function["arguments"] or "{}")}


async def deltas(chunks: AsyncIterator[bytes], asked: Asked) -> AsyncIterator[Delta]:
    """Yield what the lines say; `UpstreamFailure` when the last one is missing."""
    calls = 0
    async for item in objects_of(chunks):
        if "error" in item:
            raise UpstreamFailure("failed", message="an error line")
        said = object_in(item.get("message"))
        text = text_in(said.get("content")) or text_in(item.get("response"))
        found = tuple(_call(calls + place, call) for place, call in enumerate(objects_in(said.get("tool_calls"))))
        calls += len(found)
        thinking = text_in(said.get("thinking")) or text_in(item.get("thinking"))
        if item.get("done") is not True:
            yield Delta(0, text, thinking, found)
            continue
        reason = REASONS.get(text_in(item.get("done_reason")), "stop")
        usage = Usage(count_in(item.get("prompt_eval_count")), count_in(item.get("eval_count")))
        yield Delta(0, text, thinking, found, finish_reason=reason, usage=usage)
        return
    raise UpstreamFailure("cut")


def _call(index: int, call: Json) -> CallDelta:
    function = object_in(call.get("function"))
    arguments: Any = object_in(function.get("arguments"))
    text = json.dumps(arguments, ensure_ascii=False)
    return CallDelta(index, f"call_{uuid.uuid4().hex[:24]}", text_in(function.get("name")), text)
