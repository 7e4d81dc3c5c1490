"""Old Bailey Proceedings: turns a bulk archive of TEI files, or records of the public API, into raw XML.

The API answers `oldbailey_record_single?idkey=t17540116-4` with JSON whose `_source.xml` is the record, and
`oldbailey_record?text=...&year_gte=...&year_lte=...&from=N` with ten hits a page (oldbaileyonline.org/about/api). The data is
CC BY-NC 4.0; records dated outside the entry's years are rejected, by the date in their id.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode, urlsplit

from caslon.corpus.collect.collector import FileCollector, Item
from caslon.corpus.collect.fetch import Fetcher
from caslon.corpus.collect.problem import ItemProblem
from caslon.corpus.collect.raw_file import RawFile
from caslon.corpus.collect.sources.addresses import NO_LIMIT, file_name, listed
from caslon.corpus.collect.store import StoredFile
from caslon.corpus.registry_entry import SourceEntry

API = "https://www.dhi.ac.uk/api/data"
LICENCE = "CC-BY-NC-4.0"
RECORD_ID = re.compile(r"\b((?:OA|[a-z])(1[6-9]\d\d)\d{4}(?:-\d+)?[a-z]?)\b")
PAGE_RECORDS = 10


class OldBailey(FileCollector):
    """Fetches the archive at an address, records by their ids, or what the API finds for terms and years."""

    def __init__(self, fetcher: Fetcher, api: str = API) -> None:
        super().__init__(fetcher)
        self._api = api.rstrip("/")

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield the archives, or one item a record."""
        entry = non_commercial(entry)
        if _is_api(entry.location, self._api):
            yield from (self._record(entry, idkey) for idkey in self._found(entry))
            return
        for part in listed(entry.location):
            found = RECORD_ID.search(part)
            if found and not part.endswith((".zip", ".tar", ".gz", ".bz2", ".xml")):
                yield self._record(entry, found[1])
            else:
                checksums = (entry.checksum,) if entry.checksum else ()
                yield Item(entry, file_name(part), part, checksums=checksums, max_bytes=NO_LIMIT)

    def fetch(self, item: Item) -> Iterator[RawFile | StoredFile]:
        """Yield the archive, or the record's XML taken out of the answer of the API."""
        idkey = item.metadata.get("idkey")
        if idkey is None:
            yield self.fetcher.file(item)
            return
        _check_year(str(idkey), item.entry.time_period)
        answer = json.loads(self.fetcher.page(item.entry, item.url, unless=item.path))
        hits = answer.get("hits", {}).get("hits", [])
        xml = next((hit["_source"].get("xml") for hit in hits if hit["_source"].get("idkey") == idkey), None)
        if not xml:
            raise ItemProblem("fetch_failed", f"the API has no XML for {idkey}", 404)
        yield self.fetcher.keep(item, xml.encode("utf-8"))

    def _record(self, entry: SourceEntry, idkey: str) -> Item:
        url = f"{self._api}/oldbailey_record_single?{urlencode({'idkey': idkey})}"
        year = RECORD_ID.fullmatch(idkey)
        facts: dict[str, Any] = {"idkey": idkey, "group": f"old_bailey:{re.sub(r'-.*', '', idkey)[1:]}"}
        return Item(entry, f"{idkey}.xml", url, metadata=facts | ({"year": int(year[2])} if year else {}))

    def _found(self, entry: SourceEntry) -> Iterator[str]:
        years = entry.time_period or (1674, 1913)
        for term in entry.search_terms or ("",):
            start, total = 0, 1
            while start < total:
                asked: dict[str, object] = {"text": term} if term else {}
                asked |= {"year_gte": years[0], "year_lte": years[1], "from": start}
                hits = json.loads(self.fetcher.page(entry, f"{self._api}/oldbailey_record?{urlencode(asked)}"))["hits"]
                yield from (hit["_source"]["idkey"] for hit in hits["hits"])
                total = hits["total"] if isinstance(hits["total"], int) else int(hits["total"]["value"])
                start += PAGE_RECORDS if hits["hits"] else total


def non_commercial(entry: SourceEntry) -> SourceEntry:
    """Return the entry with the licence of the court records, where the registry grants more than that."""
    allowed = "non_commercial" if entry.allowed_use == "any" else entry.allowed_use
    return replace(entry, licence=entry.licence or LICENCE, allowed_use=allowed)


def _is_api(location: str, api: str) -> bool:
    return location.rstrip("/") == api or urlsplit(location).path.rstrip("/").endswith("/api/data")


def _check_year(idkey: str, period: tuple[int, int] | None) -> None:
    found = RECORD_ID.fullmatch(idkey)
    if found and period and not period[0] <= int(found[2]) <= period[1]:
        raise ItemProblem(
            "out_of_period", f"{idkey} is of {found[2]}; the source is registered for {period[0]}-{period[1]}"
        )
