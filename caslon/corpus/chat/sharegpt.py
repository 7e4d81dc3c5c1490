"""ShareGPT records (`conversations` of `from` and `value`, `system`, `tools`) to rows and back.

Speakers are human, gpt, system and tool, and the names other tools give them; `function_call` is a tool call written as JSON.
"""

import json
from collections.abc import Mapping
from typing import Any

from caslon.corpus.chat.openai import call_of_text, read_tools
from caslon.corpus.chat.record import Message, UnfitError, with_extra

FIELDS = ("conversations", "system", "tools")
ROLE_OF = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bard": "assistant",
    "bing": "assistant", "model": "assistant", "system": "system", "tool": "tool", "observation": "tool",
    "function_response": "tool",
}  # fmt: skip
SPEAKER_OF = {"user": "human", "assistant": "gpt", "system": "system", "tool": "tool"}
KEPT_FIELDS = ("weight", "name", "tool_call_id", "reasoning_content")


def read(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the messages and tools of a record."""
    turns = record.get("conversations")
    if not isinstance(turns, list):
        raise UnfitError("'conversations' is no list")
    system = record.get("system") or ""
    if not isinstance(system, str):
        raise UnfitError("'system' is no text")
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": messages + [read_turn(turn) for turn in turns], "tools": read_tools(record.get("tools"))}


def write(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a row; a call beside a text becomes a turn of its own, tools become JSON text."""
    if "messages" not in row:
        raise UnfitError("it is no conversation")
    tools = {"tools": json.dumps(row["tools"], ensure_ascii=False)} if row.get("tools") else {}
    return {"conversations": [turn for message in row["messages"] for turn in written_turns(message)], **tools}


def read_turn(turn: Any) -> Message:
    """Return the message of a turn. An unknown speaker becomes an unknown role, for validation to name."""
    if not isinstance(turn, dict):
        raise UnfitError("a turn is no object")
    speaker, value = turn.get("from"), turn.get("value")
    message: Message = {
        "role": ROLE_OF.get(speaker, speaker) if isinstance(speaker, str) else speaker,
        "content": value,
    }
    if speaker == "function_call" and isinstance(value, str):
        message = {"role": "assistant", "content": "", "tool_calls": _calls(value)}
    message |= {key: turn[key] for key in KEPT_FIELDS if key in turn}
    return with_extra(message, {key: item for key, item in turn.items() if key not in {"from", "value", *KEPT_FIELDS}})


def written_turns(message: Message) -> list[dict[str, Any]]:
    """Return the turns of a message: one, or two when it has a text and tool calls."""
    rest = {key: message[key] for key in KEPT_FIELDS if key in message} | message.get("extra", {})
    turn = {"from": SPEAKER_OF.get(message["role"], message["role"]), "value": message.get("content")}
    calls = message.get("tool_calls")
    if not calls:
        return [{**turn, **rest}]
    called = {"from": "function_call", "value": _calls_text(calls), **rest}
    return [turn, called] if message.get("content") else [called]


def _calls(value: str) -> list[dict[str, Any]]:
    try:
        calls = json.loads(value)
    except ValueError:
        calls = None
    texts = [json.dumps(call, ensure_ascii=False) for call in calls] if isinstance(calls, list) and calls else [value]
    return [call_of_text(text) for text in texts]


def _calls_text(calls: list[Any]) -> str:
    """Return tool calls as JSON text: one object, or a list of several."""
    written = []
    for call in calls:
        function = call.get("function", {}) if isinstance(call, dict) else {}
        try:
            arguments = json.loads(function.get("arguments") or "{}")
        except (TypeError, ValueError):
            arguments = function.get("arguments")
        written.append({"name": function.get("name", ""), "arguments": arguments})
    return json.dumps(written[0] if len(written) == 1 else written, ensure_ascii=False)
