"""MediaWiki dumps (`pages-articles.xml.bz2`): one large file, fetched whole and read in parts of whole pages."""

from collections.abc import Iterator

from caslon.corpus.collect.collector import FileCollector, Item
from caslon.corpus.collect.sources.addresses import NO_LIMIT, file_name, listed
from caslon.corpus.registry_entry import SourceEntry


class MediaWiki(FileCollector):
    """Fetches dump files by their addresses; the page reader takes the text out."""

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield one item for each address, whatever its size: it is read page by page."""
        checksums = (entry.checksum,) if entry.checksum else ()
        for url in listed(entry.location):
            yield Item(entry, file_name(url), url, checksums=checksums, max_bytes=NO_LIMIT)
