import gzip
import io
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
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
        (gzip.compress(b"text", mtime=0), "a.txt", "gzip"),
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
        (b'{"text": "x"}\nbroken\n{"text": "y"}\n', "rows.txt", "jsonl"),
        (b'{"text": "x"}\n', "a.jsonl", "jsonl"),
        (b'{"text": "x"}\n', "a", "json"),
        (b'[\n {"text": "x"},\n {"text": "y"}\n]', "a.txt", "json"),
        (b'[{"text": "' + b"long " * 20_000 + b'"}]', "a", "json"),
        (b"[12] Some prose, and then more of it.\n", "a.json", "text"),
        (b'[{"type": "message", "user": "U1", "ts": "1600000000.000100", "text": "x"}]', "a.json", "slack"),
        (b"id,name,year\n1,Anna,1700\n2,Ben,1701\n3,Carl,1702\n4,Dora,1703\n", "a.txt", "csv"),
        (b"id\ttext\n1\tone\n2\ttwo\n", "a.tsv", "csv"),
        (
            b"Smith, John, and others\nBrown, Peter, and Mary\nGreen, Ann, and Tom\nLee, Bob, his man\nFox, Tim, x\n",
            "a",
            "text",
        ),
        (b"He said, and went.\n\nShe stayed.", "prose.csv", "text"),
        (b"# Title\n\nSee [this](https://x.org).\n\n```\ncode\n```\n\n## More\n\nwords\n", "a.txt", "markdown"),
        (b"PAR1" + bytes(20) + b"PAR1", "a", "parquet"),
        (b"\xfd7zXZ\x00xxxx", "a", "xz"),
        (b"\x28\xb5\x2f\xfdxxxx", "a.txt", "zstd"),
        (zip_of("users.json", "channels.json", "general/1.json"), "a.zip", "slack"),
        ("Çà et là, l'été à Paris".encode(), "été-Köln.txt", "text"),
        (b"plain words", "", "text"),
    ],
)
def test_content_decides(data: bytes, name: str, kind: str) -> None:
    assert detect(data, name).kind == kind


GO = b'package main\n\nimport (\n\t"fmt"\n)\n\nfunc main() {\n\tx := 1\n\tfmt.Println(x)\n}\n'
RUST = b"use std::io;\n\npub fn f(x: &str) -> u8 {\n    let y = x.len();\n    match y {\n        _ => 1,\n    }\n}\n"
JAVA = b"package a.b;\nimport java.util.*;\n\npublic class A {\n    @Override\n    public int f() {\n        return;\n    }\n}\n"
SHELL = b'#!/bin/sh\nset -e\nfor f in *; do\n  echo "$f"\ndone\n'
C = b"#include <stdio.h>\n\nint main(void)\n{\n\tint x = 0;\n\tif (x) {\n\t\treturn 1;\n\t}\n\treturn 0;\n}\n"
SCRIPT = b"const a = require('a');\n\nfunction f(x) {\n  if (x) {\n    return a.b;\n  }\n}\nmodule.exports = f;\n"


@pytest.mark.parametrize(
    ("data", "name", "language"),
    [
        (GO, "a.go", "go"), (GO, "unnamed", "go"), (RUST, "a.rs", "rust"), (RUST, "a.txt", "rust"), (JAVA, "A.java", "java"),
        (JAVA, "x", "java"), (SHELL, "tool", "shell"), (C, "a.c", "c"), (C, "a", "c"), (SCRIPT, "a.js", "javascript"),
        (b"SELECT a FROM b;\nINSERT INTO c VALUES (1);\nDROP TABLE d;\n-- end =\n", "a.sql", "sql"),
        (b".a { color: red; }\n.b {\n  margin: 0;\n}\n", "a.css", "css"),
        (b"key: 1\nlist:\n  - a_b\n  - c_d = 1\n", "a.yml", "yaml"),
    ],
)  # fmt: skip
def test_source_code_and_its_language(data: bytes, name: str, language: str) -> None:
    detected = detect(data, name)
    assert (detected.kind, detected.language) == ("code", language)


@pytest.mark.parametrize("name", ["verse.c", "verse.js", "verse", "verse.sql"])
def test_verse_is_no_code_whatever_it_is_called(name: str) -> None:
    verse = b"Long have I watched;\nfor thee, my love,\n(while others slept)\nreturn, return;\nvoid is the night,\n" * 9
    assert detect(verse, name).kind == "text"


def test_real_texts_are_neither_code_nor_tables(real_data) -> None:
    import tarfile

    for name in ("ecco-tcp-txt.tar.bz2", "londonlives-petitions.tar.bz2"):
        path = real_data / "london" / name
        if not path.is_file():
            pytest.skip(f"{name} is not here")
        with tarfile.open(path) as archive:
            for count, info in enumerate(archive):
                if info.isfile():
                    assert detect(archive.extractfile(info).read(), info.name).kind == "text", info.name
                if count == 300:
                    break


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


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["a.txt", "a.xml", "a.py", "", "a.html"]))
def test_detection_never_raises(data: bytes, name: str) -> None:
    detected = detect(data, name)
    assert detected.kind
    with suppress(DecodeFailed):
        assert isinstance(decode(data).text, str)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_utf8_comes_back_whole(text: str) -> None:
    data = text.encode("utf-8", errors="ignore")
    if "\x00" not in text and not data.startswith((b"\xef\xbb\xbf", b"\xff", b"\xfe")):
        try:
            assert decode(data).text == data.decode()
        except DecodeFailed:
            assert sum(ord(letter) < 32 or ord(letter) == 127 for letter in text) > 2
