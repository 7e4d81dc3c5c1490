"""Sends one request of a load and notes when each piece of its answer came.

A failure is a result too: it is noted with its reason and never ends the load. Server-sent events are read here instead of by
`caslon.client`, because a load needs thousands of requests at once and the time of every piece.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

ENDPOINT = "/v1/completions"
STALL_SECONDS = 600.0  # without a piece of text; a model on a small machine reads a long prompt for minutes


@dataclass
class Exchange:
    """One request and what came of it. Times are in seconds of the event loop's clock; `error` is empty for a whole answer.

    `pieces` are the times at which text came; `output_tokens` is the server's own count where it gave one.
    """

    request_id: str
    prompt_tokens: int
    started: float = 0.0
    pieces: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    output_tokens: int | None = None
    fingerprint: str | None = None
    error: str = ""

    @property
    def text(self) -> str:
        """The answer's text."""
        return "".join(self.texts)

    @property
    def ttft(self) -> float | None:
        """Seconds to the first piece of text."""
        return self.pieces[0] - self.started if self.pieces else None

    @property
    def seconds(self) -> float:
        """Seconds from the request to the last piece of text."""
        return self.pieces[-1] - self.started if self.pieces else 0.0

    @property
    def tpot(self) -> float | None:
        """Seconds per token after the first; None for an answer of one token."""
        if not self.pieces or not self.output_tokens or self.output_tokens < 2:
            return None
        return (self.pieces[-1] - self.pieces[0]) / (self.output_tokens - 1)

    @property
    def gaps(self) -> list[float]:
        """Seconds between one piece and the next."""
        return [later - earlier for earlier, later in pairwise(self.pieces)]


def request_body(model: str, prompt: list[int], output_tokens: int) -> bytes:
    """Return the body of a request that is answered with exactly `output_tokens` tokens, greedily, in pieces."""
    fields = {
        "model": model,
        "prompt": prompt,
        "max_tokens": output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(fields, separators=(",", ":")).encode()


async def ask(http: httpx.AsyncClient, body: bytes, exchange: Exchange) -> Exchange:
    """Send a request and fill in the exchange."""
    clock = asyncio.get_running_loop().time
    headers = {"content-type": "application/json", "x-request-id": exchange.request_id}
    exchange.started = clock()
    try:
        async with (
            asyncio.timeout(STALL_SECONDS) as limit,
            http.stream("POST", ENDPOINT, content=body, headers=headers) as response,
        ):
            if response.is_error:
                exchange.error = f"HTTP {response.status_code}: {_message(await response.aread())}"
                return exchange
            async for event in _events(response):
                _take(exchange, event, clock())
                limit.reschedule(clock() + STALL_SECONDS)
                if exchange.error:
                    return exchange
    except TimeoutError:
        exchange.error = f"stalled: no piece of the answer for {STALL_SECONDS:g} s"
    except httpx.HTTPError as error:
        exchange.error = f"{type(error).__name__}: {error}".rstrip(": ")
    except (ValueError, KeyError, TypeError) as error:
        exchange.error = f"an answer that is not OpenAI's shape: {error}"
    return exchange


def _take(exchange: Exchange, event: Mapping[str, Any], now: float) -> None:
    if event.get("error"):
        exchange.error = f"broken off: {event['error'].get('message', event['error'])}"
        return
    exchange.fingerprint = event.get("system_fingerprint") or exchange.fingerprint
    for choice in event["choices"]:
        exchange.pieces.append(now)
        exchange.texts.append(choice["text"])
    if event.get("usage"):
        exchange.output_tokens = event["usage"]["completion_tokens"]


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the JSON of each event up to [DONE]; `httpx.RemoteProtocolError` for a stream that ends without it."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)
    raise httpx.RemoteProtocolError("the answer broke off before its end mark")


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
