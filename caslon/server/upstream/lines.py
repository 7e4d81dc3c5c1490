"""An upstream's bytes to the JSON objects of its stream: server-sent events, or one object on each line.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from caslon.server.upstream.failure import UpstreamFailure, garbled

MOST_LINE_BYTES = 8 << 20
DONE = b"[DONE]"

Json = dict[str, Any]


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines, without their ends; a last one that was not ended is no line."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")
        if len(rest) > MOST_LINE_BYTES:
            raise UpstreamFailure("garbled", message="a line without an end")


async def events_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[Json | None]:
    """Yield the object of each server-sent event, None for the word that all is done."""
    async for line in lines_of(chunks):
        if line.startswith(b"data:"):
            data = line.removeprefix(b"data:").strip()
            yield None if data == DONE else object_of(data)


async def objects_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[Json]:
    """Yield the object of each line."""
    async for line in lines_of(chunks):
        if line.strip():
            yield object_of(line)


def object_of(data: bytes) -> Json:
    """Return the JSON object of a text; `UpstreamFailure` for anything else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise UpstreamFailure("garbled", message="no JSON") from None
    if not isinstance(value, dict):
        raise garbled(value)
    return value


def objects_in(value: Any) -> list[Json]:
    """Return a list of objects; nothing where there is none."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise garbled(value)
    return value


def object_in(value: Any) -> Json:
    """Return an object; an empty one where there is none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise garbled(value)
    return value


def text_in(value: Any) -> str:
    """Return a text; an empty one where there is none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise garbled(value)
    return value


def count_in(value: Any) -> int | None:
    """Return a count; None where there is none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise garbled(value)
    return value
