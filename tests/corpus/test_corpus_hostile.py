"""Deliberately bad input: the real folder of hostile files where it is present, and random bytes."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.corpus.collect import RawFile, raw_files
from caslon.corpus.document import REJECT_CODES, Document
from caslon.corpus.read import read
from caslon.corpus.registry import load_sources
from caslon.corpus.repair import repair

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
    found = {raw.name: list(read(raw)) for raw in raw_files(entries)}
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
