"""A list of ids, addresses and hashes becomes rejects: texts that must not enter this corpus or any later one.

One entry a line, `#` begins a comment. Sixteen hex digits are a document's id or the beginning of a raw file's SHA-256,
64 are a whole SHA-256, all else is an address: a URL, a path as registered, `path!member` or `path!member#record`. The text
of a forgotten document is not kept; its reject names where it stands and how long it was.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caslon.corpus.collect import RawFile
from caslon.corpus.document import Document, Origin, Reject
from caslon.errors import UserError

STEP = "forget"
CODE = "forgotten"
HASH_DIGITS = 16
SHA256_DIGITS = 64
URL_KEYS = ("url", "final_url", "canonical_url", "location")

_HEX = re.compile(r"[0-9a-f]{8,}", re.IGNORECASE)
_SCHEME_AND_HOST = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)


@dataclass(frozen=True)
class Forget:
    """What must not enter: `hashes` in lower case, `addresses` in their plain form. An empty list forgets nothing."""

    hashes: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()

    @staticmethod
    def load(path: str | Path) -> "Forget":
        """Return the list of a file; an empty path is an empty list. `UserError` for no file or a hash of odd length."""
        if not str(path):
            return Forget()
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read the list of what to forget: {error}", where=str(path), fix="check corpus.forget"
            ) from error
        hashes: set[str] = set()
        addresses: set[str] = set()
        for number, line in enumerate(lines, start=1):
            entry = line.split(" #")[0].strip()
            if not entry or entry.startswith("#"):
                continue
            if not _HEX.fullmatch(entry):
                addresses.add(plain_address(entry))
            elif len(entry) in {HASH_DIGITS, SHA256_DIGITS}:
                hashes.add(entry.lower())
            else:
                raise UserError(
                    f"a hash of {len(entry)} digits",
                    where=f"{path}:{number}",
                    fix=f"give a document's id or the first {HASH_DIGITS} digits of a SHA-256, or all {SHA256_DIGITS}",
                )
        return Forget(frozenset(hashes), frozenset(addresses))

    def __len__(self) -> int:
        """How many entries the list has: the figure for the manifest."""
        return len(self.hashes) + len(self.addresses)

    def check(self, document: Document) -> Document | Reject:
        """Return the document, or a reject without its text when the list names it."""
        if not self:
            return document
        entry = self._entry(document.origin, document.metadata, document.id)
        if entry is None:
            return document
        return _forgotten(document.origin, entry, {"characters": len(document.text)})

    def check_raw(self, raw: RawFile) -> Reject | None:
        """Return a reject when the list names a raw file, so that it is not even read."""
        entry = self._entry(raw.origin, raw.metadata, Document(raw.origin, ()).id) if self else None
        return None if entry is None else _forgotten(raw.origin, entry, {"bytes": len(raw.bytes)})

    def _entry(self, origin: Origin, metadata: Mapping[str, Any], identifier: str) -> str | None:
        digest = origin.sha256.lower()
        named = (identifier, digest, digest[:HASH_DIGITS])
        found = next((name for name in named if name and name in self.hashes), None)
        if found or not self.addresses:
            return found
        return next((name for name in _addresses(origin, metadata) if name in self.addresses), None)


def plain_address(address: str) -> str:
    """Return an address as it is compared: scheme and host of a URL in lower case, no slash at the end."""
    plain = _SCHEME_AND_HOST.sub(lambda found: found[0].lower(), address.strip(), count=1)
    return plain.rstrip("/")


def _addresses(origin: Origin, metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield every address a text goes by: a file's also stands for its members, a member's for its records."""
    yield plain_address(origin.address)
    if origin.member:
        yield plain_address(f"{origin.path}!{origin.member}")
    yield plain_address(origin.path)
    for key in URL_KEYS:
        if isinstance(value := metadata.get(key), str):
            yield plain_address(value)
            yield plain_address(value.partition("#")[0])


def _forgotten(origin: Origin, entry: str, size: dict[str, int]) -> Reject:
    return Reject(origin, STEP, CODE, f"'{entry}' is on the list of what to forget", metadata=dict(size))
