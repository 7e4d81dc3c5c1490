"""Internet Archive: turns a search or identifiers into the text files of items, over its plain JSON interfaces.

`services/search/v1/scrape` pages through results with a cursor, `metadata/ID` lists an item's files with size, md5 and sha1,
`download/ID/FILE` gives one (archive.org/developers). Text that exists is preferred to PDF; items that are dark, or may only
be borrowed, are skipped.
"""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from caslon.corpus.collect.collector import FileCollector, Item
from caslon.corpus.collect.fetch import Fetcher
from caslon.corpus.collect.problem import ItemProblem
from caslon.corpus.collect.raw_file import RawFile
from caslon.corpus.collect.sources.addresses import listed
from caslon.corpus.collect.store import StoredFile
from caslon.corpus.registry_entry import SourceEntry

ARCHIVE = "https://archive.org"
# formats of files, best first: text of its own, then text recognised from page images, then books and pages
FORMATS = ("Text", "DjVuTXT", "Plain Text", "EPUB", "HTML", "Text PDF", "Additional Text PDF", "PDF")
RECOGNISED = ("DjVuTXT", "Text PDF", "Additional Text PDF")
PAGE_ITEMS = 100  # the least the interface gives
IDENTIFIER = re.compile(r"(?:.*/(?:details|download|metadata)/)?([\w.-]+)/?$")
CHECKSUMS = ("sha1", "md5")


class InternetArchive(FileCollector):
    """Fetches the best text of each item."""

    def __init__(self, fetcher: Fetcher, archive: str = ARCHIVE) -> None:
        super().__init__(fetcher)
        self._archive = archive.rstrip("/")

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield one item for each identifier; which of its files is taken is seen when it is fetched."""
        found = self._found(entry) if entry.is_search else iter(_identifiers(entry.location))
        for identifier in found:
            yield Item(entry, identifier, f"{self._archive}/metadata/{quote(identifier)}")

    def fetch(self, item: Item) -> Iterator[RawFile | StoredFile]:
        """Yield the item's best text file. `licence_denied` for a restricted item, `no_text` for one without text."""
        about = json.loads(self.fetcher.page(item.entry, item.url))
        metadata = about.get("metadata", {})
        if not metadata:
            raise ItemProblem("fetch_failed", f"the archive has no item '{item.path}'", 404)
        if about.get("is_dark") or str(metadata.get("access-restricted-item", "")).lower() == "true":
            raise ItemProblem("licence_denied", f"'{item.path}' is restricted: it may be borrowed, not fetched")
        best = _best(about.get("files", []))
        if best is None:
            raise ItemProblem("no_text", f"'{item.path}' has no file with text")
        yield self.fetcher.file(self._file_item(item, best, metadata))

    def _file_item(self, item: Item, file: dict[str, Any], metadata: dict[str, Any]) -> Item:
        url = f"{self._archive}/download/{quote(item.path)}/{quote(file['name'])}"
        checksums = tuple(f"{name}:{file[name]}" for name in CHECKSUMS if file.get(name))
        size = int(file["size"]) if str(file.get("size", "")).isdigit() else None
        return Item(item.entry, item.path, url, bytes=size, checksums=checksums, metadata=_facts(file, metadata))

    def _found(self, entry: SourceEntry) -> Iterator[str]:
        cursor = ""
        while True:
            asked = {"q": _query(entry), "fields": "identifier", "count": PAGE_ITEMS}
            if cursor:
                asked["cursor"] = cursor
            page = json.loads(self.fetcher.page(entry, f"{self._archive}/services/search/v1/scrape?{urlencode(asked)}"))
            yield from (row["identifier"] for row in page.get("items", []))
            cursor = page.get("cursor", "")
            if not cursor:
                return


def _identifiers(location: str) -> list[str]:
    return [match[1] for match in map(IDENTIFIER.match, listed(location)) if match]


def _query(entry: SourceEntry) -> str:
    terms = " OR ".join('"{}"'.format(term.replace('"', " ")) for term in entry.search_terms)
    parts = ["mediatype:texts", f"({terms})" if terms else ""]
    if entry.time_period:
        parts.append(f"date:[{entry.time_period[0]:04}-01-01 TO {entry.time_period[1]:04}-12-31]")
    return " AND ".join(part for part in parts if part)


def _best(files: list[dict[str, Any]]) -> dict[str, Any] | None:
    usable = [file for file in files if file.get("format") in FORMATS and str(file.get("private", "")) != "true"]
    return min(usable, key=lambda file: (FORMATS.index(file["format"]), file["name"]), default=None)


def _facts(file: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {"title": _first(metadata.get("title")), "author": _first(metadata.get("creator"))}
    year = re.match(r"(1\d{3}|20\d\d)\b", _first(metadata.get("date")) or _first(metadata.get("year")))
    if year:
        facts["year"] = int(year[1])
    facts |= {"licence_url": _first(metadata.get("licenseurl")), "rights": _first(metadata.get("rights"))}
    if file["format"] in RECOGNISED:
        facts["ocr"] = True
    return {name: value for name, value in facts.items() if value}


def _first(value: Any) -> str:
    return str(value[0] if isinstance(value, list) and value else value or "")
