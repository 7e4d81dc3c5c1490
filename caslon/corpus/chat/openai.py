"""OpenAI records (`messages`, `tools`) to rows and back; contents in parts, old function calls and JSON as text included.

A content of text parts becomes one text, reasoning and tool calls in parts their own fields (LLaMA-Factory); parts that are no
text make a record unfit. Arguments become JSON text, as OpenAI's API has them.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from caslon.corpus.chat.record import Message, UnfitError, with_extra

FIELDS = ("messages", "tools")
MESSAGE_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name", "weight", "reasoning_content")
OTHER_ROLES = {"developer": "system", "function": "tool"}


def read(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the messages and tools of a record."""
    messages = record.get("messages")
    if not isinstance(messages, list):
        raise UnfitError("'messages' is no list")
    return {"messages": read_messages(messages), "tools": read_tools(record.get("tools"))}


def write(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a row; calls and their results get the ids the API asks for where they have none."""
    if "messages" not in row:
        raise UnfitError("it is no conversation")
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    return {"messages": _with_call_ids(write_messages(row["messages"])), **tools}


def read_messages(messages: Sequence[Any]) -> list[Message]:
    """Return canonical messages; unknown roles and wrong types are left for validation to name."""
    return [_read_message(message) for message in messages]


def write_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return messages in OpenAI's shape, with the fields this form does not know beside the others."""
    return [
        {**{key: value for key, value in message.items() if key != "extra"}, **message.get("extra", {})}
        for message in messages
    ]


def read_tools(given: Any) -> list[Any]:
    """Return tools (a list, a list as JSON text, or bare functions) as a list of OpenAI's shape."""
    try:
        tools = json.loads(given) if isinstance(given, str) and given.strip() else given or []
    except ValueError as error:
        raise UnfitError(f"'tools' is not JSON: {error}") from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UnfitError("'tools' is no list of objects")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]


def call_of_text(text: str) -> dict[str, Any]:
    """Return the tool call that is written as JSON text; one that is no such thing keeps the text as its arguments."""
    try:
        call = json.loads(text)
    except ValueError:
        call = None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or "arguments" not in call:
        return {"type": "function", "function": {"name": "", "arguments": text}}
    return {"type": "function", "function": {"name": call["name"], "arguments": _json_text(call["arguments"])}}


def _read_message(given: Any) -> Message:
    if not isinstance(given, dict):
        raise UnfitError("a message is no object")
    role = given.get("role")
    message: Message = {"role": OTHER_ROLES.get(role, role) if isinstance(role, str) else role}
    message |= {key: given[key] for key in MESSAGE_FIELDS if key in given and key != "role"}
    extra = {key: value for key, value in given.items() if key not in MESSAGE_FIELDS}
    if isinstance(message.get("content"), list):
        message |= _parts(message["content"])
    if isinstance(extra.get("function_call"), dict):  # OpenAI's form before there were tools
        message["tool_calls"] = [{"type": "function", "function": extra.pop("function_call")}]
    if isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [_read_call(call) for call in message["tool_calls"]]
    if role == "assistant" and extra.get("loss_weight") == 0:  # LLaMA-Factory
        message.setdefault("weight", 0)
    return with_extra(message, extra)


def _parts(content: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of a message whose content comes in parts."""
    values: dict[Any, list[str]] = {"text": [], "reasoning": [], "tool_call": []}
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        value = part.get("text", part.get("value")) if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in values or not isinstance(value, str):
            raise UnfitError(f"a content part of type {kind!r} is no text")
        values[kind].append(value)
    fields: dict[str, Any] = {"content": "".join(values["text"])}
    if values["reasoning"]:
        fields["reasoning_content"] = "\n\n".join(values["reasoning"])
    if values["tool_call"]:
        fields["tool_calls"] = [call_of_text(call) for call in values["tool_call"]]
    return fields


def _read_call(call: Any) -> Any:
    """Return a tool call with its arguments as JSON text; what is no call at all is left for validation to name."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or isinstance(function.get("arguments", ""), str):
        return call
    return {**call, "function": {**function, "arguments": _json_text(function["arguments"])}}


def _json_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _with_call_ids(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages in which every tool call has an id and every result the id of its call, in their order."""
    waiting: list[Any] = []
    count = 0
    for message in messages:
        calls = message.get("tool_calls")
        if isinstance(calls, list) and all(isinstance(call, dict) for call in calls):
            message["tool_calls"] = [
                {"id": f"call_{count + place}", **call} for place, call in enumerate(calls, start=1)
            ]
            count += len(calls)
            waiting += [call["id"] for call in message["tool_calls"]]
        if message.get("role") == "tool" and "tool_call_id" not in message and waiting:
            message["tool_call_id"] = waiting.pop(0) if len(waiting) > 1 else waiting[0]
    return messages
