"""Generated ids to text in sections: what the model thinks, what it answers, which tools it calls.

The sections stand between special tokens, so a marker that is merely spelled out in a text stays text. A section that is never
closed goes on to the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from caslon.engine.request import ANSWER, SamplingParams, Section
from caslon.engine.stream import TextStream
from caslon.tokenizer.tokenizer import Tokenizer

THINKING = "thinking"
TOOL_CALL = "tool_call"

# Our own spelling first, then DeepSeek's and Qwen's.
THINKING_MARKERS = (("<|think|>", "<|/think|>"), ("<think>", "</think>"))


class Markers(NamedTuple):
    """The ids that open and close a section. Without a closing one it goes on to the end."""

    opening: int
    closing: int | None


@dataclass(frozen=True)
class Sections:
    """Which sections an answer may have, and in which one it begins."""

    thinking: Markers | None = None
    tool_call: Markers | None = None
    begins_thinking: bool = False  # some templates open the thinking themselves

    def kind_opened_by(self, token: int) -> str | None:
        """Return the kind of section that a token opens."""
        if self.thinking is not None and token == self.thinking.opening:
            return THINKING
        if self.tool_call is not None and token == self.tool_call.opening:
            return TOOL_CALL
        return None

    def closing(self, kind: str) -> int | None:
        """Return the token that closes a section of a kind."""
        markers = {THINKING: self.thinking, TOOL_CALL: self.tool_call}.get(kind)
        return None if markers is None else markers.closing


NO_SECTIONS = Sections()


def thinking_markers(tokenizer: Tokenizer) -> Markers | None:
    """Return the tokenizer's markers of thinking; None when it has none."""
    for opening, closing in THINKING_MARKERS:
        if opening in tokenizer and closing in tokenizer:
            return Markers(tokenizer.id_of(opening), tokenizer.id_of(closing))
    return None


def is_thinking(prompt: Sequence[int], markers: Markers | None) -> bool:
    """Return whether a prompt ends with thinking open, as some templates end it."""
    if markers is None:
        return False
    last = next((token for token in reversed(prompt[-4:]) if token in markers), None)
    return last == markers.opening


class SectionStream:
    """The text of one answer as it grows, section by section; each push gives text of one section only."""

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams, sections: Sections) -> None:
        self._tokenizer = tokenizer
        self._params = params
        self._sections = sections
        self._numbers = {THINKING: 0, TOOL_CALL: 0}
        self._texts: list[tuple[Section, str]] = []
        self.section = ANSWER
        self.thinking_tokens = 0
        self._open(THINKING if sections.begins_thinking else ANSWER.kind)

    @property
    def stopped_by(self) -> str | None:
        """The stop string found."""
        return self._stream.stopped_by

    @property
    def is_thinking(self) -> bool:
        """Whether the thinking is still open."""
        return self.section.kind == THINKING

    def text(self, kind: str) -> str:
        """Return all text given out in sections of a kind."""
        return "".join(text for section, text in self._all() if section.kind == kind)

    def tool_calls(self) -> tuple[str, ...]:
        """Return the text of each tool call."""
        return tuple(text for section, text in self._all() if section.kind == TOOL_CALL)

    def push(self, token: int, *, may_stop: bool) -> tuple[Section, str]:
        """Add a token; return the text that can be shown now and its section."""
        section = self.section
        opened = self._sections.kind_opened_by(token)
        if THINKING in (section.kind, opened):
            self.thinking_tokens += 1
        if opened is not None and section.kind == ANSWER.kind:
            return self._turn(opened)
        if section.kind != ANSWER.kind and token == self._sections.closing(section.kind):
            return self._turn(ANSWER.kind)
        return section, self._stream.push(token, may_stop=may_stop and section.kind == ANSWER.kind)

    def finish(self) -> str:
        """Return what was still held back in the open section."""
        return self._stream.finish()

    def _turn(self, kind: str) -> tuple[Section, str]:
        section, rest = self.section, self._stream.finish()
        self._texts.append((section, self._stream.text))
        self._open(kind)
        return section, rest

    def _open(self, kind: str) -> None:
        self._stream = TextStream(self._tokenizer, self._params)
        self.section = ANSWER
        if kind != ANSWER.kind:
            self.section = Section(kind, self._numbers[kind])
            self._numbers[kind] += 1

    def _all(self) -> list[tuple[Section, str]]:
        return [*self._texts, (self.section, self._stream.text)]
