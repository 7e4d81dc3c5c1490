"""Conversations to ids: the one path that training, serving and counting share.

Contents are plain text and the template's own tokens are inserted by id, so no content can forge a turn. A special spelling
inside a content is broken by a private-use character while the template renders, and mended before it is encoded; the
template's own spellings are not, and become ids.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from caslon.errors import UserError
from caslon.tokenizer.template import REASONING_FIELDS, render

if TYPE_CHECKING:
    from caslon.tokenizer.tokenizer import Tokenizer

Message = Mapping[
    str, Any
]  # {"role": ..., "content": ...} and, where there are, tool_calls, tool_call_id, reasoning_content

_PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True)
class EncodedChat:
    """A conversation as ids.

    `assistant_mask` is true for the ids the assistant wrote, the end of its turn included: the ones a loss counts. `ranges` has
    the half-open range of ids of each message; it is empty, and the mask false throughout, when a foreign template
    rewrites earlier turns as the conversation grows, so that no message has a range of its own.
    """

    ids: list[int]
    assistant_mask: list[bool]
    ranges: list[tuple[int, int]]


def encode_chat(
    tokenizer: "Tokenizer",
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    drop_earlier_thinking: bool = False,
    context: int | None = None,
    variables: Mapping[str, Any] | None = None,
) -> EncodedChat:
    """Return a conversation's ids, assistant mask and message ranges in the tokenizer's chat template.

    The ids equal those of transformers' `apply_chat_template` for contents without special spellings. `drop_earlier_thinking`
    leaves out the reasoning of all turns before the last user message. `variables` are further ones of the template.
    `UserError` for no messages, an unknown role, a tool
    result without its call, a template that fails, or more ids than `context`: nothing is ever cut.
    """
    check_messages(messages)
    encoded = _encoded(
        tokenizer,
        _without_earlier_thinking(messages) if drop_earlier_thinking else messages,
        add_generation_prompt,
        tools,
        variables,
    )
    if context is not None and len(encoded.ids) > context:
        raise UserError(
            f"the conversation has {len(encoded.ids):,} tokens, the context {context:,}",
            fix="shorten the conversation, or use a model with a longer context",
        )
    return encoded


def _encoded(
    tokenizer: "Tokenizer",
    messages: Sequence[Message],
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] | None,
    variables: Mapping[str, Any] | None,
) -> EncodedChat:
    chat = _MarkedChat.of(tokenizer, messages, tools, variables)
    text = chat.text(len(messages), prompt=add_generation_prompt)
    ids, starts = _ids_and_starts(tokenizer, text, chat.mark)
    bounds = _message_bounds(chat, text, messages)
    if bounds is None:
        return EncodedChat(ids, [False] * len(ids), [])
    places = [bisect_left(starts, bound.end) for bound in bounds]
    ranges = list(pairwise([_first_message_place(tokenizer, chat, text, ids, starts), *places]))
    mask = [False] * len(ids)
    for message, bound, (start, end) in zip(messages, bounds, ranges, strict=True):
        if message["role"] == "assistant":
            first = max(start, bisect_left(starts, bound.written_from))
            last = _end_of_turn(tokenizer, ids, first, end)
            mask[first:last] = [True] * (last - first)
    return EncodedChat(ids, mask, ranges)


def check_messages(messages: Sequence[Message]) -> None:
    """Raise `UserError` for what no template can make sense of."""
    if not messages:
        raise UserError("the conversation has no messages", fix="send at least one message")
    calls: set[str] = set()
    called = False
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise UserError("a message needs a role", where=where, fix='send {"role": "user", "content": "..."}')
        if message.get("content") is None and not message.get("tool_calls"):
            raise UserError("a message needs a content", where=where, fix='send {"role": "user", "content": "..."}')
        made = message.get("tool_calls") or ()
        called = called or bool(made)
        calls.update(call["id"] for call in made if call.get("id"))
        if message["role"] == "tool":
            _check_tool_result(message, called, calls, where)


def _check_tool_result(message: Message, called: bool, calls: set[str], where: str) -> None:
    wanted = message.get("tool_call_id")
    if not called or (wanted and calls and wanted not in calls):
        name = f" {wanted!r}" if wanted else ""
        raise UserError(
            f"a tool result without its call{name}",
            where=where,
            fix="send the assistant message with the tool_calls before it",
        )


@dataclass(frozen=True)
class _MarkedChat:
    """A conversation whose contents spell no special token any more: `mark` stands inside each such spelling."""

    tokenizer: "Tokenizer"
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] | None
    variables: Mapping[str, Any]
    mark: str

    @staticmethod
    def of(
        tokenizer: "Tokenizer",
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        variables: Mapping[str, Any] | None,
    ) -> "_MarkedChat":
        if tokenizer.chat_template is None:
            raise UserError(
                "this tokenizer has no chat template",
                fix="use a model that was trained on conversations, or add a chat_template.jinja to its folder",
            )
        mark = _unused_character(
            [tokenizer.chat_template, *_strings(messages), *_strings(tools or ()), *_strings(variables or {})]
        )
        marks = _Marks(mark, tokenizer.special_spellings, tokenizer.special_beginnings)
        plain_tools = marks.put(list(tools or ())) or None
        return _MarkedChat(tokenizer, marks.put(list(messages)), plain_tools, marks.put(dict(variables or {})), mark)

    def text(self, count: int, *, prompt: bool = False) -> str:
        """Return the rendered text of the first `count` messages."""
        assert self.tokenizer.chat_template is not None
        return render(
            self.tokenizer.chat_template,
            self.messages[:count],
            add_generation_prompt=prompt,
            tools=self.tools,
            names={**self.variables, **self.tokenizer.special_role_tokens},
        )


@dataclass(frozen=True)
class _Bound:
    """Where a message's text ends, and where the part its author wrote begins, in characters without marks."""

    end: int
    written_from: int


def _message_bounds(chat: _MarkedChat, text: str, messages: Sequence[Message]) -> list[_Bound] | None:
    """Return the bounds of each message, found by rendering ever longer parts; None when those are not parts of the text."""
    bounds = []
    for place, message in enumerate(messages):
        try:
            head = chat.text(place + 1)
            opened = chat.text(place, prompt=True) if message["role"] == "assistant" else ""
        except UserError:  # a template that wants, say, a question first refuses a part, not the whole
            return None
        if not text.startswith(head) or not head.startswith(opened):
            return None
        bounds.append(_Bound(_length(head, chat.mark), _length(opened, chat.mark)))
    return bounds


def _length(text: str, mark: str) -> int:
    return len(text) - text.count(mark)


def _first_message_place(
    tokenizer: "Tokenizer", chat: _MarkedChat, text: str, ids: Sequence[int], starts: Sequence[int]
) -> int:
    """Return where the first message begins: behind the start of text, and behind a turn of its own that lists the tools."""
    try:
        opening = chat.text(0)
    except UserError:  # most foreign templates want a message
        opening = ""
    if opening and text.startswith(opening):
        return bisect_left(starts, _length(opening, chat.mark))
    return 1 if ids and ids[0] == tokenizer.start_of_text_id else 0


def _without_earlier_thinking(messages: Sequence[Message]) -> list[Message]:
    last_user = max((place for place, message in enumerate(messages) if message["role"] == "user"), default=-1)
    return [
        {name: value for name, value in message.items() if place >= last_user or name not in REASONING_FIELDS}
        for place, message in enumerate(messages)
    ]


def _end_of_turn(tokenizer: "Tokenizer", ids: Sequence[int], first: int, end: int) -> int:
    """Return the place after the last id that closes the turn: what a template adds after it (a line break) is not learned."""
    for place in range(end - 1, first - 1, -1):
        if ids[place] in tokenizer.stop_ids:
            return place + 1
    return end


def _ids_and_starts(tokenizer: "Tokenizer", text: str, mark: str) -> tuple[list[int], list[int]]:
    """Return the ids of a rendered text and the character (marks not counted) at which each begins."""
    if mark not in text:
        encoding = tokenizer.encoding(text, allow_special=True)
        return list(encoding.ids), [start for start, _ in encoding.offsets]
    ids: list[int] = []
    starts: list[int] = []
    at = 0
    for stretch, special_id in _stretches(tokenizer, text):
        plain = stretch.replace(mark, "")
        if special_id is not None:
            ids.append(special_id)
            starts.append(at)
        else:
            encoding = tokenizer.encoding(plain, allow_special=False)
            ids.extend(encoding.ids)
            starts.extend(at + start for start, _ in encoding.offsets)
        at += len(plain)
    return ids, starts


def _stretches(tokenizer: "Tokenizer", text: str) -> Iterator[tuple[str, int | None]]:
    at = 0
    for found in tokenizer.special_spellings.finditer(text):
        if found.start() > at:
            yield text[at : found.start()], None
        yield found[0], tokenizer.special_tokens[found[0]]
        at = found.end()
    if at < len(text):
        yield text[at:], None


@dataclass(frozen=True)
class _Marks:
    """Breaks the special spellings in the strings of a JSON value."""

    mark: str
    spellings: re.Pattern[str]
    beginnings: tuple[str, ...]

    def put(self, value: Any) -> Any:
        """Return the value with a mark in each spelling, and after each beginning of one that a template might complete."""
        if isinstance(value, str):
            broken = self.spellings.sub(lambda found: found[0][0] + self.mark + found[0][1:], value)
            return broken + self.mark if broken.endswith(self.beginnings) else broken
        if isinstance(value, Mapping):
            return {self.put(key): self.put(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.put(item) for item in value]
        return value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, Iterable):
        for item in value:
            yield from _strings(item)


def _unused_character(texts: Sequence[str]) -> str:
    used = {character for text in texts if not text.isascii() for character in text}
    return next(chr(code) for code in _PRIVATE_USE if chr(code) not in used)
