"""Local folders, files and archives: turned into items where they lie, hashed so that a change is noticed."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from caslon.corpus.collect.collector import Item
from caslon.corpus.collect.entries import paths_of
from caslon.corpus.collect.fetch import Fetcher
from caslon.corpus.collect.raw_file import RawFile
from caslon.corpus.collect.store import StoredFile, digest_of
from caslon.corpus.registry_entry import SourceEntry


class Folder:
    """Hashes files of this machine; the build reads them in place."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.fetcher = fetcher

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield every file below the entry's location that its globs let in; globs on members act when it is read."""
        has_member_globs = any("!" in glob for glob in entry.include)
        for path, name in paths_of(entry):
            if has_member_globs or entry.wants(name):
                yield Item(entry, name, path.as_uri(), bytes=path.stat().st_size)

    def fetch(self, item: Item) -> Iterator[RawFile | StoredFile]:
        """Yield what is known about the file; the stored row is only written when it changed."""
        yield self.fetcher.local(item, *digest_of(Path(url2pathname(urlsplit(item.url).path))))
