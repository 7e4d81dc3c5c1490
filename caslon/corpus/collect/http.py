"""A polite HTTP client: turns an address into a streamed answer, with patience, manners and a guard.

One connection and one request per second for each host, `Retry-After` and robots.txt obeyed, five redirects, each of them
checked like the first address. httpx connects to the address the guard allowed; the host's name stays in the `Host` header
and in TLS. Time and chance are passed in, so tests need no waiting.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit, urlunsplit

from caslon.corpus.collect.address import Resolve, allowed_addresses, system_addresses
from caslon.corpus.collect.problem import ItemProblem, TryAgain
from caslon.corpus.collect.robots import AGENT, Robots
from caslon.corpus.settings import CollectSettings
from caslon.errors import UserError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
RETRY_STATUSES = frozenset({408, 425, 429})  # and every 5xx
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
BACKOFF_SECONDS = (1.0, 60.0)
MAX_RETRY_AFTER_SECONDS = 3600.0  # a server that asks for more is left alone until the next run
SLOWEST_BYTES_PER_SECOND = 100  # a body that drips slower than this over the whole timeout counts as broken off
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Answer:
    """An answer whose body is still to come. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    url: str  # after redirects
    chunks: Iterator[bytes]


class Client:
    """Makes requests one at a time. Raises UserError when the settings name no contact."""

    def __init__(
        self,
        settings: CollectSettings,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        resolve: Resolve = system_addresses,
    ) -> None:
        if not settings.contact.strip():
            raise UserError(
                "no request is made without a contact in the user agent",
                where="corpus.collect.contact",
                fix='set it to your e-mail or web address: contact = "you@example.org"',
            )
        self.settings = settings
        self.requests = 0
        self._sleep, self._clock, self._now, self._chance, self._resolve = sleep, clock, now, chance, resolve
        self._agent = _user_agent(settings.contact.strip())
        self._clients: dict[str, httpx.Client] = {}
        self._next_turn: dict[str, float] = {}
        self._robots = Robots(self._read_robots)

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()

    def persist(self, attempt: Callable[[], T]) -> T:
        """Return what the attempt returns, tried again after failures that may pass; `fetch_failed` after the last."""
        for number in range(1, self.settings.tries + 1):
            try:
                return attempt()
            except TryAgain as error:
                if number == self.settings.tries:
                    tries = f"{number} {'try' if number == 1 else 'tries'}"
                    raise ItemProblem("fetch_failed", f"{error} (after {tries})", error.status) from error
                self._sleep(self._backoff(number, error.wait_seconds))
        raise AssertionError("at least one try is made")

    @contextmanager
    def open(
        self, url: str, headers: Mapping[str, str] | None = None, *, delay_seconds: float = 0.0, robots: bool = True
    ) -> Iterator[Answer]:
        """Give the answer to one GET, redirects followed. Raises `TryAgain`, or `ItemProblem` for any other 4xx."""
        first = url
        for _ in range(MAX_REDIRECTS + 1):
            if robots:
                self._robots.check(url)
                delay_seconds = max(delay_seconds, self._robots.delay_seconds(url))
            with self._ask(url, headers or {}, delay_seconds) as response:
                target = response.headers.get("location")
                if response.status_code not in REDIRECT_STATUSES or not target:
                    self._check_status(response, url)
                    yield Answer(response.status_code, response.headers, url, self._chunks(response))
                    return
            target = urljoin(url, target)
            if urlsplit(target).netloc != urlsplit(url).netloc:
                headers = {name: value for name, value in (headers or {}).items() if name.lower() != "authorization"}
            url = target
        raise ItemProblem("fetch_failed", f"{first} leads to more than {MAX_REDIRECTS} redirects")

    # --- one request

    @contextmanager
    def _ask(self, url: str, headers: Mapping[str, str], delay_seconds: float) -> "Iterator[httpx.Response]":
        import httpx

        scheme, host, port = _parts(url)
        addresses = allowed_addresses(host, port, allow_private=self.settings.allow_private, resolve=self._resolve)
        self._await_turn(f"{host}:{port}", max(delay_seconds, self.settings.delay_seconds))
        response = None
        try:
            response = self._first_answer(scheme, host, port, url, headers, addresses)
            yield response
        except httpx.TransportError as error:
            raise TryAgain(f"{url}: {type(error).__name__}: {error}".rstrip(": ")) from error
        except httpx.HTTPError as error:
            raise ItemProblem("fetch_failed", f"{url}: {error}") from error
        finally:
            if response is not None:
                response.close()

    def _first_answer(
        self, scheme: str, host: str, port: int, url: str, headers: Mapping[str, str], addresses: list[str]
    ) -> "httpx.Response":
        import httpx

        for address in addresses:
            client = self._client(f"{scheme}://{host}:{port} {address}")
            request = client.build_request(
                "GET",
                _pinned(url, address, port),
                headers={"host": urlsplit(url).netloc.rpartition("@")[2], **headers},
                extensions={"sni_hostname": host},
            )
            self.requests += 1
            try:
                return client.send(request, stream=True)
            except httpx.ConnectError:
                if address == addresses[-1]:
                    raise
        raise AssertionError("a host has at least one address")

    def _client(self, key: str) -> "httpx.Client":
        """One client for each host and address, so that a connection is never used for another name."""
        import httpx

        if key not in self._clients:
            self._clients[key] = httpx.Client(
                headers={"user-agent": self._agent, "accept": "*/*", "accept-encoding": "identity"},
                timeout=self.settings.timeout_seconds,
                limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
                trust_env=False,  # a proxy would resolve names by itself, past the guard
                follow_redirects=False,
            )
        return self._clients[key]

    def _chunks(self, response: "httpx.Response") -> Iterator[bytes]:
        import httpx

        begun, received = self._clock(), 0
        try:
            for chunk in response.iter_bytes(CHUNK_BYTES if "content-encoding" in response.headers else None):
                yield chunk
                received += len(chunk)
                seconds = self._clock() - begun
                if seconds > self.settings.timeout_seconds and received < seconds * SLOWEST_BYTES_PER_SECOND:
                    raise TryAgain(f"{received:,} bytes in {seconds:.0f} s")
        except httpx.TransportError as error:
            raise TryAgain(f"the connection broke after {received:,} bytes: {type(error).__name__}") from error

    def _check_status(self, response: "httpx.Response", url: str) -> None:
        status = response.status_code
        if status in RETRY_STATUSES or status >= 500:
            wait = self._retry_after(response.headers.get("retry-after"))
            if wait is not None and wait > MAX_RETRY_AFTER_SECONDS:
                raise ItemProblem("fetch_failed", f"{url}: HTTP {status}, to be asked again in {wait:,.0f} s", status)
            raise TryAgain(f"{url}: HTTP {status}", wait, status)
        if status not in (200, 203, 206, 304, 416):
            raise ItemProblem("fetch_failed", f"{url}: HTTP {status}", status)

    # --- waiting

    def _await_turn(self, host: str, delay_seconds: float) -> None:
        wait = self._next_turn.get(host, 0.0) - self._clock()
        if wait > 0:
            self._sleep(wait)
        self._next_turn[host] = self._clock() + delay_seconds

    def _backoff(self, number: int, asked: float | None) -> float:
        """Exponential with full jitter above a second (AWS Architecture Blog, 2015), or what the server asked for."""
        if asked is not None:
            return asked
        least, most = BACKOFF_SECONDS
        return least + self._chance() * (min(most, 2.0**number) - least)

    def _retry_after(self, value: str | None) -> float | None:
        """`Retry-After` is a number of seconds or a date (RFC 9110, 10.2.3)."""
        if value is None:
            return None
        if value.strip().isdigit():
            return float(value)
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - self._now())
        except ValueError:
            return None

    def _read_robots(self, url: str, limit: int) -> tuple[int, bytes]:
        def attempt() -> tuple[int, bytes]:
            with self.open(url, robots=False) as answer:
                body = bytearray()
                for chunk in answer.chunks:
                    body += chunk
                    if len(body) >= limit:
                        break
                return answer.status, bytes(body[:limit])

        try:
            return self.persist(attempt)
        except ItemProblem as problem:
            if problem.status >= 400:
                return problem.status, b""
            raise


def _user_agent(contact: str) -> str:
    from caslon import __version__

    return f"{AGENT}/{__version__} (+{contact})"


def _parts(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ItemProblem("fetch_failed", f"{url} is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ItemProblem("fetch_failed", f"{url} is no http or https address")
    return parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80)


def _pinned(url: str, address: str, port: int) -> str:
    """The same request, sent to an address instead of a name."""
    parts = urlsplit(url)
    netloc = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path or "/", parts.query, ""))
