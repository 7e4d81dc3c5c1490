"""One source of texts: what a registry says about it, as one frozen record.

Fields follow the registry's JSON, key for key. A source is local (a file or folder below `base`), remote (an address or the
identifiers of items), or a search (a catalogue with terms and years).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

PYTHON = "python"
TIERS = ("general", "gutenberg", "historical", "web", "code")
FORMATS = (
    "auto", "text", "markdown", "html", "tei", "mediawiki", "xml", "pdf", "epub", "docx", "csv", "json", "jsonl", "parquet",
    "python", "code",
)  # fmt: skip
PRIORITIES = ("high", "medium", "low")
ALLOWED_USES = ("any", "non_commercial", "research", "none")  # from the freest to the strictest
ROLES = ("train", "duplicate", "negative", "sample")
STATUSES = ("verified", "unverified")  # verified: an item of it was really fetched once
COLLECTORS = (
    "folder", "gutenberg", "old_bailey", "london_lives", "internet_archive", "british_history_online", "national_archives",
    "web", "slack", "mediawiki", "rows",
)  # fmt: skip
# Collectors that can ask a catalogue, and the address that means "search here" rather than one item.
CATALOGUES = {
    "gutenberg": "https://www.gutenberg.org",
    "internet_archive": "https://archive.org",
    "british_history_online": "https://www.british-history.ac.uk",
    "national_archives": "https://discovery.nationalarchives.gov.uk",
}
FORMULAIC_PROFILES = ("old_bailey", "london_lives")  # law records repeat their wording by right


@dataclass(frozen=True)
class SourceEntry:
    """One source: where it lies, what it is, who may use it, and which of its files are wanted."""

    id: str
    location: str  # `python`, a path below `base` (or absolute), an address, or identifiers with commas between
    base: Path = Path()  # folder where relative locations, and the paths in the origins of documents, start
    title: str = ""
    collector: str = "folder"  # one of COLLECTORS, or the name of a plug-in
    time_period: tuple[int, int] | None = None
    languages: tuple[str, ...] = ()
    formats: tuple[str, ...] = ("auto",)
    priority: str = "medium"
    search_terms: tuple[str, ...] = ()
    licence: str = ""  # as registered: an SPDX id or a text
    rights_url: str = ""
    allowed_use: str = "any"  # follows from the licence where the registry does not say
    tier: str = "general"
    profile: str = ""  # how the texts are built, such as `old_bailey`
    formulaic: bool = False  # wording repeats between its documents by right, as in law records
    ocr: bool = False
    enabled: bool = True
    disabled_reason: str = ""
    max_items: int | None = None
    max_share: float | None = None  # of the corpus, 0-1; none: the recipe's
    delay_seconds: float | None = None  # between two requests; none: the recipe's
    checksum: str = ""  # `sha256:`, `sha1:` or `md5:` and hexadecimal digits, of the one file at `location`
    status: str = "unverified"
    notes: str = ""
    role: str = "train"
    include: tuple[str, ...] = ()  # globs over `path` or `path!member`; empty: everything
    exclude: tuple[str, ...] = ()
    text_field: str = ""  # collector `rows`: the field that holds the text
    selector: str = ""  # collector `web`: CSS selector of the text
    consenting_authors: tuple[str, ...] = ()  # collector `slack`: ids of those who agreed
    denied: str = ""  # why its licence keeps all of it out of this corpus; empty: it may enter
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of single members, by path inside the source

    @property
    def path(self) -> Path:
        """The file or folder the entry names."""
        return self.base / self.location

    @property
    def is_remote(self) -> bool:
        """Whether its files have to be fetched."""
        return "://" in self.location or self.collector in CATALOGUES

    @property
    def is_search(self) -> bool:
        """Whether the entry means what a catalogue finds for its terms and years, not a known item."""
        return self.location.rstrip("/") == CATALOGUES.get(self.collector)

    def wants(self, address: str) -> bool:
        """Return whether the globs let a file or member in."""
        if any(fnmatchcase(address, glob) for glob in self.exclude):
            return False
        return not self.include or any(fnmatchcase(address, glob) for glob in self.include)

    def denial(self, path: str) -> str:
        """Return why the licence keeps one file (by its path inside the source) out of this corpus; empty: it may enter."""
        return self.denied or str(self.facts.get(path, {}).get("denied", ""))
