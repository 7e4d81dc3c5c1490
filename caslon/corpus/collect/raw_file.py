"""What collecting gives: one file or archive member as it came, with what is known about it."""

import builtins
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from caslon.corpus.document import Origin

Problem = tuple[str, str]  # a reject code and its reason in words
PART = re.compile(r"@(\d+)-(\d+)$")  # bytes of a large file, at the end of a member's name


@dataclass(frozen=True, slots=True)
class RawFile:
    """One file or archive member as it came, with what the registry knows about it. Can be sent to another process.

    A member of an archive inside an archive is `outer!inner`. A part of a large file ends in `@first-last` (bytes of the
    unpacked file, half-open); its metadata holds `line_offset` and `byte_offset`, which added to a line number or byte
    offset in the part give the one in the file.
    """

    source: str
    path: str  # relative to the entry's base
    member: str
    bytes: builtins.bytes
    sha256: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()  # what went wrong while it was fetched

    @property
    def origin(self) -> Origin:
        """The address documents made of this file carry."""
        return Origin(self.source, self.path, self.member, "", self.sha256)

    @property
    def whole_member(self) -> str:
        """The member without the range of a part."""
        return PART.sub("", self.member) if "line_offset" in self.metadata else self.member

    @property
    def name(self) -> str:
        """The file name, for a tie between types."""
        return PurePosixPath(self.whole_member or self.path).name
