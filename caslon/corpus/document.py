"""A document on its way from a raw file to the corpus.

Documents are frozen: a step returns a new one, or a `Reject` with a reason. Each block remembers which characters of the
raw text it came from, so that any passage of the corpus leads back to its place in a file.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

BLOCK_SEPARATOR = "\n\n"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document's raw bytes lie: a file, a member of it when it is an archive, a record in that."""

    source: str  # id in the registry
    path: str  # file as registered, relative to the registry or absolute
    member: str = ""  # path inside an archive
    record: str = ""  # id of a record inside the file (a trial, a row, a docstring's qualified name)
    sha256: str = ""  # of the member's raw bytes

    @property
    def address(self) -> str:
        """The origin as one line: `path!member#record`."""
        member = f"!{self.member}" if self.member else ""
        return f"{self.path}{member}{'#' + self.record if self.record else ''}"


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, heading, verse group or code file: text and its half-open range of characters in the decoded raw text."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its provenance and everything the steps found out about it."""

    origin: Origin
    blocks: tuple[Block, ...]
    tier: str = "general"  # general | gutenberg | historical | web | code
    title: str = ""
    year: int | None = None
    licence: str = ""
    group: str = ""  # documents of one group never stand in different splits
    scores: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    removals: tuple["Removal", ...] = ()

    @property
    def id(self) -> str:
        """16 hex digits that depend on the address and the raw bytes, not on settings or order."""
        return hashlib.sha256(
            f"{self.origin.source}\0{self.origin.address}\0{self.origin.sha256}".encode()
        ).hexdigest()[:16]

    @property
    def text(self) -> str:
        """The whole text: blocks joined by a blank line."""
        return BLOCK_SEPARATOR.join(block.text for block in self.blocks)

    def with_scores(self, **scores: float) -> "Document":
        """Return the document with more scores."""
        return replace(self, scores={**self.scores, **scores})


@dataclass(frozen=True, slots=True)
class Removal:
    """Characters taken out of a kept document, and why."""

    code: str  # ad_block | boilerplate_line | duplicate_paragraph | foreign_paragraph | masked
    text: str  # empty where it must not be kept
    start: int  # in the decoded raw text
    end: int
    characters: int = -1  # how many were taken out; by default the length of `text`

    def __post_init__(self) -> None:
        if self.characters < 0:
            object.__setattr__(self, "characters", len(self.text))


@dataclass(frozen=True, slots=True)
class Reject:
    """A document that does not enter the corpus: kept whole, with the step, the code and the reason in words."""

    origin: Origin
    step: str
    code: str
    reason: str
    text: str = ""
    start: int = 0
    end: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The id the document has or would have had."""
        return Document(self.origin, ()).id


REJECT_CODES = (
    "fetch_failed", "robots_denied", "licence_denied", "too_large", "empty", "unknown_type", "decode_failed", "truncated",
    "unsafe_xml", "malformed_xml", "malformed_record", "encrypted", "scanned_pdf", "timeout", "step_failed", "error_page",
    "no_text", "wrong_language", "out_of_period", "too_short", "low_meaningful_ratio", "ad_dense", "repetitive", "garbled",
    "exact_duplicate", "near_duplicate", "contaminated", "secret_found", "forgotten", "source_surplus", "short_segment",
)  # fmt: skip
