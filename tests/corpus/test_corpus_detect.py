import gzip
import io
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caslon.corpus.detect import DecodeFailed, decode, detect


def zip_of(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "kind"),
    [
        (b"", "a.txt", "empty"),
        (b"\xef\xbb\xbf \r\n\t\x0c\x00", "a.txt", "empty"),
        (b"%PDF-1.4 ...", "a.html", "pdf"),
        (b"\x89PNG\r\n\x1a\n....", "a.txt", "binary"),
        (bytes(range(256)) * 20, "a.txt", "binary"),
        (gzip.compress(b"text"), "a.txt", "gzip"),
        (zip_of("META-INF/container.xml"), "a", "epub"),
        (zip_of("word/document.xml"), "a", "docx"),
        (zip_of("a.txt"), "a", "zip"),
        (b'<?xml version="1.0"?>\n<TEI xmlns="http://www.tei-c.org/ns/1.0">', "a.txt", "tei"),
        (b'<!DOCTYPE ETS SYSTEM "x.dtd">\n<ETS><EEBO>', "a", "tei"),
        (b'<?xml version="1.0"?><!DOCTYPE TEI.2 [<!ENTITY % x "INCLUDE"> ]>\n<!-- a > b -->\n<TEI.2>', "a", "tei"),
        (b'<div1 type="trialAccount"><p>He was tried</p></div1>', "a", "tei"),
        (b'<?xml version="1.0"?><package><metadata/></package>', "a.opf", "xml"),
        (b"<mediawiki><page/></mediawiki>", "a", "mediawiki"),
        (b"<!DOCTYPE html><html><body>hi", "a.txt", "html"),
        (b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body/></html>', "a.xml", "html"),
        (b"<p>One</p><p>Two</p>", "a.txt", "html"),
        (b"<< to begin, a word >>", "a.txt", "text"),
        (b"import os\nx = 1\n", "a.py", "python"),
        (b"import os\n\n\nclass A:\n    def f(self):\n        self.x = 1\n" * 4, "a.txt", "python"),
        (b"#!/usr/bin/env python3\nprint(1)\n", "tool", "python"),
        (b"# Title\n\n- one\n- two\n", "a.md", "markdown"),
        (b'{"text": "x"}\n{"text": "y"}\n', "a.jsonl", "jsonl"),
        ("Çà et là, l'été à Paris".encode(), "été-Köln.txt", "text"),
        (b"plain words", "", "text"),
    ],
)
def test_content_decides(data: bytes, name: str, kind: str) -> None:
    assert detect(data, name).kind == kind


def test_a_clash_of_name_and_content_is_told() -> None:
    assert detect(b"%PDF-1.4", "page.html").warnings == ("named like html, but the content is pdf",)
    assert detect(b"words", "words.txt").warnings == ()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("ſhe ſaid".encode(), "ſhe ſaid"),
        (b"\xef\xbb\xbfwords", "words"),
        ("Großbritannien\n".encode("utf-16"), "Großbritannien\n"),
        ("King Charles\n".encode("utf-16-le"), "King Charles\n"),
        ("King Charles\n".encode("utf-16-be"), "King Charles\n"),
        ("caf\u00e9 and \u201cquotes\u201d in old London".encode("cp1252"), "café and “quotes” in old London"),
        (
            b'<?xml version="1.0" encoding="iso-8859-2"?><a>\xb1</a>',
            '<?xml version="1.0" encoding="iso-8859-2"?><a>ą</a>',
        ),
        (b'<?xml version="1.0" encoding="UTF-8"?><a>\xe9t\xe9</a>', '<?xml version="1.0" encoding="UTF-8"?><a>été</a>'),
    ],
)
def test_encodings(data: bytes, text: str) -> None:
    assert decode(data).text == text


def test_cyrillic_in_an_old_encoding() -> None:
    words = "Москва стояла на реке, и жители её любили гулять по берегу вечером. " * 20
    assert decode(words.encode("cp1251")).text == words


def test_few_damaged_bytes_are_counted_and_many_are_refused() -> None:
    good = "Die Bürger Londons müßten früh aufstehen. ".encode() * 200
    few = decode(good[:500] + b"\xff" + good[500:])
    assert few.undecodable_bytes == 1
    assert "\ufffd" in few.text
    with pytest.raises(DecodeFailed):
        decode(b"".join(good[at : at + 9] + b"\x07\xff\x01" for at in range(0, 4000, 9)))


@given(st.binary(max_size=300), st.sampled_from(["a.txt", "a.xml", "a.py", "", "a.html"]))
def test_detection_never_raises(data: bytes, name: str) -> None:
    detected = detect(data, name)
    assert detected.kind
    with suppress(DecodeFailed):
        assert isinstance(decode(data).text, str)


@given(st.text(max_size=200))
def test_utf8_comes_back_whole(text: str) -> None:
    data = text.encode("utf-8", errors="ignore")
    if "\x00" not in text and not data.startswith((b"\xef\xbb\xbf", b"\xff", b"\xfe")):
        try:
            assert decode(data).text == data.decode()
        except DecodeFailed:
            assert sum(ord(letter) < 32 or ord(letter) == 127 for letter in text) > 2
