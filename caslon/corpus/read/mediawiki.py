"""MediaWiki dumps: turns each page of the main namespace into a document of prose, page by page.

Templates, tables, references, pictures and categories go, links keep their words (mwparserfromhell). Redirects and pages of
other namespaces give no documents; one reject each names and counts them. Format: https://www.mediawiki.org/xml/export-0.11.xsd
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from caslon.corpus.document import Block, Reject
from caslon.corpus.read.reading import Extracted, ReadSettings, Source
from caslon.corpus.read.safe_xml import (
    MalformedXml,
    Places,
    UnsafeXml,
    malformed_reject,
    unsafe_reject,
    walk,
    xml_bytes,
)

STEP = "read"
MAIN_NAMESPACE = "0"
KEPT_CHILDREN = {
    ("page", "title"): "title", ("page", "ns"): "namespace", ("page", "id"): "id", ("revision", "id"): "revision",
    ("revision", "timestamp"): "timestamp", ("revision", "text"): "text",
}  # fmt: skip
NOT_PROSE_LINK = re.compile(
    r"\s*:?(?:file|image|media|category|datei|bild|kategorie|fichier|catégorie|archivo|[a-z]{2,3}(?:-\w+)?)\s*:", re.I
)
NOT_PROSE_TAGS = frozenset(
    ("ref", "table", "gallery", "math", "timeline", "score", "imagemap", "chem", "hiero", "graph", "references")
)
REDIRECT = re.compile(r"\s*#\s*(?:redirect|weiterleitung|redirection|redirección)\b[\s:]*\[\[([^\]|#]*)", re.IGNORECASE)
MAGIC_WORD = re.compile(r"__[A-Z]{3,}__")
HEADING = re.compile(r"^(={1,6})\s*(.*?)\s*\1\s*$", re.MULTILINE)
LIST_MARK = re.compile(r"^[*#:;]+[ \t]*", re.MULTILINE)
EMPTY_BRACKETS = re.compile(r"\s?\(\s*[,;]*\s*\)")
PARAGRAPHS = re.compile(r"\n[ \t]*\n\s*")


@dataclass
class Page:
    """One page as it is read, with the place of its wikitext."""

    start: int
    title: str = ""
    namespace: str = ""
    id: str = ""
    revision: str = ""
    timestamp: str = ""
    text: str = ""
    redirect: str = ""
    text_start: int = 0
    text_end: int = 0


def read_mediawiki(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the articles of a dump, then what was passed over."""
    reading = _Reading(source)
    problem: Reject | None = None
    try:
        for _ in walk(reading.data, reading, settings.max_xml_depth):
            yield from reading.take_finished()
    except UnsafeXml as error:
        problem = unsafe_reject(source, error)
    except MalformedXml as error:
        problem = malformed_reject(source, error, reading.whole_until)
    yield from reading.take_finished()
    yield from reading.passed_over()
    if problem:
        yield problem


class _Reading:
    """One dump on its way through: takes the events of the walk and collects finished pages."""

    def __init__(self, source: Source) -> None:
        self.data = xml_bytes(source.text)
        self.whole_until = 0  # characters up to the last whole page
        self._source = source
        self._places = Places(source.text, self.data)
        self._path: list[str] = []
        self._page: Page | None = None
        self._field = ""
        self._parts: list[str] = []
        self._finished: list[Page] = []
        self._redirects: list[str] = []
        self._others: list[str] = []

    def start(self, name: str, attributes: dict[str, str], place: int) -> None:
        """Open an element."""
        name = name.rpartition(":")[2].lower()
        parent = self._path[-1] if self._path else ""
        self._path.append(name)
        if name == "page":
            self._page = Page(self._places.character_at(place))
        elif self._page is None:
            return
        elif name == "redirect":
            self._page.redirect = attributes.get("title", "?")
        elif (parent, name) in KEPT_CHILDREN:
            self._field, self._parts = KEPT_CHILDREN[parent, name], []
            if self._field == "text":
                tag_start = self._places.character_at(place)
                self._page.text_start = self._source.text.find(">", tag_start) + 1

    def end(self, name: str, place: int) -> None:
        """Close an element."""
        name = self._path.pop()
        if self._page is None:
            return
        if self._field and KEPT_CHILDREN.get((self._path[-1] if self._path else "", name)) == self._field:
            setattr(self._page, self._field, "".join(self._parts))
            if self._field == "text":
                self._page.text_end = self._places.character_at(place)
            self._field = ""
        elif name == "page":
            self.whole_until = self._source.text.find(">", self._places.character_at(place)) + 1
            self._sort(self._page)
            self._page = None

    def text(self, text: str) -> None:
        """Take character data."""
        if self._field:
            self._parts.append(text)

    def entity(self, name: str) -> None:
        """An entity nobody declared stands for nothing here."""

    def _sort(self, page: Page) -> None:
        redirect = page.redirect or (match[1] if (match := REDIRECT.match(page.text)) else "")
        if redirect:
            self._redirects.append(f"{page.title} → {redirect}")
        elif (page.namespace or MAIN_NAMESPACE) != MAIN_NAMESPACE:
            self._others.append(page.title)
        else:
            self._finished.append(page)

    def take_finished(self) -> Iterator[Extracted | Reject]:
        """Yield the documents of the pages finished since the last call."""
        finished, self._finished = self._finished, []
        for page in finished:
            yield _document(self._source, page)

    def passed_over(self) -> Iterator[Reject]:
        """Yield what gave no documents: redirects, which hold no text, and pages that are no articles."""
        for record, code, titles, what in (
            ("redirects", "no_text", self._redirects, "redirects to other pages"),
            ("other-namespaces", "source_surplus", self._others, "pages outside the main namespace"),
        ):
            if titles:
                origin = replace(self._source.origin, record=record)
                reason = f"{len(titles):,} {what}"
                yield Reject(origin, STEP, code, reason, "\n".join(titles), 0, 0, {"pages": len(titles)})


def _document(source: Source, page: Page) -> Extracted | Reject:
    text = prose_of(page.text)
    record = f"page-{page.id or page.start}"
    origin = replace(source.origin, record=record)
    if not text:
        return Reject(
            origin,
            STEP,
            "no_text",
            f"the page '{page.title}' holds no prose",
            page.text,
            page.text_start,
            page.text_end,
        )
    blocks = tuple(
        Block(part.strip(), page.text_start, page.text_end) for part in PARAGRAPHS.split(text) if part.strip()
    )
    facts = {"page_id": page.id, "revision_id": page.revision, "revision_date": page.timestamp}
    return Extracted(
        blocks=blocks,
        title=page.title,
        record=record,
        group=f"{origin.source}:{origin.address}",
        metadata={key: value for key, value in facts.items() if value},
    )


def prose_of(wikitext: str) -> str:
    """Return the prose of a page: headings and paragraphs parted by blank lines, list items on lines."""
    import mwparserfromhell

    code = mwparserfromhell.parse(MAGIC_WORD.sub("", wikitext), skip_style_tags=False)
    for node in [*code.filter_tags(recursive=True), *code.filter_wikilinks(recursive=True)]:
        if _is_no_prose(node):
            try:
                code.remove(node)
            except ValueError:
                continue  # it went with one that held it
    text = LIST_MARK.sub("- ", HEADING.sub(r"\n\n\2\n\n", str(code)))
    text = mwparserfromhell.parse(text).strip_code(normalize=True, collapse=False)
    lines = (" ".join(line.split()) for line in EMPTY_BRACKETS.sub("", text).split("\n"))
    return "\n".join("" if line == "-" else line for line in lines).strip()


def _is_no_prose(node: Any) -> bool:
    if hasattr(node, "tag"):
        return str(node.tag).strip().lower() in NOT_PROSE_TAGS
    return NOT_PROSE_LINK.match(str(node.title)) is not None and not str(node.title).strip().startswith(":")
