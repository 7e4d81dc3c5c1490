"""XML that names no text edition: turns bare records and pages into documents where they hold running text.

A page of London Lives counts whatever is marked in it: its `profile`, a paragraph, a place or an occupation makes it text. All
else (packages, pictures, tables of settings) is rejected by the name of its root.
"""

from collections.abc import Iterator

from caslon.corpus.document import Reject
from caslon.corpus.read.reading import Extracted, ReadSettings, Source
from caslon.corpus.read.safe_xml import MalformedXml, UnsafeXml, malformed_reject, unsafe_reject, walk, xml_bytes
from caslon.corpus.read.tei import LONDON_LIVES, STEP, read_tei

TEXT_NAMES = frozenset(("p", "ab", "l", "para", "geo", "occupation"))


def read_other_xml(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the documents of bare records and pages, or the reject of XML that holds no running text."""
    seen = _Names()
    try:
        for _ in walk(xml_bytes(source.text), seen, settings.max_xml_depth):
            pass
    except UnsafeXml as error:
        yield unsafe_reject(source, error)
        return
    except MalformedXml as error:
        if not _is_text(source, seen.names):
            yield malformed_reject(source, error, 0)
            return
    if _is_text(source, seen.names):
        yield from read_tei(source, settings)
        return
    reason = f"the content is XML with the root '{seen.root}', for which there is no reader"
    yield Reject(source.origin, STEP, "unknown_type", reason, source.text, 0, len(source.text))


def _is_text(source: Source, names: set[str]) -> bool:
    return source.metadata.get("profile") == LONDON_LIVES or not TEXT_NAMES.isdisjoint(names)


class _Names:
    """Keeps the name of the first element, and which names there are."""

    def __init__(self) -> None:
        self.root = ""
        self.names: set[str] = set()

    def start(self, name: str, attributes: dict[str, str], place: int) -> None:
        self.root = self.root or name
        self.names.add(name.rpartition(":")[2].lower())

    def end(self, name: str, place: int) -> None: ...

    def text(self, text: str) -> None: ...

    def entity(self, name: str) -> None: ...
