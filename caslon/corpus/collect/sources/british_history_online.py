"""British History Online: turns volumes into their HTML pages, once the user has confirmed the right to take them.

A location is a page of text, a volume (its table of contents links to pages below its own address), or the site itself,
which means a search for the terms. The texts are marked with the profile `british_history_online`, under which page numbers
and footnotes become notes.
"""

from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit

from caslon.corpus.collect.collector import FileCollector, Item
from caslon.corpus.collect.fetch import Fetcher
from caslon.corpus.collect.problem import ItemProblem
from caslon.corpus.collect.sources.addresses import canonical, listed, page_path
from caslon.corpus.collect.sources.links import links_of
from caslon.corpus.registry_entry import SourceEntry

SITE = "https://www.british-history.ac.uk"
RIGHTS = "rights confirmed"
PROFILE = "british_history_online"
PAGE_STEPS = 2  # path segments of a page of text: series or volume, then page
NO_TEXT = (
    "search",
    "about",
    "accounts",
    "user",
    "using-bho",
    "catalogue",
    "subject",
    "place",
    "period",
    "topic",
    "copyright",
)


class BritishHistoryOnline(FileCollector):
    """Fetches pages of text."""

    def __init__(self, fetcher: Fetcher, site: str = SITE) -> None:
        super().__init__(fetcher)
        self._site = site.rstrip("/")

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield the pages. Raises `licence_denied` until the rights are confirmed."""
        if not self.fetcher.store.marked(entry.id, RIGHTS):
            raise ItemProblem(
                "licence_denied",
                f"nobody confirmed the right to take these texts ({entry.rights_url or self._site + '/copyright'}); "
                f"read it, then run: caslon corpus collect ... --confirm-rights {entry.id}",
            )
        seen: set[str] = set()
        for url in self._starts(entry):
            for page in self._pages(entry, url):
                if canonical(page) not in seen:
                    seen.add(canonical(page))
                    yield Item(entry, page_path(page), page, metadata={"profile": entry.profile or PROFILE})

    def _starts(self, entry: SourceEntry) -> Iterator[str]:
        if not entry.is_search and entry.location.rstrip("/") != self._site:
            yield from listed(entry.location)
            return
        for term in entry.search_terms:
            url = f"{self._site}/search?{urlencode({'query': term})}"
            yield from filter(self._is_text, links_of(self.fetcher.page(entry, url), url))

    def _pages(self, entry: SourceEntry, url: str) -> Iterator[str]:
        """A page with links below its own address is a table of contents."""
        below = url.rstrip("/") + "/"
        pages = [link for link in links_of(self.fetcher.page(entry, url), url) if link.startswith(below)]
        yield from pages or [url]

    def _is_text(self, url: str) -> bool:
        steps = [step for step in urlsplit(url).path.split("/") if step]
        return url.startswith(self._site) and len(steps) >= PAGE_STEPS and steps[0] not in NO_TEXT
