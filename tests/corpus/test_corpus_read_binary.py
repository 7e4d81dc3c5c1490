"""PDF, EPUB, DOCX and Parquet: small files made here, and the real ones where they are present."""

import io
import zipfile
from itertools import pairwise

import pytest

from caslon.corpus.document import Document, Reject
from caslon.corpus.read import raw_text, read
from caslon.corpus.read.pdf import page_of

PROSE = (
    "It was about the beginning of September 1664 that I among the rest of my neighbours heard in ordinary discourse that "
    "the plague was returned again in Holland for it had been very violent there and particularly at Amsterdam and Rotter"
)


def pdf_of(pages: list[list[str]]) -> bytes:
    """A PDF with a line of text for each string; the library that reads it can write lines only by its raw calls."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode())
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier >>")
    for number, lines in enumerate(pages):
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R"
        objects.append(f"{page} /Resources << /Font << /F1 3 0 R >> >> >>".encode())
        shown = "".join(f"BT /F1 9 Tf 40 {740 - 14 * row} Td ({line}) Tj ET\n" for row, line in enumerate(lines))
        objects.append(f"<< /Length {len(shown)} >>\nstream\n{shown}endstream".encode())
    body = b"%PDF-1.4\n"
    places = []
    for number, item in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n".encode() + item + b"\nendobj\n"
    table = b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n".encode()
    return body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode() + table + trailer


def wrapped(text: str, width: int = 60) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width, break_on_hyphens=False)


def turned(number: int) -> str:
    """The prose begun at another word, so that pages differ as the pages of a book do."""
    words = PROSE.split()
    return " ".join(words[3 * number :] + words[: 3 * number])


def book_of_pages(count: int) -> bytes:
    pages = [["THE PLAGUE YEAR", "CHAPTER THE FIRST", *wrapped(PROSE), "ends here.", "1"]]
    for number in range(2, count + 1):
        pages.append(
            [
                f"The Plague Year {number}",
                *wrapped(f"Then {turned(number)}"),
                f"and so on, {turned(number)[:9]}.",
                f"{number}",
            ]
        )
    return pdf_of(pages)


def only(found) -> Document:
    (document,) = found
    assert isinstance(document, Document), document
    return document


def test_pdf_loses_running_heads_and_page_numbers_and_keeps_titles(make_raw) -> None:
    raw = make_raw(book_of_pages(6), "book.pdf")
    document = only(read(raw))
    assert document.blocks[0].text == "THE PLAGUE YEAR"
    assert document.blocks[1].text == "CHAPTER THE FIRST"
    assert "Plague Year 3" not in document.text
    assert {removal.text for removal in document.removals} == {
        *(f"The Plague Year {number}" for number in range(2, 7)), *(str(number) for number in range(1, 7)),
    }  # fmt: skip
    assert document.blocks[2].text == f"{PROSE} ends here."
    text = raw_text(raw)
    assert text.count("\f") == 5
    for removal in document.removals:
        assert text[removal.start : removal.end] == removal.text
    for block in document.blocks:
        assert " ".join(text[block.start : block.end].split()) == " ".join(block.text.split())
    assert page_of(document.metadata["pages"], document.blocks[-1].start) == 6


def test_pdf_named_html_is_read_as_pdf(make_raw) -> None:
    document = only(read(make_raw(book_of_pages(1), "page.html")))
    assert document.metadata["type"] == "pdf"
    assert document.metadata["warnings"] == ["named like html, but the content is pdf"]


@pytest.mark.parametrize(
    ("data", "code"), [(b"%PDF-1.4\nnothing at all", "truncated"), (b"%PDF-1.4\nnothing\n%%EOF", "decode_failed")]
)
def test_damaged_pdf(make_raw, data: bytes, code: str) -> None:
    (reject,) = read(make_raw(data, "a.pdf"))
    assert reject.code == code


def test_pdf_without_text_is_a_scan(make_raw) -> None:
    (reject,) = read(make_raw(pdf_of([[], []]), "scan.pdf"))
    assert (reject.code, reject.reason[:7]) == ("scanned_pdf", "2 pages")


def test_real_pdfs(real_data, make_raw) -> None:
    folder = real_data / "docs" / "pdf"
    found = {path.name: list(read(make_raw(path.read_bytes(), path.name))) for path in sorted(folder.glob("*.pdf"))}
    if not found:
        pytest.skip("no PDF files here")
    codes = {name: items[0].code for name, items in found.items() if isinstance(items[0], Reject)}
    assert codes == {"grayscale-image.pdf": "scanned_pdf", "libreoffice-writer-password.pdf": "encrypted"}
    geometry = only(found["GeoTopo-komprimiert.pdf"])
    assert (geometry.title, geometry.metadata["author"]) == ("Geometrie und Topologie", "Martin Thoma")
    assert len(geometry.metadata["pages"]) == 117
    heads = {removal.text.split(" ", 1)[-1] for removal in geometry.removals}
    assert "1.1. TOPOLOGISCHE RÄUME" in heads
    assert only(found["minimal-document.pdf"]).text.count("\n\n") == 0
    assert "taki-\nmata" in only(found["minimal-document.pdf"]).text  # `repair` joins what the lexicon knows


# --- EPUB --------------------------------------------------------------------------------------------------------------

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>
<dc:title>A Journal of the Plague Year</dc:title><dc:creator>Daniel Defoe</dc:creator><dc:language>en-GB</dc:language>
</metadata><manifest><item id="c2" href="two.xhtml" media-type="application/xhtml+xml"/>
<item id="c1" href="one%20one.xhtml" media-type="application/xhtml+xml"/>
<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>
<item id="css" href="a.css" media-type="text/css"/></manifest>
<spine><itemref idref="nav"/><itemref idref="c1"/><itemref idref="c2"/></spine></package>"""


def chapter(title: str, *paragraphs: str) -> str:
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head><body><h2>{title}</h2>{body}</body></html>'


def zip_of(members: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def epub_of(**more: str) -> bytes:
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER, "OPS/book.opf": PACKAGE,
        "OPS/two.xhtml": chapter("II", "The second chapter."), "OPS/one one.xhtml": chapter("I", "The first, été."),
        "OPS/nav.xhtml": chapter("Contents", "not this"),
    }  # fmt: skip
    return zip_of({**members, **more})


def test_epub_is_read_in_the_order_of_its_spine(make_raw) -> None:
    raw = make_raw(epub_of(), "book.epub")
    document = only(read(raw))
    assert document.text == "I\n\nThe first, été.\n\nII\n\nThe second chapter."
    assert (document.title, document.metadata["author"]) == ("A Journal of the Plague Year", "Daniel Defoe")
    assert [name for _, name in document.metadata["chapters"]] == ["OPS/one one.xhtml", "OPS/two.xhtml"]
    for block in document.blocks:
        assert block.text in raw_text(raw)[block.start : block.end]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"META-INF/container.xml": "<container/>"}, "malformed_xml"),
        ({"OPS/book.opf": "<package>"}, "malformed_xml"),
        ({"OPS/book.opf": PACKAGE.replace("two.xhtml", "gone.xhtml")}, "truncated"),
        ({"META-INF/encryption.xml": '<e><CipherReference URI="OPS/two.xhtml"/></e>'}, "encrypted"),
        (
            {
                "OPS/book.opf": '<!DOCTYPE p [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
                + PACKAGE.replace("Daniel", "&x;")
            },
            None,
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bad_epubs(make_raw, more: dict[str, str], code: str | None) -> None:
    (found,) = read(make_raw(epub_of(**more), "book.epub"))
    if code:
        assert found.code == code
    else:
        assert found.metadata["author"].strip() == "Defoe"  # nothing outside was opened


# --- DOCX --------------------------------------------------------------------------------------------------------------


def word_file() -> bytes:
    import docx

    document = docx.Document()
    document.core_properties.title = "Minutes"
    document.add_heading("Of the Fire", 1)
    document.add_paragraph("It began in Pudding Lane.").add_run(" At one of the clock.")
    document.add_paragraph("First", style="List Bullet")
    document.add_paragraph("Second", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ("Parish", "Houses", "St. Magnus", "80"), strict=True):
        cell.text = text
    document.add_paragraph("The end.")
    file = io.BytesIO()
    document.save(file)
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    space = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    members["word/footnotes.xml"] = (
        f'<w:footnotes {space}><w:footnote w:type="separator" w:id="0"><w:p><w:r><w:t>no</w:t></w:r></w:p></w:footnote>'
        '<w:footnote w:id="1"><w:p><w:r><w:t>Pepys says</w:t></w:r><w:del><w:r><w:t>old</w:t></w:r></w:del>'
        "<w:r><w:tab/><w:t>so.</w:t></w:r></w:p></w:footnote></w:footnotes>"
    ).encode()
    return zip_of(members)


def test_docx_with_tables_lists_and_notes(make_raw) -> None:
    raw = make_raw(word_file(), "minutes.docx")
    document = only(read(raw))
    assert [block.text for block in document.blocks] == [
        "Of the Fire", "It began in Pudding Lane. At one of the clock.", "First\nSecond", "Parish\tHouses\nSt. Magnus\t80",
        "The end.",
    ]  # fmt: skip
    assert document.title == "Minutes"
    ((place, note),) = document.metadata["notes"]
    assert note == "Pepys says\tso."
    text = raw_text(raw)
    assert text[place:].startswith(note)
    assert all(text[block.start : block.end] == block.text for block in document.blocks)


def test_real_word_file(real_data, make_raw) -> None:
    path = real_data / "docs" / "office" / "OB_xml_notes.docx"
    if not path.is_file():
        pytest.skip("no Word file here")
    document = only(read(make_raw(path.read_bytes(), path.name)))
    assert document.text.startswith("Old Bailey Online: XML files\n\nAuthor: Sharon Howard")
    assert "noPunish\tpardon\n" in document.text


@pytest.mark.parametrize("cut", [10, 100, 400])
@pytest.mark.parametrize("make", [word_file, epub_of])
def test_cut_off_zip_documents_are_rejects(make_raw, make, cut: int) -> None:
    (reject,) = read(make_raw(make()[:-cut], "a.docx"))
    assert reject.code in ("truncated", "unknown_type")


def test_a_bomb_in_a_word_file_is_too_large(make_raw) -> None:
    bomb = zip_of({"word/document.xml": b" " * (70 << 20), "[Content_Types].xml": "<x/>"})
    (reject,) = read(make_raw(bomb, "a.docx"))
    assert reject.code == "too_large"


# --- Parquet -----------------------------------------------------------------------------------------------------------


def test_parquet_row_by_row(make_raw) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            "id": n,
            "meta": {"text": f'Row {n} says "been"\n\nand\tgone — été.' if n != 3 else None},
            "blob": b"\xff",
            "year": 1000 + n,
        }
        for n in range(700)
    ]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=100)
    raw = make_raw(file.getvalue(), "rows.parquet", text_field="meta.text")
    found = list(read(raw))
    documents = [item for item in found if isinstance(item, Document)]
    assert len(documents) == 699
    (reject,) = [item for item in found if isinstance(item, Reject)]
    assert (reject.code, reject.origin.record) == ("malformed_record", "row-4")
    last = documents[-1]
    assert (last.text, last.year, last.origin.record) == ('Row 699 says "been"\n\nand\tgone — été.', 1699, "row-700")
    text = raw_text(raw)
    assert [text[block.start : block.end] for block in last.blocks] == ['Row 699 says \\"been\\"', "and\\tgone — été."]
    assert all(a.group != b.group for a, b in pairwise(documents))
    (damaged,) = read(make_raw(file.getvalue()[:-50], "rows.parquet"))
    assert damaged.code == "truncated"
