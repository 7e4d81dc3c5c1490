"""Project Gutenberg: turns its catalogue (one CSV file) and a mirror into books, never touching the website.

The website's terms exclude robots (gutenberg.org/policy/robot_access.html), so both come from a mirror; addresses on the
website in a registry only name a book. Plain text is preferred to HTML. The catalogue has one row an edition; editions with
the same author and title form one group, so a work never stands in two splits.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import urlsplit

from caslon.corpus.collect.collector import FileCollector, Item, slowed
from caslon.corpus.collect.fetch import Fetcher
from caslon.corpus.collect.sources.addresses import listed
from caslon.corpus.registry_entry import SourceEntry
from caslon.errors import UserError

MIRROR = "https://aleph.pglaf.org"
CATALOGUE = "/cache/epub/feeds/pg_catalog.csv"
DELAY_SECONDS = 2.0
WEBSITE = ("gutenberg.org", "www.gutenberg.org")
BOOK = re.compile(r"(?:^|/)(?:ebooks/|pg)?(\d+)(?:[./-].*)?$")
LIFE = re.compile(r"\b(\d{3,4})\??-(\d{3,4})\??|\b(\d{3,4})\??-|-(\d{3,4})\b")
LONGEST_LIFE_YEARS = 100
CATALOGUE_MAX_BYTES = 1 << 30


class Gutenberg(FileCollector):
    """Finds books in the catalogue by number, or by terms and years, and fetches them from a mirror."""

    def __init__(self, fetcher: Fetcher, mirror: str = MIRROR) -> None:
        super().__init__(fetcher)
        self._mirror = mirror.rstrip("/")

    def discover(self, entry: SourceEntry) -> Iterator[Item]:
        """Yield the books an entry names by number, or those of the catalogue that fit its terms, years and languages."""
        entry = slowed(entry, DELAY_SECONDS)
        mirror = self._mirror_of(entry)
        numbers = [] if entry.is_search else _numbers(entry.location)
        wanted = set(numbers)
        for row in self._catalogue(entry, mirror):
            number = int(row["Text#"])
            if number in wanted or (not numbers and _fits(row, entry)):
                wanted.discard(number)
                yield _item(entry, mirror, number, row)
                if numbers and not wanted:
                    return
        for number in sorted(wanted):
            yield _item(entry, mirror, number, {})  # a book that the catalogue does not list

    def _mirror_of(self, entry: SourceEntry) -> str:
        named = entry.location if "://" in entry.location and "," not in entry.location else ""
        is_mirror = named and urlsplit(named).hostname not in WEBSITE and not BOOK.search(urlsplit(named).path)
        mirror = named.rstrip("/") if is_mirror else self._mirror
        if urlsplit(mirror).hostname in WEBSITE:
            raise UserError(
                "Project Gutenberg's website must not be read by robots",
                where=f"source {entry.id}",
                fix=f"name a mirror instead, such as {MIRROR}",
            )
        return mirror

    def _catalogue(self, entry: SourceEntry, mirror: str) -> Iterator[dict[str, str]]:
        data = self.fetcher.page(entry, mirror + CATALOGUE, max_bytes=CATALOGUE_MAX_BYTES)
        for row in csv.DictReader(io.StringIO(data.decode("utf-8-sig"))):
            if (row.get("Text#") or "").isdigit() and row.get("Type", "Text") == "Text":
                yield row


def _numbers(location: str) -> list[int]:
    found = [BOOK.search(urlsplit(part).path if "://" in part else part) for part in listed(location)]
    return [int(match[1]) for match in found if match]


def _item(entry: SourceEntry, mirror: str, number: int, row: dict[str, str]) -> Item:
    first, *others = (f"{mirror}{path}" for path in _paths(number))
    facts: dict[str, object] = {"group": work_of(row) or f"gutenberg:{number}"}
    if row:
        facts |= {"title": _one_line(row["Title"]), "author": _one_line(row["Authors"])}
        facts["languages"] = tuple(code.strip() for code in row["Language"].split(";") if code.strip())
    return Item(entry, f"{number}.txt", first, tuple(others), metadata=facts)


def _paths(number: int) -> list[str]:
    """Where a mirror keeps a book, best first: UTF-8, then ASCII, Latin-1, the made text, and HTML."""
    digits = str(number)
    folder = "/".join([*digits[:-1], digits]) if len(digits) > 1 else f"0/{digits}"
    book = f"/{folder}/{number}"
    return [
        f"{book}-0.txt", f"{book}.txt", f"{book}-8.txt", f"/cache/epub/{number}/pg{number}.txt",
        f"{book}-h/{number}-h.htm", f"/cache/epub/{number}/pg{number}-images.html",
    ]  # fmt: skip


def _fits(row: dict[str, str], entry: SourceEntry) -> bool:
    languages = {code.strip() for code in row.get("Language", "").split(";")}
    if entry.languages and not languages.intersection(entry.languages):
        return False
    if not _lived_in(row.get("Authors", ""), entry.time_period):
        return False
    text = _plain(" ".join(row.get(name) or "" for name in ("Title", "Authors", "Subjects", "Bookshelves")))
    return any(_plain(term) in text for term in entry.search_terms)


def _lived_in(authors: str, period: tuple[int, int] | None) -> bool:
    """Whether an author was alive in the period; the catalogue has no year of first print. Unknown dates count as yes."""
    lives = []
    for born_died in LIFE.finditer(authors):
        born = int(born_died[1] or born_died[3] or 0)
        died = int(born_died[2] or born_died[4] or 0)
        lives.append((born or died - LONGEST_LIFE_YEARS, died or born + LONGEST_LIFE_YEARS))
    if period is None or not lives:
        return True
    return any(born <= period[1] and died >= period[0] for born, died in lives)


def work_of(row: dict[str, str]) -> str:
    """Return the group of an edition: its first author and title, without volume, edition and punctuation."""
    title = re.split(r"[\r\n:;]", row.get("Title") or "")[0]
    title = re.sub(r"(?i)[,(\[]?\s*\b(?:vol(?:ume|\.)?|part|book|complete|illustrated)\b.*$", "", title)
    author = re.split(r"[;,]", row.get("Authors") or "")[0]
    words = re.findall(r"[a-z0-9]+", _plain(f"{author} {title}"))
    return f"gutenberg:{'-'.join(words)}" if words and title else ""


def _plain(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(char))


def _one_line(text: str) -> str:
    return " ".join(text.split())
