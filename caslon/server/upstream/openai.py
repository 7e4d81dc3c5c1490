"""OpenAI's own shape, for OpenAI, vLLM and llama-server: they differ in the fields they honour and in a few names.

Sources: https://platform.openai.com/docs/api-reference, https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html,
https://github.com/ggml-org/llama.cpp/tree/master/tools/server
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from caslon.server.upstream.failure import UpstreamFailure
from caslon.server.upstream.lines import Json, count_in, events_of, object_in, objects_in, text_in
from caslon.server.upstream.pieces import Api, Asked, CallDelta, Delta, Usage
from caslon.server.upstream.settings import UpstreamSettings

PATHS: Mapping[Api, str] = {"chat": "/v1/chat/completions", "completion": "/v1/completions"}
_OWN = {
    name: name
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "stop", "seed", "n")
}
_TOOLS = {name: name for name in ("tools", "tool_choice", "parallel_tool_calls", "response_format")}
_CHAT = {**_OWN, **_TOOLS, "logprobs": "logprobs", "top_logprobs": "top_logprobs"}
_TEXT = {**_OWN, "logprobs": "logprobs"}
_OPEN = {"top_k": "top_k", "min_p": "min_p", "ignore_eos": "ignore_eos"}
_VLLM = {
    **_OPEN,
    "repetition_penalty": "repetition_penalty",
    "min_tokens": "min_tokens",
    "stop_token_ids": "stop_token_ids",
    "include_stop": "include_stop_str_in_output",
    "skip_special_tokens": "skip_special_tokens",
}
_LLAMA = {**_OPEN, "repetition_penalty": "repeat_penalty"}
_TEMPLATE = {"chat_template_kwargs": "chat_template_kwargs"}

OPENAI = {"chat": {**_CHAT, "reasoning_effort": "reasoning_effort"}, "completion": {**_TEXT, "suffix": "suffix"}}
VLLM = {"chat": {**_CHAT, **_VLLM, **_TEMPLATE}, "completion": {**_TEXT, **_VLLM, "response_format": "response_format"}}
LLAMA_SERVER = {
    "chat": {name: there for name, there in {**_CHAT, **_LLAMA, **_TEMPLATE}.items() if name != "n"},
    "completion": {name: there for name, there in {**_TEXT, **_LLAMA}.items() if name != "n"},
}
JSON_FORMS = ("text", "json_object", "json_schema")


def headers(secret: str | None) -> dict[str, str]:
    """Return what shows the key."""
    return {"authorization": f"Bearer {secret}"} if secret else {}


def refusal(asked: Asked, settings: UpstreamSettings) -> str | None:
    """Return the field whose value cannot be honoured."""
    form = asked.fields.get("response_format", {}).get("type", "text")
    allowed = (*JSON_FORMS, "regex", "choice", "grammar") if settings.kind == "vllm" else JSON_FORMS
    return None if form in allowed else "response_format"


def body(asked: Asked, model: str, settings: UpstreamSettings) -> tuple[str, Json]:
    """Return where to ask, and what."""
    names = {"vllm": VLLM, "llama-server": LLAMA_SERVER}.get(settings.kind, OPENAI)[asked.api]
    fields = {names[name]: value for name, value in asked.fields.items() if name in names}
    form = fields.get("response_format", {})
    if form.get("type") in ("regex", "choice", "grammar"):
        del fields["response_format"]
        fields["structured_outputs"] = {form["type"]: form[form["type"]]}
    longest = "max_completion_tokens" if settings.kind == "openai" and asked.api == "chat" else "max_tokens"
    prompt = {"messages": _messages(asked, settings)} if asked.api == "chat" else {"prompt": asked.fields["prompt"]}
    more = {longest: asked.params.max_tokens, "stream": True, "stream_options": {"include_usage": True}}
    return PATHS[asked.api], {"model": model, **prompt, **fields, **more}


def _messages(asked: Asked, settings: UpstreamSettings) -> list[Json]:
    # OpenAI itself knows no earlier thoughts and refuses the field.
    left_out = {"reasoning_content"} if settings.kind == "openai" else set()
    return [{k: v for k, v in message.items() if k not in left_out} for message in asked.fields["messages"]]


async def deltas(chunks: AsyncIterator[bytes], asked: Asked) -> AsyncIterator[Delta]:
    """Yield what the stream says; `UpstreamFailure` when it ends before all answers have."""
    open_choices = set(range(asked.choices))
    async for item in events_of(chunks):
        if item is None:
            break
        if item.get("error"):
            raise UpstreamFailure("failed", message="an error event")
        for choice in objects_in(item.get("choices")):
            delta = _delta(choice, asked)
            if delta.finish_reason:
                open_choices.discard(delta.choice)
            yield delta
        if item.get("usage"):
            yield Delta(usage=_usage(object_in(item["usage"])))
    if open_choices:
        raise UpstreamFailure("cut")


def _delta(choice: Json, asked: Asked) -> Delta:
    index = count_in(choice.get("index")) or 0
    if index >= asked.choices:
        raise UpstreamFailure("garbled", message="an answer nobody asked for")
    reason = text_in(choice.get("finish_reason")) or None
    if asked.api == "completion":
        return Delta(index, text_in(choice.get("text")), logprobs=choice.get("logprobs"), finish_reason=reason)
    said = object_in(choice.get("delta"))
    text = text_in(said.get("content")) or text_in(said.get("refusal"))
    thinking = text_in(said.get("reasoning_content")) or text_in(said.get("reasoning"))
    calls = tuple(_call(call) for call in objects_in(said.get("tool_calls")))
    return Delta(index, text, thinking, calls, choice.get("logprobs"), reason)


def _call(call: Json) -> CallDelta:
    function = object_in(call.get("function"))
    name, arguments = text_in(function.get("name")), text_in(function.get("arguments"))
    return CallDelta(count_in(call.get("index")) or 0, text_in(call.get("id")), name, arguments)


def _usage(usage: Json) -> Usage:
    read: Any = object_in(usage.get("prompt_tokens_details"))
    written: Any = object_in(usage.get("completion_tokens_details"))
    return Usage(
        count_in(usage.get("prompt_tokens")),
        count_in(usage.get("completion_tokens")),
        count_in(read.get("cached_tokens")) or 0,
        count_in(written.get("reasoning_tokens")) or 0,
    )
