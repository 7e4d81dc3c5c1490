"""EPUB: turns the chapters of an e-book, in the order of its spine, into one document.

The plain text that ranges count in is the chapters' XHTML source, parted by form feeds; each chapter goes through the reader
of HTML as a page of a book. Pages that only list contents (`nav`, cover, copyright of the distributor) lie outside the spine
or give no text. Format: EPUB 3.3, https://www.w3.org/TR/epub-33/.
"""

import posixpath
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from caslon.corpus.detect import DecodeFailed, decode
from caslon.corpus.document import Block, Reject
from caslon.corpus.read.html import book_blocks
from caslon.corpus.read.reading import Extracted, Opened, ReadSettings, Source, Unreadable, joined_parts
from caslon.corpus.read.zipped import member, open_zip, xml_root

WHAT = "the EPUB book"
CHAPTER_BREAK = "\f"
CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
CHAPTER_TYPES = ("application/xhtml+xml", "text/html", "application/html+xml")


def open_epub(data: bytes) -> Opened:
    """Return the source of the chapters in reading order. Raises `Unreadable`."""
    with open_zip(data, WHAT) as archive:
        package_name = _package_name(archive)
        package = xml_root(member(archive, package_name, WHAT), package_name)
        names = _spine(package, posixpath.dirname(package_name))
        _check_locks(archive, names)
        text, parts = joined_parts(_chapters(archive, names), CHAPTER_BREAK)
    facts = {key: _first(package, key) for key in ("title", "creator", "language", "date")}
    metadata: dict[str, Any] = {"chapters": [[part.start, part.name] for part in parts]}
    if facts["creator"]:
        metadata["author"] = facts["creator"]
    if facts["language"]:
        metadata["book_language"] = facts["language"]
    if facts["date"]:
        metadata["edition_date"] = facts["date"]  # of the e-book, which says nothing of the text's age
    return Opened(text, parts, facts["title"], metadata)


def read_epub(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the one document of a book."""
    assert source.opened is not None
    blocks: list[Block] = []
    for part in source.opened.parts:
        found = book_blocks(source.text[part.start : part.end])
        blocks += [replace(block, start=block.start + part.start, end=block.end + part.start) for block in found]
    yield Extracted(blocks=tuple(blocks), title=source.opened.title, metadata=dict(source.opened.metadata))


def _package_name(archive: zipfile.ZipFile) -> str:
    container = xml_root(member(archive, CONTAINER, WHAT), CONTAINER)
    paths: list[str] = container.xpath("//*[local-name()='rootfile']/@full-path")
    if not paths:
        raise Unreadable("malformed_xml", f"{CONTAINER} names no package")
    return paths[0]


def _spine(package: Any, folder: str) -> list[str]:
    """Return the names of the chapters in reading order."""
    items = {
        item.get("id"): posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
        for item in package.xpath("//*[local-name()='manifest']/*[local-name()='item']")
        if item.get("media-type") in CHAPTER_TYPES and "nav" not in (item.get("properties") or "").split()
    }
    references: list[str] = package.xpath("//*[local-name()='spine']/*[local-name()='itemref']/@idref")
    return [items[reference] for reference in references if reference in items]


def _check_locks(archive: zipfile.ZipFile, names: list[str]) -> None:
    """Many books hide their fonts; only a lock on chapters matters."""
    if ENCRYPTION not in archive.namelist():
        return
    locked = xml_root(member(archive, ENCRYPTION, WHAT), ENCRYPTION).xpath("//*[local-name()='CipherReference']/@URI")
    if set(names) & {unquote(uri) for uri in locked}:
        raise Unreadable("encrypted", "the chapters of the EPUB book are encrypted")


def _chapters(archive: zipfile.ZipFile, names: list[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            text = decode(member(archive, name, WHAT)).text
        except DecodeFailed as error:
            raise Unreadable("decode_failed", f"{name}: {error}") from error
        yield name, text.replace(CHAPTER_BREAK, " ")


def _first(package: Any, name: str) -> str:
    found = package.xpath(f"//*[local-name()='metadata']/*[local-name()='{name}']/text()")
    return " ".join(found[0].split()) if found else ""
