"""Deliberately bad input: made here, the real folder of hostile files where it is present, and random bytes."""

import gzip
import hashlib
import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.corpus.collect import RawFile, raw_files
from caslon.corpus.document import REJECT_CODES, Document
from caslon.corpus.pipeline import build
from caslon.corpus.read import read
from caslon.corpus.read.limited import LimitedReader
from caslon.corpus.registry import SourceEntry, load_sources
from caslon.corpus.repair import repair
from caslon.corpus.settings import CorpusSettings, ReadLimits
from caslon.corpus.shards import read_documents, read_rejects
from caslon.observe.events import EventLog

LIMITS = ReadLimits(seconds=60, memory_bytes=1 << 30)  # ten seconds of a processor are a minute of a busy machine

# What each file must give: a reject code, or `text`. Files that are bad only in what they say are read and judged later.
EXPECTED = {
    "truncated-ecco.xml": ("text", "malformed_xml"), "truncated-oldbailey.xml": ("text", "malformed_xml"),
    "bytes-corrupted.txt": ("decode_failed",), "gzip-truncated.txt.gz": ("text", "truncated"),
    "utf16-with-bom.txt": ("text",), "mojibake.txt": ("text",), "nul-bytes.txt": ("text",),
    "crlf-and-form-feeds.txt": ("text",), "latin1-declared-utf8.xml": ("text",), "random-binary.txt": ("unknown_type",),
    "image-named.txt": ("unknown_type",), "pdf-named.html": ("text",), "empty.txt": ("empty",),
    "empty.xml": ("empty",), "only-whitespace.txt": ("empty",), "only-bom.txt": ("empty",), "error-404.txt": ("error_page",),
    "deep-nesting.xml": ("unsafe_xml",), "entity-expansion.xml": ("unsafe_xml",), "external-entity.xml": ("unsafe_xml",),
    "html-with-script.html": ("no_text",), "gutenberg-licence-only.txt": ("no_text",),
}  # fmt: skip


def outcome(item: object) -> str:
    return "text" if isinstance(item, Document) else item.code  # type: ignore[attr-defined]


def test_every_hostile_file_gives_its_code_or_sane_text(real_data) -> None:
    folder = real_data / "london"
    if not (folder / "bad").is_dir():
        pytest.skip("the folder of bad inputs is not here")
    entries = load_sources(str(folder), folder, roles=("negative", "duplicate"), only=["bad"])
    with LimitedReader(LIMITS) as reader:
        found = {raw.name: list(reader.read(raw)) for raw in raw_files(entries)}
    assert len(found) == 42
    for name, items in found.items():
        outcomes = {outcome(item) for item in items}
        assert outcomes == set(EXPECTED.get(name, ("text",))), name
        for item in items:
            if isinstance(item, Document):
                text = repair(item).text
                assert not set(text) & {"\x00", "\r", "\f", "\ufeff"}, name
                assert text.strip(), name


def test_hostile_repairs(real_data) -> None:
    folder = real_data / "london"
    entries = load_sources(str(folder), folder, roles=("negative", "duplicate"), only=["bad"])
    found = {
        raw.name: repair(next(iter(read(raw)))) for raw in raw_files(entries) if EXPECTED.get(raw.name) == ("text",)
    }
    good = "To the Right Worshipful the GRAND MASTER, Deputy GRAND MASTER, GRAND WARDENS, And the rest of the Brethren"
    for name in (
        "nul-bytes.txt",
        "utf16-with-bom.txt",
        "crlf-and-form-feeds.txt",
        "latin1-declared-utf8.xml",
        "mojibake.txt",
    ):
        assert found[name].text.startswith(good), name
    assert found["nul-bytes.txt"].metadata["repairs"]["control_characters"] == 6488
    assert "â€" not in found["mojibake.txt"].text


PROSE = (
    "It was about the beginning of September that I, among the rest of my neighbours, heard in ordinary discourse that the "
    "plague was returned again in Holland. "
)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4
BOMB = "<!DOCTYPE TEI [<!ENTITY a0 'lol'>" + "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 10))
TEI = "<TEI><text><body>{}</body></text></TEI>"
# What each must give, all of it; a text's beginning stands for a document.
MADE = {
    "empty": (b"", "a.txt", ["empty"]),
    "blanks": (b" \r\n\t\x0c", "a.txt", ["empty"]),
    "mark only": (b"\xef\xbb\xbf", "a.txt", ["empty"]),
    "random bytes": (random.Random(1).randbytes(20_000), "a.txt", ["unknown_type"]),
    "picture": (PNG, "notes.txt", ["unknown_type"]),
    "truncated XML": (TEI.format(f"<p>{PROSE}</p><p>cut").encode()[:-18], "a.xml", [PROSE[:30], "malformed_xml"]),
    "outside entity": (
        b'<!DOCTYPE TEI [<!ENTITY x SYSTEM "http://127.0.0.1:9/x">]>' + TEI.format("<p>&x;</p>").encode(), "a.xml",
        ["unsafe_xml"],
    ),
    "entity bomb": (f"{BOMB}]>{TEI.format('<p>&a9;</p>')}".encode(), "a.xml", ["unsafe_xml"]),
    "deep nesting": (b"<TEI>" + b"<div>" * 100_000, "a.xml", ["unsafe_xml"]),
    "deep nesting of HTML": (b"<html><body>" + b"<div>" * 100_000 + PROSE.encode(), "a.html", [PROSE[:30]]),
    "NUL bytes": (PROSE.encode().replace(b" ", b" \x00"), "a.txt", [PROSE[:30]]),
    "UTF-16": (PROSE.encode("utf-16"), "a.txt", [PROSE[:30]]),
    "wrong declaration": (
        f'<?xml version="1.0" encoding="iso-8859-1"?>{TEI.format("<p>Été à Londres</p>")}'.encode(), "a.xml", ["Été à Londres"],
    ),
    "line ends and pages": (b"One\r\n\r\nTwo\x0c\r\nthree", "a.txt", ["One"]),
    "mojibake": ("The King\u2019s \u201chouse\u201d. ".encode().decode("cp1252", "replace").encode(), "a.txt", ["The King"]),
    "corrupted": (b"".join(PROSE.encode()[at : at + 30] + b"\xff\x02" for at in range(100)), "a.txt", ["decode_failed"]),
    "404": (b"<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>", "a.txt", ["error_page"]),
    "licence only": (
        b"*** START: FULL LICENSE ***\n\nTHE FULL PROJECT GUTENBERG LICENSE\nPLEASE READ THIS BEFORE YOU DISTRIBUTE\n",
        "a.txt", ["no_text"],
    ),
    "scripts": (b"<html><head><script>var a = 'words words';</script></head><body><script>b()</script></body></html>", "a.html",
                ["no_text"]),
    "PDF named HTML": (b"%PDF-1.4\nbroken", "a.html", ["truncated"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_made_hostile_input(name: str) -> None:
    data, file_name, expected = MADE[name]
    raw = RawFile("test", file_name, "", data, hashlib.sha256(data).hexdigest())
    with LimitedReader(LIMITS) as reader:
        found = list(reader.read(raw))
    got = [repair(item).text if isinstance(item, Document) else item.code for item in found]
    assert len(got) == len(expected), got
    for text, start in zip(got, expected, strict=True):
        assert text.startswith(start)
        assert not set(text) & {"\x00", "\r", "\f", "\ufeff"}


def test_a_truncated_archive_keeps_what_could_be_read(tmp_path) -> None:
    lines = [f"Paragraph {n}. {random.Random(n).random()} {PROSE}\n\n" for n in range(2_000)]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("".join(lines).encode())[:-20_000])
    (raw,) = raw_files([SourceEntry("test", "a.txt.gz", base=tmp_path)])
    found = {outcome(item): item for item in read(raw)}
    assert set(found) == {"text", "truncated"}
    assert found["text"].text.startswith("Paragraph 0.")


# What judging makes of the files that reading lets pass; of each code the spec names.
JUDGED = {
    "one-long-token.txt": "garbled", "spam-repeated-line.txt": "repetitive", "deceptive-date.txt": "out_of_period",
    "digits-and-tables.txt": "low_meaningful_ratio", "advert-page-1.txt": "ad_dense", "advert-page-2.txt": "ad_dense",
    "error-404.txt": "error_page", "gutenberg-licence-only.txt": "no_text", "empty.txt": "empty",
}  # fmt: skip


def test_the_hostile_set_through_all_steps(real_data, tmp_path) -> None:
    folder = real_data / "london"
    if not (folder / "bad").is_dir():
        pytest.skip("the folder of bad inputs is not here")
    entries = load_sources(str(folder), folder, roles=("negative", "duplicate"), only=["bad"])
    settings = CorpusSettings(workers=1, period=(1500, 1850), long_s="modern", split=(0.6, 0.2, 0.2))
    build(entries, settings, 1, tmp_path / "corpus", EventLog(None))
    codes = defaultdict(set)
    for reject in read_rejects(tmp_path / "corpus"):
        codes[reject.origin.path.rpartition("/")[2]].add(reject.code)
    kept = {document.origin.path.rpartition("/")[2] for document in read_documents(tmp_path / "corpus")}
    assert {name: codes[name] for name in JUDGED} == {name: {code} for name, code in JUDGED.items()}
    assert not kept & set(JUDGED)
    same = {
        "crlf-and-form-feeds.txt",
        "utf16-with-bom.txt",
        "nul-bytes.txt",
        "latin1-declared-utf8.xml",
    }  # one text in disguise
    assert any(codes[name] & {"exact_duplicate", "near_duplicate"} for name in same)


PIECES = st.sampled_from(
    [b"<TEI>", b"<p>", b"</p>", b"<html>", b"<!DOCTYPE x [", b"]>", b"<![CDATA[", b"&amp;", b"&x;", b"<!--", b"*** START OF",
     b"PROJECT GUTENBERG", b"\n\n", b"\r", b"\x00", b"\xff", b"def f():\n", b'"""', b"<div0 type='sessionsPaper'>",
     b"<div1 type='trialAccount'>", b"</div1>", b"<gap/>", b"<note>", b"word ", b"\xe2\x88\xa3", b"<pre>", b"<nav>", b"\x1f\x8b"]
)  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(
    st.one_of(st.binary(max_size=400), st.lists(PIECES, max_size=40).map(b"".join)),
    st.sampled_from(["a.txt", "a.xml", "a.html", "a.py", "a.md", "a"]),
)
def test_no_reader_raises_on_any_bytes(data: bytes, name: str) -> None:
    raw = RawFile("test", name, "", data, hashlib.sha256(data).hexdigest())
    for item in read(raw):
        if isinstance(item, Document):
            repair(item)
            assert item.blocks
            assert all(0 <= block.start <= block.end for block in item.blocks)
        else:
            assert item.code in REJECT_CODES
            assert item.reason
