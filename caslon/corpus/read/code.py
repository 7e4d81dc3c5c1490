"""Source code: turns a file in any language but Python into one document, whose characters stay as they are.

What it is written in was found out by its type's detection; a licence header, a generator's mark and minified text are flagged
and nothing is left out.
"""

import re
from collections.abc import Iterator
from typing import Any

from caslon.corpus.document import Block, Reject
from caslon.corpus.read.reading import Extracted, ReadSettings, Source

TIER = "code"
HEAD_CHARACTERS = 2_000
GENERATED = re.compile(r"(?i)(?:auto-?matically|auto-?)? ?generated (?:by|from|file)|do not edit|@generated\b")
COMMENT_START = r"^[ \t]*(?:#|//|/\*|\*|--|;|%|<!--|\(\*|\"\"\"|dnl\b)?"
LICENCE_LINE = re.compile(
    rf"(?i){COMMENT_START}.*(?:\bcopyright\b|\blicen[sc]ed? (?:under|by|to)\b|SPDX-License-Identifier)", re.M
)
SPDX = re.compile(r"SPDX-License-Identifier:\s*([\w.+() -]+?)\s*(?:\*/|-->|$)", re.MULTILINE)
MINIFIED_LINE_CHARACTERS = 500  # a file whose lines are that long on average was not written by hand
MINIFIED_WORST_CHARACTERS = 5_000  # nor one with such a line


def read_code(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the one document of a source file."""
    name = (source.origin.member or source.origin.path).rpartition("/")[2]
    yield Extracted(
        blocks=(Block(source.text, 0, len(source.text)),),
        title=name,
        tier=TIER,
        metadata={"language": source.language, **code_facts(source.text)},
    )


def code_facts(text: str) -> dict[str, Any]:
    """Return what the head and the lines of a source file show: `generated`, `licence_header`, `minified`, `spdx`."""
    head = text[:HEAD_CHARACTERS]
    facts: dict[str, Any] = {
        "generated": GENERATED.search(head) is not None,
        "licence_header": LICENCE_LINE.search(head) is not None,
        "minified": is_minified(text),
    }
    identifier = SPDX.search(head)
    return {**facts, "spdx": identifier[1]} if identifier else facts


def is_minified(text: str) -> bool:
    """Return whether a program packed the code into few long lines."""
    lengths = [len(line) for line in text.split("\n") if line.strip()]
    if not lengths:
        return False
    return sum(lengths) > MINIFIED_LINE_CHARACTERS * len(lengths) or max(lengths) > MINIFIED_WORST_CHARACTERS
