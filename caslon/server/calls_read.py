"""The text of tool calls to names and arguments, piece by piece as it is written."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

STRING = r'"(?:[^"\\]|\\.)*"'


@dataclass(frozen=True)
class CallBegins:
    """A call, whose name is known."""

    name: str


@dataclass(frozen=True)
class CallArguments:
    """A further part of the arguments' JSON text."""

    text: str


@dataclass(frozen=True)
class NotACall:
    """Text that turned out to be none."""

    text: str


CallEvent = CallBegins | CallArguments | NotACall


class CallReader:
    """Reads `{"name": ..., "arguments": ...}`, or a list of them, from text that comes in pieces.

    Arguments are passed on as they are written. A call whose arguments come first is passed on when it is whole, and what is no
    call at all comes back as text.
    """

    def __init__(self, arguments: str = "arguments") -> None:
        self._key = arguments
        self._head = re.compile(
            rf'[\s,\[]*\{{\s*"name"\s*:\s*(?P<name>{STRING})\s*,\s*"{arguments}"\s*:\s*(?=[^\s])', re.DOTALL
        )
        self._text = ""
        self._value: _ValueEnd | None = None  # while arguments are being passed on
        self._closing: _ValueEnd | None = None  # while the rest of the call is passed over

    def push(self, text: str) -> Iterator[CallEvent]:
        """Add text; yield what it settles."""
        self._text += text
        while True:
            before = (self._text, self._value, self._closing)
            if self._value is not None:
                yield from self._pass_on(self._value)
            elif self._closing is not None:
                self._pass_over(self._closing)
            else:
                yield from self._begin()
            if before == (self._text, self._value, self._closing):
                return

    def finish(self) -> Iterator[CallEvent]:
        """Yield what the end settles: a call in another order, or text that is no call."""
        rest, self._text = self._text, ""
        if self._value is not None or self._closing is not None or not rest.strip(" \n\t,[]"):
            return
        try:
            value = json.loads(rest)
        except ValueError:
            yield NotACall(rest)
            return
        for call in value if isinstance(value, list) else [value]:
            if isinstance(call, dict) and isinstance(call.get("name"), str):
                yield CallBegins(call["name"])
                yield CallArguments(json.dumps(call.get(self._key, {}), ensure_ascii=False))
            else:
                yield NotACall(json.dumps(call, ensure_ascii=False))

    def _begin(self) -> Iterator[CallEvent]:
        head = self._head.match(self._text)
        if head is not None:
            self._text = self._text[head.end() :]
            self._value = _ValueEnd()
            yield CallBegins(json.loads(head["name"], strict=False))

    def _pass_on(self, value: "_ValueEnd") -> Iterator[CallEvent]:
        end = value.find(self._text)
        part, self._text = (self._text, "") if end is None else (self._text[:end], self._text[end:])
        if part:
            yield CallArguments(part)
        if end is not None:
            self._value, self._closing = None, _ValueEnd(depth=1)

    def _pass_over(self, closing: "_ValueEnd") -> None:
        end = closing.find(self._text)
        self._text = "" if end is None else self._text[end:]
        if end is not None:
            self._closing = None


class _ValueEnd:
    """Finds the end of a JSON value over pieces of its text."""

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._in_string = False
        self._escaped = False

    def find(self, text: str) -> int | None:
        """Return the place after the value's last character, None when it is still to come. Each text is seen once."""
        for place, character in enumerate(text):
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._in_string = False
                    if self._depth == 0:
                        return place + 1
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:  # below: the call ended right after a bare value
                    return place + (self._depth == 0)
            elif character in ", \n\t" and self._depth == 0:
                return place
        return None


class TextCalls:
    """Finds calls in running text where no token marks them: between two spellings, or an answer that is a call itself."""

    def __init__(self, opening: str, closing: str) -> None:
        self._opening = opening
        self._closing = closing
        self._inside = False
        self._held = ""
        self._begun = False

    def push(self, text: str) -> Iterator[tuple[bool, str]]:
        """Add text; yield parts, each with whether it belongs to a call. A part that may be a spelling's beginning waits."""
        self._held += text
        if not self._opening:
            yield from self._whole_answer()
            return
        while True:
            spelling = self._closing if self._inside else self._opening
            if not spelling:  # such a call goes on to the end
                yield self._inside, self._held
                self._held = ""
                return
            before, found, rest = self._held.partition(spelling)
            if not found:
                waiting = _beginning_at_end(self._held, spelling)
                ready, self._held = self._held[: len(self._held) - waiting], self._held[len(self._held) - waiting :]
                if ready:
                    yield self._inside, ready
                return
            yield self._inside, before
            self._inside, self._held = not self._inside, rest

    def finish(self) -> Iterator[tuple[bool, str]]:
        """Yield what was held back."""
        if self._held:
            yield self._inside, self._held
            self._held = ""

    def _whole_answer(self) -> Iterator[tuple[bool, str]]:
        if not self._begun:
            start = self._held.lstrip()
            if not start:
                return
            self._begun = True
            self._inside = start.startswith("{")
        yield self._inside, self._held
        self._held = ""


def _beginning_at_end(text: str, spelling: str) -> int:
    for length in range(min(len(text), len(spelling) - 1), 0, -1):
        if text.endswith(spelling[:length]):
            return length
    return 0
