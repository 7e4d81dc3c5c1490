"""A safe walk through XML: turns source text into start, end and text events with places.

expat reads one element after another, so depth costs no stack and a file no tree. Nothing outside the text is ever opened:
external DTDs are passed over, entities that could grow or that point outside are refused, entities nobody declared are
given to the caller by name. Unlike lxml it says where in the text an event stands.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol
from xml.parsers import expat  # the tricks it is open to are refused below: entities and depth

from caslon.corpus.detect import XML_CONTROLS
from caslon.corpus.document import Reject
from caslon.corpus.read.reading import Source

STEP = "read"
CHUNK_BYTES = 1 << 20
MAX_ENTITY_CHARACTERS = 16  # a declared entity may stand for a letter or a short mark


class UnsafeXml(ValueError):
    """The document plays tricks: entities that grow or reach outside, or nesting without end."""


class MalformedXml(ValueError):
    """The document breaks off or is not well formed; what came before was reported."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset  # in characters


class Handler(Protocol):
    """What takes the events. `place` is an offset in bytes; `Places` turns it into characters."""

    def start(self, name: str, attributes: dict[str, str], place: int) -> None:
        """Open an element."""

    def end(self, name: str, place: int) -> None:
        """Close an element; `place` is where its end tag begins."""

    def text(self, text: str) -> None:
        """Take character data."""

    def entity(self, name: str) -> None:
        """Take an entity that nobody declared."""


class Places:
    """Turns offsets in the UTF-8 bytes into offsets in characters; cheap when asked in rising order."""

    def __init__(self, text: str, data: bytes) -> None:
        self.data = data
        self.plain = len(text) == len(data)
        self.byte = 0
        self.character = 0

    def character_at(self, byte: int) -> int:
        """Return the number of characters before a byte."""
        if self.plain:
            return byte
        if byte < self.byte:
            self.byte = self.character = 0
        self.character += len(self.data[self.byte : byte].decode("utf-8", errors="ignore"))
        self.byte = byte
        return self.character


def walk(data: bytes, handler: Handler, max_depth: int) -> Iterator[None]:
    """Report the events of a document, pausing after each mebibyte. Raises `UnsafeXml` and `MalformedXml`."""
    parser = expat.ParserCreate("utf-8")  # wins over the encoding the document declares: it has been decoded already
    parser.buffer_text = True
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.UseForeignDTD(True)  # makes undeclared entities an event and not an error, with a DTD or without
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > max_depth:
            raise UnsafeXml(f"elements are nested more than {max_depth} deep")
        handler.start(name, attributes, parser.CurrentByteIndex)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        handler.end(name, parser.CurrentByteIndex)

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = handler.text
    parser.EntityDeclHandler = _refuse_growth
    parser.SkippedEntityHandler = lambda name, is_parameter: None if is_parameter else handler.entity(name)
    for at in range(0, max(len(data), 1), CHUNK_BYTES):
        chunk = data[at : at + CHUNK_BYTES]
        try:
            parser.Parse(chunk, at + CHUNK_BYTES >= len(data))
        except expat.ExpatError as error:
            raise _refusal(parser, error, data) from error
        yield


def xml_bytes(text: str) -> bytes:
    """Return the bytes to walk: control characters, which XML forbids, become spaces, so that places stay."""
    return XML_CONTROLS.sub(" ", text).encode("utf-8", errors="replace")


def unsafe_reject(source: Source, error: UnsafeXml) -> Reject:
    """Return the reject of a whole file that plays tricks."""
    return Reject(source.origin, STEP, "unsafe_xml", str(error), source.text, 0, len(source.text))


def malformed_reject(source: Source, error: MalformedXml, whole_until: int) -> Reject:
    """Return the reject of all that follows the last whole block; beside a kept part it has an id of its own."""
    reason = f"{error.reason} (character {error.offset:,} of {len(source.text):,})"
    origin = replace(source.origin, record=f"rest-{whole_until}") if whole_until else source.origin
    return Reject(
        origin, STEP, "malformed_xml", reason, source.text[whole_until:], whole_until, len(source.text),
        {"offset": error.offset},
    )  # fmt: skip


def _refuse_growth(
    name: str,
    is_parameter: int,
    value: str | None,
    base: str | None,
    system_id: str | None,
    public_id: str | None,
    notation: str | None,
) -> None:
    if is_parameter or notation:
        return  # never read
    if value is None:
        raise UnsafeXml(f"the entity '{name}' points outside the document, at {system_id or public_id}")
    if len(value) > MAX_ENTITY_CHARACTERS or "&" in value or "<" in value:
        raise UnsafeXml(f"the entity '{name}' stands for more than a letter or a short mark")


def _refusal(parser: expat.XMLParserType, error: expat.ExpatError, data: bytes) -> ValueError:
    words = expat.ErrorString(error.code)
    if "amplification" in words:
        return UnsafeXml(words)
    byte = min(parser.ErrorByteIndex, len(data))
    offset = len(data[:byte].decode("utf-8", errors="ignore"))
    return MalformedXml(f"{words} in line {error.lineno}, column {error.offset + 1}", offset)
