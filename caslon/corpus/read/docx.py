"""Word files: turns paragraphs, headings, lists, tables and notes of a .docx into one document.

The plain text that ranges count in is the paragraphs and tables in their order, then the footnotes and endnotes, parted by
blank lines. Notes stand aside in the metadata, as in TEI. Reads with python-docx, which knows no notes: those come from
their own XML (ECMA-376 part 1, 17.11).
"""

import io
import zipfile
from collections.abc import Iterator
from typing import Any

from caslon.corpus.document import Block, Reject
from caslon.corpus.read.reading import Extracted, Opened, ReadSettings, Source, Unreadable, joined_parts
from caslon.corpus.read.zipped import member, open_zip, xml_root

WHAT = "the Word file"
SEPARATOR = "\n\n"
WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
NOTE_MEMBERS = (("footnote", "word/footnotes.xml"), ("endnote", "word/endnotes.xml"))
NO_NOTES = ("separator", "continuationSeparator", "continuationNotice")  # lines between text and notes
BREAKS = {f"{WORD}br": "\n", f"{WORD}cr": "\n", f"{WORD}tab": "\t", f"{WORD}noBreakHyphen": "-"}
NOT_THE_TEXT = (f"{WORD}del", f"{WORD}moveFrom", f"{WORD}instrText")


def open_docx(data: bytes) -> Opened:
    """Return the paragraphs, tables and notes as plain text. Raises `Unreadable`."""
    import docx
    from docx.opc.exceptions import PackageNotFoundError

    with open_zip(data, WHAT) as archive:
        notes = list(_notes(archive))
    try:
        document = docx.Document(io.BytesIO(data))
    except (PackageNotFoundError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise Unreadable("truncated", f"{WHAT} is damaged: {error}") from error
    named = [(name, text) for name, text in (*_elements(document), *notes) if text.strip()]
    text, parts = joined_parts(named, SEPARATOR)
    properties = document.core_properties
    metadata: dict[str, Any] = {"author": properties.author} if properties.author else {}
    headings = [part.start for part in parts if part.name.startswith("heading")]
    if headings:
        metadata["headings"] = headings
    return Opened(text, parts, (properties.title or "").strip(), metadata)


def read_docx(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the one document of a Word file."""
    assert source.opened is not None
    blocks = []
    notes = []
    for part in source.opened.parts:
        text = source.text[part.start : part.end].strip()
        if part.name in ("footnote", "endnote"):
            notes.append([part.start, text])
        else:
            blocks.append(Block(text, part.start, part.end))
    aside = {"notes": notes} if notes else {}
    yield Extracted(blocks=tuple(blocks), title=source.opened.title, metadata={**source.opened.metadata, **aside})


def _elements(document: Any) -> Iterator[tuple[str, str]]:
    """Yield `(kind, text)` of paragraphs and tables in their order; the items of a list are one element."""
    from docx.table import Table

    items: list[str] = []
    for element in document.iter_inner_content():
        is_table = isinstance(element, Table)
        style = "" if is_table else str(element.style.name if element.style is not None else "")
        text = _table_text(element) if is_table else _text(element._p)
        if style.startswith("List"):
            items.append(text)
            continue
        if items:
            yield "list", "\n".join(items)
            items = []
        yield ("table" if is_table else style.lower() if style.startswith("Heading") else "paragraph"), text
    if items:
        yield "list", "\n".join(items)


def _table_text(table: Any) -> str:
    rows = []
    for row in table.rows:
        seen: list[Any] = []  # a merged cell is met once for each column it spans
        for cell in row.cells:
            if not any(cell._tc is other._tc for other in seen):
                seen.append(cell)
        cells = [" ".join(" ".join(_text(paragraph._p) for paragraph in cell.paragraphs).split()) for cell in seen]
        rows.append("\t".join(cells))
    return "\n".join(row for row in rows if row.strip())


def _text(element: Any) -> str:
    """Return the text of a paragraph as it reads now: insertions are taken, deletions are not."""
    parts = []
    skipped: Any = None
    for child in element.iter():
        if skipped is not None and skipped in child.iterancestors():
            continue
        skipped = child if child.tag in NOT_THE_TEXT else None
        if child.tag == f"{WORD}t":
            parts.append(child.text or "")
        elif child.tag in BREAKS:
            parts.append(BREAKS[child.tag])
    return "".join(parts).strip()


def _notes(archive: zipfile.ZipFile) -> Iterator[tuple[str, str]]:
    for kind, name in NOTE_MEMBERS:
        if name in archive.namelist():
            for note in xml_root(member(archive, name, WHAT), name).iter(f"{WORD}{kind}"):
                if note.get(f"{WORD}type") not in NO_NOTES:
                    yield kind, "\n".join(filter(None, (_text(paragraph) for paragraph in note.iter(f"{WORD}p"))))
