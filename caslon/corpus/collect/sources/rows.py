"""Data files (JSONL, CSV, Parquet): one address each; the entry's `text_field` names the field that holds the text."""

from collections.abc import Iterator

from caslon.corpus.collect.collector import FileCollector, Item
from caslon.corpus.collect.sources.addresses import NO_LIMIT, file_name, listed
from caslon.corpus.registry_entry import SourceEntry


class Rows(FileCollector):
    """Fetches data files by their addresses; the reader of their kind takes the rows out."""

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield one item for each address, whatever its size (Parquet is read whole, so the setting's limit holds)."""
        checksums = (entry.checksum,) if entry.checksum else ()
        for url in listed(entry.location):
            limit = None if file_name(url).endswith(".parquet") else NO_LIMIT
            yield Item(entry, file_name(url), url, checksums=checksums, max_bytes=limit, metadata=_field(entry))


def _field(entry: SourceEntry) -> dict[str, str]:
    return {"text_field": entry.text_field} if entry.text_field else {}
