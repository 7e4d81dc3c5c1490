"""A folder of raw files with known truth: every type that is read, every reject code, every removal, file by file.

Nothing of it comes from elsewhere: the prose is made by `made_documents`, the files are packed here byte by byte, so that two
calls write the same bytes.
"""

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from made_documents import prose

from caslon.corpus.collect import Store, StoredFile
from caslon.corpus.collect.entries import COMPLETE
from caslon.corpus.filters import AD_WINDOW_WORDS

KEPT = "kept"
RECIPE = """
name = "fixture"
seed = 7

[corpus]
sources = "raw/sources.json"
commercial_use = true
period = [1500, 1850]
foreign_paragraphs = "drop"
decontaminate = ["evaluation.jsonl"]
forget = "forget.txt"
max_share = 0.5
split = [0.6, 0.2, 0.2]
workers = 1
collect = { store = "store", max_file_bytes = 1_500_000 }
limits = { seconds = 600.0 }  # a busy machine is no slow file
"""
BOILERPLATE = "Transcribed for the readers of the society by its honorary librarian."  # 40 characters and more
SHARED_PARAGRAPH = (
    "It hath been the custom of this parish since time out of mind that every householder who keepeth a shop within the sound of "
    "its bells shall sweep the stones before his door upon the eve of the feast, and that he who faileth shall pay a penny."
)
EVALUATION = (
    "When the clockmaker of Clerkenwell asked how many apprentices could be lodged above the workshop, the widow answered "
    "that seven had slept there in the hard winter and that none had complained."
)
SENTENCES_OF = {
    "de": "Der Kaufmann ging am frühen Morgen durch die alte Stadt und sah die Schiffe auf dem breiten Fluss liegen.",
    "fr": "Le marchand traversait la vieille ville de bon matin et regardait les bateaux sur le large fleuve tranquille.",
}
FOREIGN_NAMES = {
    "de": ("Bischof", "Schreiber", "Soldat", "Gärtner", "Fischer", "Müller", "Schneider", "Bäcker"),
    "fr": ("boulanger", "soldat", "pêcheur", "médecin", "jardinier", "tailleur", "meunier", "notaire"),
}
MODERN = (
    "In {year} the company released the smartphone, and the internet carried the video to every computer and laptop. "
    "The website of the software team was redesigned in {year}, and the television programme about the airport and the "
    "helicopter was watched online. All rights reserved. Copyright (c) {year} Example Media. See https://www.example.com/{year}."
)
ADVERTISEMENT = (
    "This day is published, price two shillings, elegantly bound, and sold by the booksellers in Paternoster Row, new novels "
    "printed for the publishers, in three volumes octavo, price 3s. 6d. sewed, the second edition, with cuts and notes."
)
FAULTS = {
    "general/slow.txt": "timeout",
    "general/breaking.txt": "step_failed",
}  # what these give when a test breaks them
# Files that want to do harm or are damaged; each is read within seconds.
HOSTILE = (
    "empty.txt", "blank.txt", "bom.txt", "random.txt", "picture.txt", "pdf-named.html", "cut.txt.gz", "cut.xml", "entity.xml",
    "bomb.xml", "deep.xml", "nul.txt", "utf16.txt", "latin1.xml", "crlf.txt", "mojibake.txt", "damaged.txt", "token.txt",
    "spam.txt", "missing.html", "licence.txt", "adverts.txt", "dated.txt", "table.txt", "script.html", "bomb.zip",
)  # fmt: skip


@dataclass
class FixtureCorpus:
    """Where the files lie, and what a build must make of them: outcomes by address, removals by code."""

    folder: Path
    truth: dict[str, Counter[str]] = field(default_factory=dict)
    removals: Counter[str] = field(default_factory=Counter)

    @property
    def recipe(self) -> Path:
        """The recipe to build it with, from inside the folder."""
        return self.folder / "recipe.toml"

    @property
    def hostile(self) -> list[Path]:
        """The files that are damaged or want to do harm."""
        return [self.folder / "raw" / "hostile" / name for name in HOSTILE]

    def with_faults(self) -> dict[str, Counter[str]]:
        """Return the truth of a build in which one file takes too long and one breaks a step."""
        return {**self.truth, **{name: Counter({code: 1}) for name, code in FAULTS.items()}}


def build_fixture(folder: Path) -> FixtureCorpus:
    """Write the files, the registry, the lists and the recipe below a folder that does not exist yet."""
    fixture = FixtureCorpus(folder)
    writer = _Writer(fixture)
    _good_texts(writer)
    _formats(writer)
    _archives(writer)
    _hostile(writer)
    _judged(writer)
    _whole_corpus(writer)
    (folder / "raw" / "sources.json").write_text(json.dumps({"sources": SOURCES}, indent=1), encoding="utf-8")
    (folder / "evaluation.jsonl").write_text(json.dumps({"question": EVALUATION}) + "\n", encoding="utf-8")
    (folder / "forget.txt").write_text("# asked for in a letter\ngeneral/forgotten.txt\n", encoding="utf-8")
    fixture.recipe.write_text(RECIPE, encoding="utf-8")
    _store(fixture)
    return fixture


def _source(identifier: str, **facts: object) -> dict[str, object]:
    return {"id": identifier, "title": identifier, "location": identifier, "licence": "CC0-1.0", **facts}


SOURCES = [
    _source("general"),
    _source("formats"),
    _source("archives"),
    _source("hostile"),
    _source("scanned", ocr=True),
    _source("parish-lines"),
    _source("copies", priority="low"),
    _source("large"),
    _source("letters", licence="CC-BY-NC-4.0"),
    _source("rows", collector="rows", text_field="body.text"),
    _source("fetched", collector="web", location="https://example.org/texts"),
]


class _Writer:
    """Writes files and notes what each must give."""

    def __init__(self, fixture: FixtureCorpus) -> None:
        self.fixture = fixture
        self._seed = 1000

    def prose(self, paragraphs: int = 4) -> str:
        """Return prose that no other file has."""
        self._seed += 1
        return prose(self._seed, paragraphs)

    def file(self, name: str, content: str | bytes, *outcomes: str, members: Mapping[str, str] | None = None) -> None:
        """Write a file whose documents and rejects have these outcomes; for an archive by member."""
        path = self.fixture.folder / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if outcomes:
            self.fixture.truth[name] = Counter(outcomes)
        for member, outcome in (members or {}).items():
            self.fixture.truth[f"{name}!{member}"] = Counter([outcome])

    def removal(self, code: str, count: int = 1) -> None:
        """Note passages that must be taken out of kept documents."""
        self.fixture.removals[code] += count


def _good_texts(writer: _Writer) -> None:
    for number in range(8):
        writer.file(f"general/good-{number}.txt", writer.prose(4 + number), KEPT)
    for name in FAULTS:
        writer.file(name, writer.prose(), KEPT)
    noisy = writer.prose(6).replace("church", "chvrch").replace("river", "r1ver").replace("city", "c1ty")
    writer.file("scanned/noisy.txt", noisy, KEPT)
    writer.file("letters/private.txt", writer.prose(), "licence_denied")


# --- types -------------------------------------------------------------------------------------------------------------


def _formats(writer: _Writer) -> None:
    new = writer.prose
    writer.file("formats/page.html", _html("A walk through the market", new()), KEPT)
    writer.file(
        "formats/notes.md", f"# A walk\n\n{new()}\n\n```sh\nls -l\n```\n\n- [a link](https://example.org/)\n", KEPT
    )
    writer.file("formats/p5.xml", _tei("TEI", 'xmlns="http://www.tei-c.org/ns/1.0"', new()), KEPT)
    writer.file("formats/old.xml", _tei("TEI.2", "", new()), KEPT)
    writer.file("formats/session.xml", _session([new(2) for _ in range(3)]), KEPT, KEPT, KEPT)
    writer.file("formats/other.xml", f"<?xml version='1.0'?><letter>{_paragraphs(new())}</letter>", KEPT)
    writer.file("formats/wiki.xml", _wiki(new()), KEPT)
    writer.file("formats/program.py", _PROGRAM, KEPT)
    writer.file("formats/program.c", _C_PROGRAM, KEPT)
    writer.file("formats/book.epub", _epub([new(), new()]), KEPT)
    writer.file("formats/letter.docx", _docx(new()), KEPT)
    writer.file("formats/print.pdf", pdf([_lines(new(3)), _lines(new(3))]), KEPT)
    writer.file("formats/scan.pdf", pdf([[], []]), "scanned_pdf")
    rows = [json.dumps({"id": number, "body": {"text": new()}}) for number in range(3)]
    writer.file(
        "rows/rows.jsonl", "\n".join([*rows[:2], '{"id": 9, "body": ', rows[2]]), KEPT, KEPT, KEPT, "malformed_record"
    )
    writer.file("formats/items.json", json.dumps([{"text": new()}, {"text": new()}], indent=1), KEPT, KEPT)
    table = f'title,text\nfirst,"{new()}"\nsecond,"{new()}"\n'
    writer.file("formats/table.csv", table, KEPT, KEPT)
    writer.file("formats/table.parquet", _parquet([new(), new()]), KEPT, KEPT)
    writer.file("formats/ebook.txt", _gutenberg(new()), KEPT)
    writer.removal("boilerplate_line", 2)  # what stands before and behind the book


def _html(title: str, text: str) -> str:
    return f"<!DOCTYPE html><html><head><title>{title}</title></head><body><h1>{title}</h1>{_paragraphs(text)}</body></html>"


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{paragraph}</p>" for paragraph in text.split("\n\n"))


def _tei(root: str, namespace: str, text: str) -> str:
    header = "<fileDesc><titleStmt><title>A Walk</title></titleStmt></fileDesc>"
    return (
        f'<?xml version="1.0"?><{root} {namespace}><teiHeader>{header}</teiHeader><text><body><div>{_paragraphs(text)}</div>'
        f"</body></text></{root}>"
    )


def _session(texts: list[str]) -> str:
    trials = "".join(
        f'<div1 type="trialAccount" id="t17540116-{number}"><interp type="date" value="17540116"/>{_paragraphs(text)}</div1>'
        for number, text in enumerate(texts, 1)
    )
    session = f'<div0 type="sessionsPaper" id="17540116">{trials}</div0>'
    return f'<?xml version="1.0"?><TEI.2><text><body>{session}</body></text></TEI.2>'


def _wiki(text: str) -> str:
    page = f"<page><title>Market</title><ns>0</ns><id>7</id><revision><id>8</id><text>{text}</text></revision></page>"
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11">{page}</mediawiki>'


_PROGRAM = (
    "import sys\n\n\nclass Ledger:\n    pass\n\n\ndef total(rows):\n    return sum(row.amount for row in rows)\n\n\n"
    * 3
)
_C_PROGRAM = (
    '#include <stdio.h>\n\nint main(int argc, char **argv) {\n    printf("%d\\n", argc);\n    return 0;\n}\n' * 2
)


def _zip(members: Mapping[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, compression)
    return file.getvalue()


def _epub(texts: list[str]) -> bytes:
    names = [f"c{number}.xhtml" for number in range(len(texts))]
    items = "".join(f'<item id="{name}" href="{name}" media-type="application/xhtml+xml"/>' for name in names)
    spine = "".join(f'<itemref idref="{name}"/>' for name in names)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        f"<dc:title>A Walk</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="book.opf" '
        'media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    chapters = {
        name: f'<html xmlns="http://www.w3.org/1999/xhtml"><body>{_paragraphs(text)}</body></html>'
        for name, text in zip(names, texts, strict=True)
    }
    return _zip(
        {"mimetype": "application/epub+zip", "META-INF/container.xml": container, "book.opf": package, **chapters}
    )


def _docx(text: str) -> bytes:
    paragraphs = "".join(f"<w:p><w:r><w:t>{paragraph}</w:t></w:r></w:p>" for paragraph in text.split("\n\n"))
    body = f'<w:document xmlns:w="{_WORD}"><w:body>{paragraphs}</w:body></w:document>'
    kinds = (
        '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType='
        '"application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" ContentType='
        '"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
    )
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type='
        '"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
        "</Relationships>"
    )
    return _zip({"[Content_Types].xml": kinds, "_rels/.rels": relations, "word/document.xml": body})


_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def _lines(text: str, width: int = 90) -> list[str]:
    lines, line = [], ""
    for word in text.replace("\n\n", " ").split():
        if len(line) + len(word) >= width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return [*lines, line]


def pdf(pages: list[list[str]], extra: str = "") -> bytes:
    """Return a PDF of pages of lines; `extra` goes into its trailer."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Courier >>",
    ]
    for number, lines in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        shown = "".join(f"BT /F1 9 Tf 40 {740 - 14 * row} Td ({line}) Tj ET\n" for row, line in enumerate(lines))
        objects.append(f"<< /Length {len(shown)} >>\nstream\n{shown}endstream")
    body, places = b"%PDF-1.4\n", []
    for number, item in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{item}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {extra} >>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode()


def _parquet(texts: list[str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), file)
    return file.getvalue()


def _gutenberg(text: str) -> str:
    return (
        "The Project Gutenberg EBook of A Walk, by Nobody\n\nTitle: A Walk\n\n"
        f"*** START OF THE PROJECT GUTENBERG EBOOK A WALK ***\n\n{text}\n\n"
        f"*** END OF THE PROJECT GUTENBERG EBOOK A WALK ***\n\nEnd of the Project Gutenberg EBook. {'Licence. ' * 40}\n"
    )


# --- archives ----------------------------------------------------------------------------------------------------------


def _archives(writer: _Writer) -> None:
    import zstandard

    new = writer.prose
    writer.file("archives/one.txt.gz", gzip.compress(new().encode(), mtime=0), KEPT)
    writer.file("archives/two.txt.bz2", bz2.compress(new().encode()), KEPT)
    writer.file("archives/three.txt.xz", lzma.compress(new().encode()), KEPT)
    writer.file("archives/four.txt.zst", zstandard.compress(new().encode()), KEPT)
    writer.file("archives/five.tar.gz", _tar({"a.txt": new(), "b.txt": new()}), members={"a.txt": KEPT, "b.txt": KEPT})
    locked = _locked(_zip({"open.txt": new(), "locked.txt": new()}), "locked.txt")
    writer.file("archives/six.zip", locked, members={"open.txt": KEPT, "locked.txt": "encrypted"})
    escaping = _zip({"../../escaped.txt": new(), "inside.txt": new()})
    writer.file("archives/seven.zip", escaping, members={"../../escaped.txt": "malformed_record", "inside.txt": KEPT})


def _tar(members: Mapping[str, str]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(file.getvalue(), mtime=0)


def _locked(archive: bytes, member: str) -> bytes:
    """Return a zip archive whose member says that it is encrypted, in its own header and in the directory."""
    name, changed = member.encode(), bytearray(archive)
    for mark, flags, length in ((b"PK\x03\x04", 6, 30), (b"PK\x01\x02", 8, 46)):
        at = -1
        while (at := archive.find(mark, at + 1)) >= 0:
            if archive[at + length : at + length + len(name)] == name:
                changed[at + flags] |= 1
    return bytes(changed)


# --- damaged and hostile files -----------------------------------------------------------------------------------------


def _hostile(writer: _Writer) -> None:
    new, numbers = writer.prose, random.Random(11)
    files: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
        "empty.txt": (b"", ("empty",)),
        "blank.txt": (" \n\t\n" * 200, ("empty",)),
        "bom.txt": (b"\xef\xbb\xbf", ("empty",)),
        "random.txt": (numbers.randbytes(9000), ("unknown_type",)),
        "picture.txt": (b"\x89PNG\r\n\x1a\n" + numbers.randbytes(3000), ("unknown_type",)),
        "pdf-named.html": (pdf([_lines(new(3))]), (KEPT,)),
        "cut.txt.gz": (_cut_gzip(writer), (KEPT, "truncated")),
        "cut.xml": (_tei("TEI.2", "", new(8))[:-900], (KEPT, "malformed_xml")),
        "entity.xml": ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><TEI><text>&x;</text></TEI>', ("unsafe_xml",)),
        "bomb.xml": (_entity_bomb(), ("unsafe_xml",)),
        "deep.xml": ("<TEI>" + "<div>" * 5000 + "deep" + "</div>" * 5000 + "</TEI>", ("unsafe_xml",)),
        "nul.txt": (new().replace("king", "ki\x00ng"), (KEPT,)),
        "utf16.txt": (new().encode("utf-16"), (KEPT,)),
        "latin1.xml": (_declared_latin1(new()), (KEPT,)),
        "crlf.txt": (new(6).replace("\n\n", "\r\n\r\n\f"), (KEPT,)),
        "mojibake.txt": (new().replace("city", "cité —").encode().decode("cp1252").encode(), (KEPT,)),
        "damaged.txt": (_damaged(new(12)), ("decode_failed",)),
        "token.txt": ("Hereafter" + "abcdefghij" * 2000, ("garbled",)),
        "spam.txt": ("Buy the wonderful elixir of the honest physician today and be well for ever.\n" * 300, ("repetitive",)),
        "missing.html": (_html("404 Not Found", "The page you asked for was not found on this server."), ("error_page",)),
        "licence.txt": (_gutenberg(""), ("no_text",)),
        "adverts.txt": (_advertisements(), ("ad_dense",)),
        "dated.txt": ("Anno Domini 1666.\n\n" + _modern(), ("out_of_period",)),
        "table.txt": (_table(numbers), ("low_meaningful_ratio",)),
        "script.html": ("<html><head><script>var a = 1;</script></head><body><script>run()</script></body></html>", ("no_text",)),
        "bomb.zip": (_zip({"zeros.txt": b"a" * (40 << 20)}), ()),
    }  # fmt: skip
    assert tuple(files) == HOSTILE
    for name, (content, outcomes) in files.items():
        writer.file(f"hostile/{name}", content, *outcomes)
    writer.fixture.truth["hostile/bomb.zip!zeros.txt"] = Counter(["too_large"])


def _advertisements() -> str:
    return "\n\n".join(ADVERTISEMENT.replace("three", word) for word in ("two", "four", "six", "eight"))


def _cut_gzip(writer: _Writer) -> bytes:
    packed = gzip.compress("\n\n".join(writer.prose() for _ in range(12)).encode(), mtime=0)
    return packed[: len(packed) // 2]


def _entity_bomb() -> str:
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    return f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY e0 "ha">{levels}]><TEI><text>&e9;</text></TEI>'


def _declared_latin1(text: str) -> bytes:
    made = _tei("TEI.2", "", text.replace("city", "cité"))
    return made.replace('version="1.0"', 'version="1.0" encoding="iso-8859-1"').encode("latin-1")


def _damaged(text: str) -> bytes:
    data = bytearray(text.replace("city", "cité — là").encode())
    numbers = random.Random(5)
    for place in numbers.sample(range(len(data)), len(data) // 30):
        data[place] = numbers.randrange(256)
    return bytes(data)


def _modern() -> str:
    return "\n\n".join(MODERN.format(year=year) for year in range(2001, 2009))


def _table(numbers: random.Random) -> str:
    rows = [" ".join(f"{numbers.randrange(10_000, 999_999)}" for _ in range(8)) for _ in range(80)]
    return (
        "The table of the tides at the bridge and the wharf in the year of the king and of the merchants\n\n"
        + "\n".join(rows)
    )


# --- what the filters must say -----------------------------------------------------------------------------------------


def _judged(writer: _Writer) -> None:
    new = writer.prose
    writer.file("general/short.txt", "Too short to be of any use to anybody.", "too_short")
    writer.file("general/german.txt", _foreign("de", 8), "wrong_language")
    writer.file("general/french.txt", _foreign("fr", 8), "wrong_language")
    writer.file("general/modern.txt", _modern().replace("company", "firm"), "out_of_period")
    writer.file("general/quoted.txt", f"{new(2)}\n\n{EVALUATION}\n\n{new(2)}", "contaminated")
    writer.file(
        "general/keys.txt",
        f"{new()}\n\nThe key of the store was AKIA{'QWERTYUIOPASDFGH'} in those days.",
        "secret_found",
    )
    writer.file("general/forgotten.txt", new(), "forgotten")
    writer.file("general/too-large.txt", new(4) + "\n\n" + "word " * 400_000, "too_large")
    writer.file(
        "general/mail.txt", f"{new()}\n\nWrite to john.smith@example.com or to +44 20 7946 0958 about it.", KEPT
    )
    writer.removal("masked", 2)
    writer.file("general/mixed.txt", f"{new(4)}\n\n{_foreign('fr', 6)}\n\n{new(2)}", KEPT)
    writer.removal("foreign_paragraph", 6)
    advert = " ".join((ADVERTISEMENT.split() * 9)[:AD_WINDOW_WORDS])
    writer.file("general/with-advert.txt", f"{_of_words(new(9), 400)}\n\n{advert}\n\n{_of_words(new(9), 400)}", KEPT)
    writer.removal("ad_block")
    long = [" ".join(paragraph.split(". ")) for paragraph in (_sentence(new(6)), _sentence(new(6)))]
    writer.file("general/between.txt", f"{long[0]}\n\nFinis coronat opus.\n\n{long[1]}", KEPT, "short_segment")


def _of_words(text: str, count: int) -> str:
    """Return so many words of a text, a hundred a paragraph, so that windows of 200 words begin where paragraphs do."""
    words = text.split()[:count]
    assert len(words) == count
    return "\n\n".join(" ".join(words[start : start + 100]) for start in range(0, count, 100))


def _foreign(language: str, paragraphs: int) -> str:
    sentence = SENTENCES_OF[language]
    first = sentence.split()[1]
    return "\n\n".join(" ".join([sentence.replace(first, name)] * 2) for name in FOREIGN_NAMES[language][:paragraphs])


def _sentence(text: str) -> str:
    """Return 1,990 characters of a text as one sentence, which leaves no room and no place to cut."""
    words = text.replace(".", ",").replace("\n\n", " ").replace(", The", ", the")
    return words[:1990].rsplit(" ", 1)[0].rstrip(",").ljust(1989, "e") + "."


# --- what only the whole corpus tells ----------------------------------------------------------------------------------


def _whole_corpus(writer: _Writer) -> None:
    new = writer.prose
    original, other = new(6), new(7)
    writer.file("general/original.txt", original, KEPT)
    writer.file("copies/copy.txt", original.replace(",", " ,"), "exact_duplicate")
    writer.file("general/other.txt", other, KEPT)
    writer.file("copies/nearly.txt", f"{other}\n\nIt is so, as it is to us, or to be by it.", "near_duplicate")
    for number in range(24):
        writer.file(f"parish-lines/{number:02d}.txt", f"{new(3)}\n\n{BOILERPLATE}", KEPT)
    writer.removal("boilerplate_line", 24)
    for name in ("general/custom-1.txt", "general/custom-2.txt"):
        writer.file(name, f"{new(3)}\n\n{SHARED_PARAGRAPH}\n\n{new(2)}", KEPT)
    writer.removal("duplicate_paragraph")
    writer.file("large/giant.txt", new(700), "source_surplus")
    writer.file("large/small.txt", new(), KEPT)


def _store(fixture: FixtureCorpus) -> None:
    """Write what collecting would have left: items that could not be had, and one text that could."""
    with Store(fixture.folder / "store") as store:
        for code in ("fetch_failed", "robots_denied"):
            url = f"https://example.org/texts/{code}"
            store.put(StoredFile("fetched", f"texts/{code}", url=url, problem=code, reason="as the server said"))
            fixture.truth[f"texts/{code}"] = Counter([code])
        data = prose(999).encode()
        sha256, size = store.keep_bytes(data)
        url = "https://example.org/texts/had.txt"
        store.put(
            StoredFile(
                "fetched",
                "texts/had.txt",
                url=url,
                final_url=url,
                status=200,
                bytes=size,
                sha256=sha256,
                licence="CC0-1.0",
            )
        )
        fixture.truth["texts/had.txt"] = Counter([KEPT])
        store.mark("fetched", COMPLETE, "yes")
