"""Alpaca records (`instruction`, `input`, `output`, and LLaMA-Factory's `system` and `history`) to rows and back."""

from collections.abc import Mapping
from typing import Any

from caslon.corpus.chat.record import Message, UnfitError

FIELDS = ("instruction", "input", "output", "system", "history")
SEPARATOR = "\n\n"


def read(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the messages of a record; instruction and input become one user turn with a blank line between."""
    instruction, output = _text(record, "instruction"), _text(record, "output")
    given, system, history = record.get("input") or "", record.get("system") or "", record.get("history") or []
    if not isinstance(given, str) or not isinstance(system, str):
        raise UnfitError("'input' and 'system' must be texts")
    if not isinstance(history, list):
        raise UnfitError("'history' is no list")
    messages = [{"role": "system", "content": system}] if system else []
    for pair in history:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise UnfitError("'history' must be a list of [question, answer]")
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    question = instruction + SEPARATOR + given if given else instruction
    messages += [{"role": "user", "content": question}, {"role": "assistant", "content": output}]
    return {"messages": messages}


def write(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a row: turns before the last two become the history. `UnfitError` for anything but plain turns."""
    messages = plain_turns(row)
    system = [message["content"] for message in messages if message["role"] == "system"]
    *earlier, question, answer = messages[len(system) :]
    record: dict[str, Any] = {"instruction": question["content"], "input": "", "output": answer["content"]}
    if system:
        record["system"] = system[0]
    if earlier:
        texts = [message["content"] for message in earlier]
        record["history"] = [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    return record


def plain_turns(row: Mapping[str, Any]) -> list[Message]:
    """Return the messages of a row of texts: perhaps a system message, then question and answer in turn."""
    messages = list(row.get("messages", ()))
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or turns != ["user", "assistant"] * (len(turns) // 2):
        raise UnfitError("the turns are not question and answer in turn")
    if row.get("tools") or any(not isinstance(one.get("content"), str) or one.get("tool_calls") for one in messages):
        raise UnfitError("it holds more than texts")
    return messages


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise UnfitError(f"'{key}' is no text")
    return value
