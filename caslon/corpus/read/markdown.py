"""Markdown: turns headings, paragraphs, lists and tables into plain text, and leaves code blocks as they are.

Emphasis marks and the addresses of links go; the items of a list keep their marks, each on a line. A YAML head between two
lines of dashes gives the title. Reads with markdown-it-py (CommonMark 0.31 and tables), which knows the lines of each block.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from caslon.corpus.document import Block, Reject
from caslon.corpus.read.reading import Extracted, ReadSettings, Source

LINE_END = re.compile(r"\r\n|\n|\r")
HEAD = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?\r?\n)(?:---|\.\.\.)[ \t]*(?:\r?\n|$)", re.DOTALL)
TITLE = re.compile(r"^title:[ \t]*[\"']?(.*?)[\"']?[ \t\r]*$", re.MULTILINE)
TAG = re.compile(r"<!--.*?(?:-->|$)|<[^>]*>", re.DOTALL)
LINE_BREAK_TAG = re.compile(r"<br\s*/?>", re.IGNORECASE)
LISTS = ("bullet_list", "ordered_list")


def read_markdown(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the one document of a Markdown file."""
    head = HEAD.match(source.text)
    skipped = head.end() if head else 0
    blocks = tuple(_Blocks(source.text, skipped).read())
    named = TITLE.search(head[1]) if head else None
    yield Extracted(blocks=blocks, title=named[1] if named else "")


class _Blocks:
    """The blocks of one file: walks markdown-it's tokens and puts the text of each outermost block together."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._starts = [start, *(match.end() for match in LINE_END.finditer(text, start)), len(text)]
        self._lines: list[str] = []
        self._marks: list[str | int] = []  # of the lists that are open: `-` or the next number
        self._mark = ""  # what the next line begins with
        self._cells: list[str] | None = None  # of the table row that is open

    def read(self) -> Iterator[Block]:
        """Yield the blocks in their order."""
        from markdown_it import MarkdownIt

        span: Sequence[int] | None = None
        for token in MarkdownIt("commonmark").enable("table").parse(self._text[self._starts[0] :]):
            if span is None:
                span = token.map
            self._take(token)
            is_whole = token.level == 0 and token.nesting <= 0
            is_paragraph = token.type in ("paragraph_close", "fence", "code_block", "heading_close") and not self._marks
            if (is_whole or is_paragraph) and span is not None:
                yield from self._block(token.map if token.nesting == 0 and token.map else span)
                span = None

    def _block(self, span: Sequence[int]) -> Iterator[Block]:
        text = "\n".join(self._lines)
        self._lines = []
        if text.strip():
            start = self._starts[span[0]]
            end = self._starts[min(span[1], len(self._starts) - 1)]
            yield Block(text.strip("\n"), start, start + len(self._text[start:end].rstrip()))

    def _take(self, token: Any) -> None:
        kind = token.type
        if kind == "inline":
            self._inline(_inline_text(token.children or ()))
        elif kind in ("fence", "code_block"):
            self._add(token.content.rstrip("\n"))
        elif kind == "html_block":
            self._add(TAG.sub("", LINE_BREAK_TAG.sub("\n", token.content)).strip())
        elif kind.removesuffix("_open") in LISTS and token.nesting == 1:
            self._marks.append("-" if kind.startswith("bullet") else int(token.attrGet("start") or 1))
        elif kind.removesuffix("_close") in LISTS:
            self._marks.pop()
        elif kind == "list_item_open":
            self._open_item()
        elif kind == "tr_open":
            self._cells = []
        elif kind == "tr_close":
            self._lines.append("\t".join(self._cells or ()))
            self._cells = None

    def _inline(self, text: str) -> None:
        if self._cells is not None:
            self._cells.append(" ".join(text.split()))
        else:
            self._add(text)

    def _add(self, text: str) -> None:
        if text.strip():
            self._lines.append(self._mark + text)
            self._mark = ""

    def _open_item(self) -> None:
        mark = self._marks[-1]
        indent = "  " * (len(self._marks) - 1)
        if isinstance(mark, int):
            self._mark = f"{indent}{mark}. "
            self._marks[-1] = mark + 1
        else:
            self._mark = f"{indent}{mark} "


def _inline_text(children: Sequence[Any]) -> str:
    parts = []
    for child in children:
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type == "softbreak":
            parts.append(" ")
        elif child.type == "hardbreak" or (child.type == "html_inline" and LINE_BREAK_TAG.match(child.content)):
            parts.append("\n")
        elif child.type == "image":
            parts.append(_inline_text(child.children or ()))
    return "".join(parts).strip()
