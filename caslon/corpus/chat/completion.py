"""Pairs of `prompt` and `completion`, as texts or as lists of messages (TRL), to rows and back."""

from collections.abc import Mapping
from typing import Any

from caslon.corpus.chat import openai
from caslon.corpus.chat.record import UnfitError

FIELDS = ("prompt", "completion", "tools")


def read(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the messages of a pair: the prompt is the user's turn, the completion the assistant's."""
    prompt, completion = record.get("prompt"), record.get("completion")
    tools = openai.read_tools(record.get("tools"))
    if isinstance(prompt, str) and isinstance(completion, str):
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    elif isinstance(prompt, list) and isinstance(completion, list):
        messages = openai.read_messages(prompt) + openai.read_messages(completion)
    else:
        raise UnfitError("'prompt' and 'completion' must both be texts or both be lists of messages")
    return {"messages": messages, "tools": tools}


def write(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pair of a row: texts for one plain question and answer, else lists of messages."""
    messages = row.get("messages", ())
    if not messages or messages[-1]["role"] != "assistant":
        raise UnfitError("the last turn is not the assistant's")
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    if [message["role"] for message in messages] == ["user", "assistant"] and all(map(is_plain, messages)):
        return {"prompt": messages[0]["content"], "completion": messages[1]["content"], **tools}
    written = openai.write_messages(messages)
    return {"prompt": written[:-1], "completion": written[-1:], **tools}


def is_plain(message: Mapping[str, Any]) -> bool:
    """Return whether a message is a role and a text and nothing more."""
    return set(message) == {"role", "content"} and isinstance(message["content"], str)
