"""robots.txt: turns an address into whether it may be fetched, and how long to wait between two requests (RFC 9309).

A host without the file (4xx) allows everything, one that answers 5xx forbids everything, as section 2.3.1 says. The file is
read once in a run; `Crawl-delay` stands outside the RFC and is obeyed all the same.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from caslon.corpus.collect.problem import ItemProblem

MAX_ROBOTS_BYTES = 500 << 10  # the least a crawler must read (RFC 9309, 2.5); what follows is left out
AGENT = "caslon"

Read = Callable[[str, int], tuple[int, bytes]]  # (address, bytes at most) -> status and body


class Robots:
    """The rules of every host met so far."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._rules: dict[str, Any] = {}

    def check(self, url: str) -> None:
        """Raise `robots_denied` when the host's rules forbid the address."""
        rules = self._of(url)
        if rules is None:
            raise ItemProblem("robots_denied", f"robots.txt of {urlsplit(url).netloc} cannot be read (5xx)")
        if not rules.can_fetch(url, AGENT):
            raise ItemProblem("robots_denied", f"robots.txt of {urlsplit(url).netloc} forbids {url}")

    def delay_seconds(self, url: str) -> float:
        """Return the host's crawl-delay, 0 without one."""
        rules = self._of(url)
        return float(rules.crawl_delay(AGENT) or 0.0) if rules is not None else 0.0

    def _of(self, url: str) -> Any:
        from protego import Protego

        parts = urlsplit(url)
        host = f"{parts.scheme}://{parts.netloc}"
        if host not in self._rules:
            status, body = self._read(f"{host}/robots.txt", MAX_ROBOTS_BYTES)
            if status >= 500:
                self._rules[host] = None
            else:
                text = body.decode("utf-8", errors="replace") if status < 300 else ""
                self._rules[host] = Protego.parse(text)
        return self._rules[host]
