"""What a reader gets and gives: decoded text in, titles, blocks and notes out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from caslon.corpus.document import Block, Origin, Removal


@dataclass(frozen=True)
class ReadSettings:
    """What may be chosen about reading."""

    gap_mark: str = "[...]"  # stands where the original is illegible or lost
    old_bailey_records: tuple[str, ...] = ("frontMatter", "trialAccount")  # kinds of division that become documents
    annotated: tuple[str, ...] = ("name", "geo", "occupation", "date")  # elements of XML kept as stand-off annotations
    max_xml_depth: int = 500  # real books nest about 20 elements
    reject_bytes: int = 100_000  # of a file that is no text, kept with its reject


class Unreadable(ValueError):
    """A file whose type is known cannot be read; the reject gets this code and reason."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Part:
    """A page, chapter or paragraph of a binary file: its name and its half-open range in the file's plain text."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Opened:
    """A binary file as plain text: what its ranges count in, its parts in order, and what the file says about itself."""

    text: str
    parts: tuple[Part, ...] = ()
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def joined_parts(named_texts: Iterable[tuple[str, str]], separator: str) -> tuple[str, tuple[Part, ...]]:
    """Return texts as one, and where each lies in it."""
    texts: list[str] = []
    parts: list[Part] = []
    start = 0
    for name, text in named_texts:
        texts.append(text)
        parts.append(Part(name, start, start + len(text)))
        start += len(text) + len(separator)
    return separator.join(texts), tuple(parts)


@dataclass(frozen=True)
class Source:
    """One raw file on its way through a reader: decoded, or opened when it is binary (then `text` is the opened text)."""

    origin: Origin
    text: str
    name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    data: bytes = b""
    opened: Opened | None = None
    language: str = ""  # of source code


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
