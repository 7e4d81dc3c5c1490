"""Preference pairs to rows and back: `prompt`, `chosen`, `rejected` as texts or messages, and ShareGPT's and Alpaca's forms.

Both answers may be whole conversations without a prompt (Anthropic's and TRL's implicit form): then what they begin with in
common is the prompt. A row has all three as lists of messages.
"""

from collections.abc import Mapping
from typing import Any

from caslon.corpus.chat import alpaca, completion, openai, sharegpt
from caslon.corpus.chat.record import Message, UnfitError

FIELDS = ("prompt", "chosen", "rejected", "conversations", "instruction", "input", "system", "history", "tools")


def read(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return prompt, chosen and rejected messages of a record."""
    chosen, rejected = _answer(record.get("chosen"), "chosen"), _answer(record.get("rejected"), "rejected")
    if "conversations" in record:
        body = sharegpt.read(record)
        prompt, tools = body["messages"], body["tools"]
    else:
        tools = openai.read_tools(record.get("tools"))
        if "instruction" in record:
            prompt = alpaca.read({**record, "output": ""})["messages"][:-1]
        elif isinstance(record.get("prompt"), str):
            prompt = [{"role": "user", "content": record["prompt"]}]
        elif isinstance(record.get("prompt"), list):
            prompt = openai.read_messages(record["prompt"])
        elif "prompt" not in record and len(chosen) > 1 and len(rejected) > 1:
            prompt = _common_beginning(chosen, rejected)
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
        else:
            raise UnfitError("'prompt' is neither a text nor a list of messages")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, "tools": tools}


def write(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a row: texts for one plain question and two answers, else lists of messages."""
    parts = {key: row.get(key) for key in ("prompt", "chosen", "rejected")}
    if not all(isinstance(messages, list) for messages in parts.values()):
        raise UnfitError("it has no chosen and rejected answer")
    tools = {"tools": row["tools"]} if row.get("tools") else {}
    roles = [[message["role"] for message in messages] for messages in parts.values() if messages is not None]
    if roles == [["user"], ["assistant"], ["assistant"]] and all(
        completion.is_plain(messages[0]) for messages in parts.values() if messages
    ):
        return {key: messages[0]["content"] for key, messages in parts.items() if messages} | tools
    return {key: openai.write_messages(messages or []) for key, messages in parts.items()} | tools


def _answer(given: Any, key: str) -> list[Message]:
    if isinstance(given, str):
        return [{"role": "assistant", "content": given}]
    if isinstance(given, dict):
        return [sharegpt.read_turn(given)] if "from" in given else openai.read_messages([given])
    if isinstance(given, list) and given:
        return openai.read_messages(given)
    raise UnfitError(f"'{key}' is neither a text nor a message")


def _common_beginning(first: list[Message], second: list[Message]) -> list[Message]:
    most = min(len(first), len(second)) - 1  # an answer is left on both sides
    same = next((place for place in range(most) if first[place] != second[place]), most)
    return first[:same]
