"""The parts of one answer gathered into blocks that open, grow and close: a text, a thought, a call, one after another.

Anthropic's messages and OpenAI's responses both stream in this way.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from caslon.server.conversation import Part, Text, Thinking, ToolCallBegins

Kind = Literal["text", "thinking", "call"]


@dataclass
class Block:
    """One block. A call has an id and a name, and its text is the JSON of its arguments."""

    index: int
    kind: Kind
    text: str = ""
    id: str = ""
    name: str = ""


@dataclass(frozen=True)
class Change:
    """What happened to a block: it opened, grew by `text`, or closed."""

    what: Literal["open", "grow", "close"]
    block: Block
    text: str = ""


@dataclass
class AnswerBlocks:
    """The blocks of one answer so far."""

    blocks: list[Block] = field(default_factory=list)
    _open: Block | None = None

    def add(self, part: Part) -> Iterator[Change]:
        """Add a part; yield what it changes."""
        if isinstance(part, ToolCallBegins):
            yield from self._turn("call", part.id, part.name)
            return
        kind: Kind = "text" if isinstance(part, Text) else "thinking" if isinstance(part, Thinking) else "call"
        if self._open is None or self._open.kind != kind:
            yield from self._turn(kind)
        assert self._open is not None
        self._open.text += part.text
        yield Change("grow", self._open, part.text)

    def close(self) -> Iterator[Change]:
        """Close the block that is open."""
        if self._open is not None:
            yield Change("close", self._open)
            self._open = None

    def _turn(self, kind: Kind, id: str = "", name: str = "") -> Iterator[Change]:
        yield from self.close()
        self._open = Block(len(self.blocks), kind, id=id, name=name)
        self.blocks.append(self._open)
        yield Change("open", self._open)


def blocks_of(parts: Iterator[Part]) -> list[Block]:
    """Return the blocks of a whole answer."""
    answer = AnswerBlocks()
    for part in parts:
        for _ in answer.add(part):
            pass
    return answer.blocks
