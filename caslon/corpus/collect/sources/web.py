"""Web pages: turns seed addresses or a sitemap into pages of the same hosts, a few links deep.

Pages are found breadth first, so the limit of pages keeps those nearest to the seeds. A page that names another address as
its own (`rel="canonical"`), seen before under that, is skipped. With a selector, only what it picks becomes the raw file.
"""

from collections import deque
from collections.abc import Iterator
from urllib.parse import urlsplit

from caslon.corpus.collect.collector import FileCollector, Item
from caslon.corpus.collect.fetch import Fetcher
from caslon.corpus.collect.problem import ItemProblem
from caslon.corpus.collect.raw_file import RawFile
from caslon.corpus.collect.sources.addresses import canonical, listed, page_path
from caslon.corpus.collect.sources.links import canonical_link, css_path, links_of, selected, sitemap_addresses
from caslon.corpus.collect.store import StoredFile
from caslon.corpus.registry_entry import SourceEntry
from caslon.errors import UserError

DEPTH = 2
MAX_PAGES = 500
MAX_SITEMAPS = 50


class Web(FileCollector):
    """Crawls politely and not far."""

    def __init__(self, fetcher: Fetcher, depth: int = DEPTH, max_pages: int = MAX_PAGES) -> None:
        super().__init__(fetcher)
        self._depth, self._max_pages = depth, max_pages
        self._seen: set[str] = set()  # canonical addresses of the entry that is being discovered

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield pages; the links of one are followed once it was fetched, so a dry run sees no further than the store."""
        _check_selector(entry)
        limit = entry.max_items or self._max_pages
        waiting = deque((url, 0) for url in self._seeds(entry))
        hosts = {urlsplit(url).netloc for url, _ in waiting}
        met = {canonical(url) for url, _ in waiting}
        self._seen = set()
        count = 0
        while waiting and count < limit:
            url, depth = waiting.popleft()
            count += 1
            yield Item(entry, page_path(url), url)
            for link in self._links(entry, url) if depth < self._depth else ():
                if urlsplit(link).netloc in hosts and canonical(link) not in met:
                    met.add(canonical(link))
                    waiting.append((canonical(link), depth + 1))

    def fetch(self, item: Item) -> Iterator[RawFile | StoredFile]:
        """Yield the page, or what the selector picks of it; nothing when it was seen under its canonical address."""
        data = self.fetcher.page(item.entry, item.url)
        own = canonical(canonical_link(data, item.url))
        if own in self._seen:
            return
        self._seen.add(own)
        page = self.fetcher.page_record(item.entry, item.url)
        if not item.entry.selector:
            yield self.fetcher.keep(item, data, page)
            return
        picked = selected(data, item.entry.selector)
        if picked is None:
            raise ItemProblem("no_text", f"{item.url}: the selector '{item.entry.selector}' picks nothing")
        yield self.fetcher.keep(item, picked, page)

    def _seeds(self, entry: SourceEntry) -> list[str]:
        found: list[str] = []
        sitemaps = deque(url for url in listed(entry.location) if _looks_like_sitemap(url))
        for url in listed(entry.location):
            if not _looks_like_sitemap(url):
                found.append(canonical(url))
        asked = 0
        while sitemaps and asked < MAX_SITEMAPS:
            asked += 1
            url = sitemaps.popleft()
            kind, addresses = sitemap_addresses(self.fetcher.page(entry, url)) or ("urlset", [url])
            host = urlsplit(url).netloc
            (sitemaps if kind == "sitemapindex" else found).extend(
                address for address in addresses if urlsplit(address).netloc == host
            )
        return list(dict.fromkeys(found))

    def _links(self, entry: SourceEntry, url: str) -> list[str]:
        row = self.fetcher.page_record(entry, url)
        return links_of(self.fetcher.store.read(row), row.final_url or url) if row is not None else []


def _looks_like_sitemap(url: str) -> bool:
    path = urlsplit(url).path.lower()
    return path.endswith(".xml") or "sitemap" in path.rpartition("/")[2]


def _check_selector(entry: SourceEntry) -> None:
    try:
        css_path(entry.selector) if entry.selector else None
    except ValueError as error:
        raise UserError(str(error), where=f"source {entry.id}, field selector") from error
