"""What collecting gives: one file or archive member as it came, with what is known about it."""

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from caslon.corpus.document import Origin

Problem = tuple[str, str]  # a reject code and its reason in words


@dataclass(frozen=True, slots=True)
class RawFile:
    """One file or archive member as it came, with what the registry knows about it. Can be sent to another process."""

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
    def name(self) -> str:
        """The file name, for a tie between types."""
        return PurePosixPath(self.member or self.path).name
