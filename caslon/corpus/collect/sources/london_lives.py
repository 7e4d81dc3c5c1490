"""London Lives: turns the bulk archive of its XML pages, single pages, or a page that lists them, into raw XML.

The data is CC BY-NC 4.0, which is recorded whatever the registry says beyond it.
"""

from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from caslon.corpus.collect.collector import FileCollector, Item
from caslon.corpus.collect.sources.addresses import NO_LIMIT, canonical, file_name, listed, page_path
from caslon.corpus.collect.sources.links import links_of
from caslon.corpus.collect.sources.old_bailey import non_commercial
from caslon.corpus.registry_entry import SourceEntry

FILES = (".xml", ".zip", ".tar", ".gz", ".bz2", ".tgz")


class LondonLives(FileCollector):
    """Fetches XML pages and archives of them."""

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield the files at the addresses; an address that is no XML file or archive is a page whose links name them."""
        entry = non_commercial(entry)
        for url in listed(entry.location):
            if urlsplit(url).path.lower().endswith(FILES) or "/ndownloader/" in url:
                checksums = (entry.checksum,) if entry.checksum else ()
                yield Item(entry, file_name(url), url, checksums=checksums, max_bytes=NO_LIMIT)
            else:
                yield from self._listed_on(entry, url)

    def _listed_on(self, entry: SourceEntry, url: str) -> Iterator[Item]:
        seen: set[str] = set()
        for link in links_of(self.fetcher.page(entry, url), url):
            target = canonical(urljoin(url, link))
            if urlsplit(target).path.lower().endswith(FILES) and target not in seen:
                seen.add(target)
                yield Item(entry, page_path(target), target)
