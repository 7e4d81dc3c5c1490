"""One other server: asked over HTTP, asked again where that may help, and left alone while it fails.

Nobody but the host in its settings is connected to: redirects are not followed, and no proxy is taken from the environment.
"""

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable

import httpx

from caslon.server.upstream.breaker import Breaker
from caslon.server.upstream.failure import UpstreamFailure
from caslon.server.upstream.kinds import KINDS
from caslon.server.upstream.lines import object_of
from caslon.server.upstream.pieces import Asked, Delta
from caslon.server.upstream.settings import UpstreamSettings

RETRIES = 2
BACK_OFF_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 10.0  # who is told to wait longer asks somebody else
RETRIED = {429: "busy", 502: "failed", 503: "failed", 504: "failed"}
MOST_MESSAGE_CHARACTERS = 500
HIDDEN = "[removed]"


class Upstream:
    """One upstream. Lives on one event loop."""

    def __init__(self, settings: UpstreamSettings, on_failure: Callable[[str, str], None]) -> None:
        self.settings = settings
        self.breaker = Breaker()
        self._secret = settings.secret()
        self._on_failure = on_failure
        self._http: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()

    async def deltas(self, asked: Asked, model: str) -> AsyncIterator[Delta]:
        """Yield what it answers. Before the first delta it is asked up to three times; `UpstreamFailure` in the end."""
        for attempt in range(RETRIES + 1):
            begun = False
            try:
                async for delta in self._once(asked, model):
                    begun = begun or delta.is_answer
                    yield delta
            except UpstreamFailure as failure:
                self._note(failure)
                if begun or not failure.may_retry or attempt == RETRIES or not self.breaker.lets_through():
                    raise
                await asyncio.sleep(_pause(failure, attempt))
            else:
                self.breaker.succeeded()
                return

    def _note(self, failure: UpstreamFailure) -> None:
        self._on_failure(self.settings.name, failure.reason)
        if failure.is_callers:
            self.breaker.succeeded()
        else:
            self.breaker.failed()

    async def _once(self, asked: Asked, model: str) -> AsyncIterator[Delta]:
        kind = KINDS[self.settings.kind]
        path, body = kind.body(asked, model, self.settings)
        headers = kind.headers(self._secret)
        try:
            async with self._client().stream(
                "POST", f"{self.settings.url}{path}", json=body, headers=headers
            ) as answer:
                if answer.status_code != 200:
                    raise await self._failure(answer)
                async for delta in kind.deltas(answer.aiter_bytes(), asked):
                    yield delta
        except httpx.ConnectError:
            raise UpstreamFailure("unreachable", may_retry=True) from None
        except httpx.ConnectTimeout:
            raise UpstreamFailure("unreachable", may_retry=True) from None
        except httpx.TimeoutException:
            raise UpstreamFailure("timeout") from None
        except httpx.DecodingError:
            raise UpstreamFailure("garbled") from None
        except httpx.HTTPError:
            raise UpstreamFailure("cut") from None

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            silence, connect = self.settings.read_timeout_seconds, self.settings.connect_timeout_seconds
            self._http = httpx.AsyncClient(
                timeout=httpx.Timeout(silence, connect=connect),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=self.settings.max_running),
                follow_redirects=False,
                trust_env=False,
            )
        return self._http

    async def _failure(self, answer: httpx.Response) -> UpstreamFailure:
        status = answer.status_code
        if status in RETRIED:
            wait = _retry_after(answer)
            may_retry = wait is None or wait <= LONGEST_RETRY_SECONDS
            return UpstreamFailure(RETRIED[status], may_retry=may_retry, retry_seconds=wait)
        if status in (401, 403):
            return UpstreamFailure("unauthorized")
        if 400 <= status < 500:
            return UpstreamFailure("refused", message=self._said(await answer.aread()))
        return UpstreamFailure("failed")

    def _said(self, body: bytes) -> str:
        """Return what the upstream says of a request it refuses, without our key."""
        try:
            error = object_of(body).get("error")
        except UpstreamFailure:
            return "it does not say why"
        text = error.get("message") if isinstance(error, dict) else error
        if not isinstance(text, str):
            return "it does not say why"
        if self._secret:
            text = text.replace(self._secret, HIDDEN)
        return text[:MOST_MESSAGE_CHARACTERS]


def _retry_after(answer: httpx.Response) -> float | None:
    text = str(answer.headers.get("retry-after", ""))
    return float(text) if re.fullmatch(r"\d{1,9}", text) else None


def _pause(failure: UpstreamFailure, attempt: int) -> float:
    if failure.retry_seconds is not None:
        return failure.retry_seconds
    return BACK_OFF_SECONDS * 2.0**attempt * random.uniform(0.5, 1.0)  # noqa: S311  spreads callers, hides nothing
