"""The form an answer must have, checked before any token: JSON, a JSON schema, a regular expression, a choice, a grammar.

Free of torch and of the grammar library, so that a server or a command line can check a request; `grammar` compiles it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from caslon.errors import UserError

MAX_BYTES = 64 << 10
MAX_DEPTH = 32
MAX_CHOICES = 1024

Kind = Literal["json_schema", "regex", "lark", "gbnf"]


class InvalidSchema(UserError):
    """A form that cannot be had; the message says why, in the grammar library's words where it found the fault."""

    code = "invalid_schema"
    field = "response_format"


@dataclass(frozen=True)
class AnswerForm:
    """What every answer must look like; equal forms compile once. Made by the functions of this module."""

    kind: Kind
    text: str  # the schema as JSON, the expression, or the grammar

    def __post_init__(self) -> None:
        size = len(self.text.encode("utf-8", "surrogatepass"))
        if size > MAX_BYTES:
            raise InvalidSchema(f"the form has {size:,} bytes; at most {MAX_BYTES:,} are taken", fix="make it shorter")


def json_object() -> AnswerForm:
    """Return the form of any JSON object."""
    return AnswerForm("json_schema", '{"type":"object"}')


def json_schema(schema: Any) -> AnswerForm:
    """Return the form of JSON that a schema allows. `InvalidSchema` for one nested deeper than 32 levels."""
    if not isinstance(schema, Mapping | bool):
        raise InvalidSchema("a JSON schema is an object", fix='for example {"type": "object", "properties": {...}}')
    depth = _depth(schema)
    if depth > MAX_DEPTH:
        raise InvalidSchema(
            f"the schema is nested {depth} deep; at most {MAX_DEPTH} levels are taken", fix="flatten it"
        )
    return AnswerForm("json_schema", json.dumps(schema, ensure_ascii=False))


def regex(pattern: str) -> AnswerForm:
    """Return the form of texts that a regular expression matches as a whole (Rust's syntax: no look-around)."""
    return AnswerForm("regex", pattern)


def choice(texts: Sequence[str]) -> AnswerForm:
    """Return the form of one of a few given texts."""
    if not 1 <= len(texts) <= MAX_CHOICES or not all(isinstance(text, str) for text in texts):
        raise InvalidSchema(f"a choice is a list of 1 to {MAX_CHOICES:,} strings", fix='for example ["yes", "no"]')
    return AnswerForm("lark", "start: " + " | ".join(lark_string(text) for text in texts))


def grammar(text: str) -> AnswerForm:
    """Return the form a grammar describes: Lark when it defines `start`, llama.cpp's GBNF when it defines `root`."""
    rules = [line.lstrip() for line in text.splitlines()]
    if any(line.startswith("root") and "::=" in line for line in rules):
        return AnswerForm("gbnf", text)
    if any(line.startswith("start") and ":" in line for line in rules):
        return AnswerForm("lark", text)
    raise InvalidSchema(
        "the grammar has no first rule", fix="a Lark grammar begins with `start:`, a GBNF grammar with `root ::=`"
    )


def lark_string(text: str) -> str:
    """Return a text as a Lark grammar writes it."""
    return json.dumps(text, ensure_ascii=False)


def _depth(value: Any) -> int:
    deepest, level = 0, [value]
    while level:  # level by level: a deep value must not use up the stack
        deepest += 1
        level = [inner for outer in level for inner in _inside(outer) if isinstance(inner, Mapping | list)]
    return deepest


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
