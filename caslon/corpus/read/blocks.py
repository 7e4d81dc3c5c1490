"""Building blocks out of markup: collects text, line breaks and borders, and gives paragraphs with their places."""

import re
from collections.abc import Iterable
from dataclasses import replace

from caslon.corpus.document import Block

LINE = "\x00"  # a line break that is meant; source line ends are mere white space
SPACE = "\x01"  # a space that is meant, in preformatted text
JOIN = re.compile(r"[∣\u00ad][\s\x00]*")  # end-of-line hyphens of transcriptions: the word goes on
CLOSING = ",.;:!?)]"  # a paragraph that begins with one of these was broken by a tag
BEFORE_POINT = re.compile(r"\s+(?=[,.;:!?)\]])")


class BlockBuilder:
    """The text of one document as it grows."""

    def __init__(self, blocks: Iterable[Block] = (), *, close_up_points: bool = False) -> None:
        self.blocks: list[Block] = list(blocks)
        self.close_up_points = close_up_points  # take out white space before punctuation
        self._parts: list[str] = []
        self._start = 0

    def add(self, text: str) -> None:
        """Append character data."""
        self._parts.append(text)

    def line(self) -> None:
        """Break the line."""
        self._parts.append(LINE)

    def space(self) -> None:
        """Keep the words on both sides apart, unless a hyphen of the transcription just joined them."""
        if self._parts and not self._parts[-1].endswith(("∣", "\u00ad")):
            self._parts.append(" ")

    def at_line_start(self) -> bool:
        """Return whether nothing stands on the current line yet."""
        for part in reversed(self._parts):
            if part == LINE:
                return True
            if part.strip():
                return False
        return True

    def border(self, place: int) -> Block | None:
        """Close the block that ends at `place`, and return it if it has text."""
        block = None
        text = self._text() if self._parts else ""
        if text and self.close_up_points and self.blocks and text[0] in CLOSING:
            block = replace(self.blocks[-1], text=self.blocks[-1].text + text, end=place)
            self.blocks[-1] = block
        elif text:
            block = Block(text, self._start, place)
            self.blocks.append(block)
        self._parts = []
        self._start = place
        return block

    def _text(self) -> str:
        text = "".join(self._parts)
        if "∣" in text or "\u00ad" in text:
            text = JOIN.sub("", text)
        lines = [" ".join(line.split()) for line in text.split(LINE)]
        text = "\n".join(line for line in lines if line).replace(SPACE, " ")
        return BEFORE_POINT.sub("", text) if self.close_up_points else text
