"""The National Archives (Discovery): turns a search into catalogue descriptions, kept as metadata and not as text.

The interface `API/search/v1/records` describes documents and does not hold them; at most one call a second and 3,000 a day
are allowed, so calls are counted by day in the store. An entry that names a `text_field` (such as `description`) asks for the
descriptions as text. The documents themselves come from a local folder.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from caslon.corpus.collect.collector import FileCollector, Item, slowed
from caslon.corpus.collect.fetch import Fetcher
from caslon.corpus.collect.raw_file import RawFile
from caslon.corpus.collect.store import StoredFile
from caslon.corpus.registry_entry import SourceEntry

DISCOVERY = "https://discovery.nationalarchives.gov.uk"
SEARCH = "/API/search/v1/records"
DELAY_SECONDS = 1.0
CALLS_PER_DAY = 3000
PAGE_RECORDS = 100


class NationalArchives(FileCollector):
    """Keeps each page of results as one JSON Lines file, a description a line."""

    def __init__(self, fetcher: Fetcher, site: str = DISCOVERY) -> None:
        super().__init__(fetcher)
        self._site = site.rstrip("/")

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield one item for each page of results of each search term."""
        entry = slowed(entry, DELAY_SECONDS)
        for term in entry.search_terms:
            mark, number = "*", 0
            while mark:
                url = f"{self._site}{SEARCH}?{urlencode(_asked(entry, term, mark))}"
                page = self._page(entry, url)
                if page.get("records"):
                    yield _item(entry, term, number, url)
                mark, number = _next_mark(page, mark), number + 1

    def fetch(self, item: Item) -> Iterator[RawFile | StoredFile]:
        """Yield the descriptions of one page of results."""
        records = self._page(item.entry, item.url, unless=item.path).get("records", [])
        lines = [json.dumps(record, ensure_ascii=False, sort_keys=True) for record in records]
        yield self.fetcher.keep(item, ("\n".join(lines) + "\n").encode())

    def _page(self, entry: SourceEntry, url: str, unless: str = "") -> dict[str, Any]:
        self.fetcher.count_call(self._site, CALLS_PER_DAY)
        headers = {"accept": "application/json"}
        found: dict[str, Any] = json.loads(self.fetcher.page(entry, url, headers, unless=unless))
        return found


def _item(entry: SourceEntry, term: str, number: int, url: str) -> Item:
    name = "".join(char if char.isalnum() else "-" for char in term.lower())
    known: dict[str, Any] = {"text_field": entry.text_field} if entry.text_field else {"catalogue_only": True}
    return Item(entry, f"{name}-{number:05d}.jsonl", url, metadata=known)


def _asked(entry: SourceEntry, term: str, mark: str) -> dict[str, object]:
    asked: dict[str, object] = {
        "sps.searchQuery": term,
        "sps.resultsPageSize": PAGE_RECORDS,
        "sps.batchStartMark": mark,
    }
    if entry.time_period:
        asked["sps.dateFrom"] = f"{entry.time_period[0]:04}-01-01"
        asked["sps.dateTo"] = f"{entry.time_period[1]:04}-12-31"
    return asked


def _next_mark(page: dict[str, Any], mark: str) -> str:
    following = str(page.get("nextBatchMark") or "")
    return "" if following == mark or not page.get("records") else following
