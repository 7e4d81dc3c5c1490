"""What a collector is: it turns a source entry into items, and each item into raw files.

A plug-in is a package with an entry point in the group `caslon.collectors`; its name is what a registry writes into
`collector`, its object a callable that takes a `Fetcher` and returns a `Collector`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol

from caslon.corpus.collect.raw_file import RawFile
from caslon.corpus.collect.store import StoredFile
from caslon.corpus.registry_entry import SourceEntry
from caslon.errors import UserError

if TYPE_CHECKING:
    from caslon.corpus.collect.fetch import Fetcher

GROUP = "caslon.collectors"
# name in a registry -> module and class
BUILT_IN = {
    "folder": "folder:Folder",
    "gutenberg": "gutenberg:Gutenberg",
    "old_bailey": "old_bailey:OldBailey",
    "london_lives": "london_lives:LondonLives",
    "internet_archive": "internet_archive:InternetArchive",
    "british_history_online": "british_history_online:BritishHistoryOnline",
    "national_archives": "national_archives:NationalArchives",
    "web": "web:Web",
    "slack": "slack:Slack",
    "mediawiki": "mediawiki:MediaWiki",
    "rows": "rows:Rows",
}


@dataclass(frozen=True)
class Item:
    """One thing a source offers, before it is fetched."""

    entry: SourceEntry
    path: str  # name of the raw file inside the source, unique there
    url: str = ""
    alternatives: tuple[str, ...] = ()  # addresses tried in turn where the first answers 404
    bytes: int | None = None  # as announced
    checksums: tuple[str, ...] = ()  # `sha256:`, `sha1:` or `md5:` and hexadecimal digits
    max_bytes: int | None = None  # none: the setting's; files of records are read in parts and may be larger
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Collector(Protocol):
    """Finds what a source offers and gets it. Both raise `ItemProblem` for what cannot be had."""

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield the items of a source; pages that list them may be fetched on the way."""
        ...

    def fetch(self, item: Item) -> Iterator[RawFile | StoredFile]:
        """Yield the raw files of an item: already in the store, or to be put there."""
        ...


class FileCollector:
    """What most collectors share: an item is one address, fetched into the store as it is."""

    def __init__(self, fetcher: "Fetcher") -> None:
        self.fetcher = fetcher

    def fetch(self, item: Item) -> Iterator[RawFile | StoredFile]:
        """Yield the one file of an item."""
        yield self.fetcher.file(item)


def slowed(entry: SourceEntry, seconds: float) -> SourceEntry:
    """Return the entry with at least so many seconds between two requests."""
    return replace(entry, delay_seconds=max(entry.delay_seconds or 0.0, seconds))


def collector_for(name: str, fetcher: "Fetcher") -> Collector:
    """Return the collector with a name. Raises UserError when neither caslon nor a plug-in has it."""
    if name in BUILT_IN:
        module, _, kind = BUILT_IN[name].partition(":")
        make: Callable[[Fetcher], Collector] = getattr(import_module(f"caslon.corpus.collect.sources.{module}"), kind)
        return make(fetcher)
    plug_ins = entry_points(group=GROUP)
    found = [point for point in plug_ins if point.name == name]
    if not found:
        known = ", ".join(sorted({*BUILT_IN, *(point.name for point in plug_ins)}))
        raise UserError(f"no collector is called '{name}'", where="field collector", fix=f"use one of: {known}")
    plugged: Callable[[Fetcher], Collector] = found[0].load()
    return plugged(fetcher)
