"""What a reader gets and gives: decoded text in, titles, blocks and notes out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from caslon.corpus.document import Block, Origin, Removal


@dataclass(frozen=True)
class ReadSettings:
    """What may be chosen about reading."""

    gap_mark: str = "[...]"  # stands where the original is illegible or lost
    old_bailey_records: tuple[str, ...] = ("frontMatter", "trialAccount")  # kinds of division that become documents
    max_xml_depth: int = 500  # real books nest about 20 elements
    reject_bytes: int = 100_000  # of a file that is no text, kept with its reject


@dataclass(frozen=True)
class Source:
    """One decoded raw file on its way through a reader."""

    origin: Origin
    text: str
    name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Extracted:
    """A document as a reader finds it, before the registry's facts are joined to it."""

    blocks: tuple[Block, ...]
    title: str = ""
    year: int | None = None
    tier: str = ""  # empty: the source's
    record: str = ""  # id inside the file when the file holds several documents
    group: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    removals: tuple[Removal, ...] = ()
