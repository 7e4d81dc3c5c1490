from caslon.corpus.document import Document
from caslon.corpus.read import raw_text, read

MODULE = '''"""Wrap text — nicely.

Second paragraph.
"""
# Copyright (C) 2001 Someone
import os


class Wrapper:
    """Object for wrapping."""

    if os.name:
        async def wrap(self, text, width=70):
            r"""Wrap a \\d paragraph."""

    def undocumented(self):
        return 1


def dedent(text):
    def inner():
        "Inner words."
    return text
'''

TOPICS = (
    "# generated\ntopics = {\n" + "".join(f"    {name!r}: {(f'About {name}. ' * 80)!r},\n" for name in "abcdef") + "}\n"
)


def test_a_module_gives_code_and_docstrings_in_one_group(make_raw) -> None:
    raw = make_raw(MODULE, "json/wrapper.py", tier="code")
    code, prose = read(raw)
    assert isinstance(code, Document)
    assert isinstance(prose, Document)
    assert code.text == MODULE
    assert (code.tier, code.title, code.metadata["licence_header"]) == ("code", "json.wrapper", True)
    assert (prose.tier, prose.origin.record) == ("general", "docstrings")
    assert code.group == prose.group
    assert code.id != prose.id
    assert prose.metadata["docstrings"] == [
        ["json.wrapper", "Wrap text — nicely.\n\nSecond paragraph."],
        ["json.wrapper.Wrapper", "Object for wrapping."],
        ["json.wrapper.Wrapper.wrap", "Wrap a \\d paragraph."],
    ]
    assert "json.wrapper.Wrapper.wrap(self, text, width=70)" in prose.text


def test_docstring_blocks_know_their_place(make_raw) -> None:
    raw = make_raw(MODULE, "wrapper.py")
    prose = list(read(raw))[1]
    assert isinstance(prose, Document)
    heading = next(block for block in prose.blocks if block.text.endswith("(self, text, width=70)"))
    assert raw_text(raw)[heading.start : heading.end].strip() == "async def wrap(self, text, width=70):"
    last = prose.blocks[-1]
    assert raw_text(raw)[last.start : last.end] == 'r"""Wrap a \\d paragraph."""'


def test_package_names(make_raw) -> None:
    titles = [next(read(make_raw("x = 1\n", name))).title for name in ("json/__init__.py", "venv/__main__.py", "re.py")]
    assert titles == ["json", "venv.__main__", "re"]


def test_source_that_does_not_parse_is_code_all_the_same(make_raw) -> None:
    (code,) = read(make_raw("def f(:\n    print 'old'\n", "old.py"))
    assert (code.tier, code.metadata["parses"]) == ("code", False)


def test_module_of_texts_gives_a_document_per_text(make_raw) -> None:
    found = list(read(make_raw(TOPICS, "pydoc_data/topics.py", tier="code")))
    assert [(item.origin.record, item.tier) for item in found] == [(name, "general") for name in "abcdef"]
    assert len({item.group for item in found}) == 1
    assert found[2].text.startswith("About c.")


def test_crlf_and_latin1_source(make_raw) -> None:
    code = next(read(make_raw("# -*- coding: latin-1 -*-\r\nname = 'é'\r\n".encode("latin-1"), "a.py")))
    assert "é" in code.text


def test_deeply_nested_source_does_not_recurse_without_limit(make_raw) -> None:
    assert [item.tier for item in read(make_raw("x = " + "(" * 5000 + ")" * 5000 + "\n", "deep.py"))] == ["code"]
