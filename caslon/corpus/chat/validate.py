"""Canonical rows become good rows and rejects, each with its row number and the reason.

Rules of form first (roles, contents, tool calls), then length, copies of earlier rows and items of evaluation sets. What is kept
can be trained on as it is.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from caslon.corpus.chat.record import ROLES, Message, Rejected, Row, all_messages, conversation_text
from caslon.corpus.contamination import Contamination, evaluation_texts
from caslon.corpus.dedup import Index, exact_key, find_duplicates, fingerprint, shingles_of_text
from caslon.corpus.settings import NearDuplicateSettings
from caslon.corpus.text_words import words_of

MINIMUM_ITEM_WORDS = 3  # shorter evaluation items ("yes", a name) are equal to too much


@dataclass(frozen=True)
class EvaluationItems:
    """The texts of evaluation files: whole ones by their words, and all runs of 13 words."""

    runs: Contamination = field(default_factory=Contamination)
    whole: Mapping[bytes, str] = field(default_factory=dict)  # exact key -> file

    @staticmethod
    def load(files: Iterable[str | Path]) -> "EvaluationItems":
        """Return the items of evaluation files."""
        texts = {str(file): list(evaluation_texts(file)) for file in files}
        whole: dict[bytes, str] = {}
        for name, items in texts.items():
            for item in items:
                if len(words_of(item)) >= MINIMUM_ITEM_WORDS:
                    whole.setdefault(exact_key(item), name)
        return EvaluationItems(Contamination.of_texts(texts), whole)

    def problem(self, row: Mapping[str, Any]) -> str | None:
        """Return which evaluation file a message of a row has words of, or None."""
        for message in all_messages(row) if self.runs.files else ():
            text = message.get("content")
            if not isinstance(text, str) or message["role"] == "system":
                continue
            file = self.whole.get(exact_key(text))
            if file:
                return f"a message is an item of {file}"
            shared = self.runs.shared(text)
            if shared:
                return f"13 words stand in {shared[1]} too: {shared[0]}"
        return None


@dataclass(frozen=True)
class Rules:
    """What is asked of rows beside their form. `length` counts a row in its `unit`; 0 as maximum is no limit."""

    merge_turns: bool = False
    maximum: int = 0
    length: Callable[[Row], int] = lambda row: len(conversation_text(row))
    unit: str = "characters"
    near_duplicates: NearDuplicateSettings = field(default_factory=NearDuplicateSettings)
    evaluation: EvaluationItems = field(default_factory=EvaluationItems)


@dataclass(frozen=True)
class Validation:
    """The good rows, the others, and how many turns were merged."""

    rows: tuple[Row, ...]
    rejected: tuple[Rejected, ...]
    merged_turns: int


def validate(numbered: Iterable[tuple[int, Row]], rules: Rules) -> Validation:
    """Return the rows that keep all rules; the first of several copies stays. Rows come with their number in the file."""
    kept: list[tuple[int, Row]] = []
    rejected: list[Rejected] = []
    merged = 0
    for number, given in numbered:
        row, joined = _with_merged_turns(given) if rules.merge_turns else (given, 0)
        problem = row_problem(row) or _length_problem(row, rules) or rules.evaluation.problem(row)
        if problem:
            rejected.append(Rejected(number, problem, _id(given)))
        else:
            merged += joined
            kept.append((number, row))
    copies = _copies([row for _, row in kept], [number for number, _ in kept], rules.near_duplicates)
    for place, reason in copies.items():
        rejected.append(Rejected(kept[place][0], reason, _id(kept[place][1])))
    rows = tuple(row for place, (_, row) in enumerate(kept) if place not in copies)
    return Validation(rows, tuple(sorted(rejected, key=lambda one: one.row)), merged)


def row_problem(row: object) -> str | None:
    """Return the first rule of form that a row breaks, or None."""
    if not isinstance(row, dict):
        return "a row must be a JSON object"
    if "chosen" in row or "rejected" in row:
        return _preference_problem(row)
    return _messages_problem(row.get("messages"), "messages") or _answer_problem(row["messages"])


def _preference_problem(row: Row) -> str | None:
    for key in ("chosen", "rejected"):
        if not all(isinstance(row.get(part), list) for part in ("prompt", key)):
            return f"'prompt' and '{key}' must be lists of messages"
        conversation = [*row["prompt"], *row[key]]
        problem = _messages_problem(conversation, key) or _answer_problem(row[key])
        if problem:
            return problem if problem.startswith(key) else f"{key}: {problem}"
    return "chosen and rejected are the same" if row["chosen"] == row["rejected"] else None


def _answer_problem(messages: Sequence[Message]) -> str | None:
    if any(message["role"] == "assistant" and message.get("weight", 1) for message in messages):
        return None
    return "there is no assistant turn to learn from"


def _messages_problem(messages: object, name: str) -> str | None:
    if not isinstance(messages, list) or not messages:
        return f"'{name}' is missing or empty"
    waiting: list[str | None] = []  # ids of calls; None for a call without id
    before = ""
    for number, message in enumerate(messages):
        problem = _message_problem(message) or _sequence_problem(message, before, waiting)
        if problem:
            return f"{name}[{number}]: {problem}"
        before = message["role"]
        waiting += [call.get("id") for call in message.get("tool_calls") or ()]
    return None


def _message_problem(message: object) -> str | None:
    if not isinstance(message, dict):
        return "a message must be a JSON object"
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls")
    if role not in ROLES:
        return f"the unknown role {role!r}; known: {', '.join(ROLES)}"
    if calls and role != "assistant":
        return f"a {role} message with tool calls"
    if content is not None and not isinstance(content, str):
        return "the content is no text"
    if calls:
        return _calls_problem(calls)
    return None if content and content.strip() else f"the {role} message is empty"


def _calls_problem(calls: object) -> str | None:
    if not isinstance(calls, list):
        return "'tool_calls' is no list"
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
            return "a tool call without function and arguments"
        try:
            arguments = json.loads(function["arguments"])
        except ValueError as error:
            return f"the arguments of a tool call are not JSON: {error}"
        if not isinstance(arguments, dict):
            return "the arguments of a tool call are no JSON object"
        if not isinstance(function.get("name"), str) or not function["name"]:
            return "a tool call without a function's name"
    return None


def _sequence_problem(message: Message, before: str, waiting: Sequence[str | None]) -> str | None:
    if message["role"] == "user" and before == "user":
        return "two user turns in a row"
    if message["role"] != "tool":
        return None
    wanted = message.get("tool_call_id")
    if not waiting or (wanted is not None and wanted not in waiting and None not in waiting):
        return f"a tool result without its call {wanted!r}" if wanted is not None else "a tool result without its call"
    return None


def _with_merged_turns(row: Row) -> tuple[Row, int]:
    """Return a row in which user turns that follow each other are one, with an empty line between, and how many were joined."""
    key = "messages" if "messages" in row else "prompt"
    messages, joined = row.get(key), 0
    if not isinstance(messages, list):
        return row, 0
    merged: list[Any] = []
    for message in messages:
        if merged and _is_user_text(message) and _is_user_text(merged[-1]):
            merged[-1] = {**merged[-1], "content": f"{merged[-1]['content']}\n\n{message['content']}"}
            joined += 1
        else:
            merged.append(message)
    return ({**row, key: merged}, joined) if joined else (row, 0)


def _is_user_text(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "user" and isinstance(message.get("content"), str)


def _length_problem(row: Row, rules: Rules) -> str | None:
    if not rules.maximum:
        return None
    length = rules.length(row)
    return f"{length} {rules.unit}, more than {rules.maximum}" if length > rules.maximum else None


def _copies(rows: Sequence[Row], numbers: Sequence[int], settings: NearDuplicateSettings) -> dict[int, str]:
    """Return why rows are copies of earlier ones, by place."""
    if not rows:
        return {}
    texts = [_spoken(row) for row in rows]
    prints = [fingerprint(text, settings) for text in texts]
    whole = [
        blake2b(found.exact + _unspoken(row), digest_size=16).digest() for found, row in zip(prints, rows, strict=True)
    ]
    count, width = len(rows), settings.permutations if settings.enabled else 0
    signatures = np.zeros((count, width), dtype=np.uint32)
    for place, found in enumerate(prints):
        if found.signature:
            signatures[place] = np.frombuffer(found.signature, dtype="<u4")
    index = Index(
        ids=np.arange(count, dtype=np.uint64),
        priorities=np.zeros(count, dtype=np.uint8),
        scores=np.zeros(count, dtype=np.float64),
        exact=np.array([np.frombuffer(key, dtype="<u8") for key in whole], dtype=np.uint64),
        signatures=signatures,
    )
    found_copies = find_duplicates(
        index, lambda place: shingles_of_text(texts[place], settings.shingle_words), settings
    )
    return {
        place: f"the same as row {numbers[copy.kept]}"
        if copy.exact
        else f"{copy.jaccard:.0%} like row {numbers[copy.kept]}"
        for place, copy in found_copies.items()
    }


def _spoken(row: Mapping[str, Any]) -> str:
    """Return what near copies are told by: all but system messages, which many rows share."""
    return "\n\n".join(str(one.get("content") or "") for one in all_messages(row) if one["role"] != "system")


def _unspoken(row: Mapping[str, Any]) -> bytes:
    """Return what else tells exact copies apart: tools, tool calls, system messages."""
    systems = [one.get("content") for one in all_messages(row) if one["role"] == "system"]
    calls = [one.get("tool_calls") for one in all_messages(row)]
    return json.dumps([row.get("tools"), systems, calls], sort_keys=True).encode()


def _id(row: Any) -> str:
    return str(row.get("id", "")) if isinstance(row, dict) else ""
