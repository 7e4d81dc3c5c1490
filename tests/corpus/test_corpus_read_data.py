import csv
import io
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.corpus.collect import RawFile
from caslon.corpus.document import Document, Reject
from caslon.corpus.read import raw_text, read
from caslon.corpus.read.records import CSV_ESCAPE, JSON_ESCAPE, guessed_field, places, strings_at


def sorted_out(found) -> tuple[list[Document], list[Reject]]:
    items = list(found)
    return [item for item in items if isinstance(item, Document)], [item for item in items if isinstance(item, Reject)]


def test_json_lines_with_a_nested_field_and_bad_rows(make_raw) -> None:
    lines = [
        json.dumps({"title": "One", "data": {"parts": [{"text": 'A "first" text.'}, {"text": "Its end.\n\nReally."}]}}),
        "{not json",
        json.dumps({"data": {"parts": []}}),
        "",
        json.dumps({"data": {"parts": [{"text": "Été – der zweite."}]}, "date": "1666-09-02"}),
        "[1, 2]",
    ]
    raw = make_raw("\r\n".join(lines), "a.jsonl", text_field="data.parts.text")
    documents, rejects = sorted_out(read(raw))
    assert [document.text for document in documents] == ['A "first" text.\n\nIts end.\n\nReally.', "Été – der zweite."]
    assert [(document.origin.record, document.title, document.year) for document in documents] == [
        ("line-1", "One", None), ("line-5", "", 1666),
    ]  # fmt: skip
    assert [(reject.code, reject.origin.record, reject.text) for reject in rejects] == [
        ("malformed_record", "line-2", "{not json"),
        ("malformed_record", "line-3", lines[2]),
        ("malformed_record", "line-6", "[1, 2]"),
    ]
    text = raw_text(raw)
    passages = [text[block.start : block.end] for document in documents for block in document.blocks]
    assert passages == ['A \\"first\\" text.', "Its end.", "Really.", "\\u00c9t\\u00e9 \\u2013 der zweite."]
    assert len({document.group for document in documents}) == 2


def test_a_part_of_a_large_file_counts_lines_of_the_whole(make_raw) -> None:
    part = make_raw('{"text": "words"}\n{"text": 5}\n', "a.jsonl", line_offset=1000, byte_offset=50_000)
    documents, rejects = sorted_out(read(part))
    assert (documents[0].origin.record, rejects[0].origin.record) == ("line-1001", "line-1002")
    assert "line_offset" not in documents[0].metadata


def test_a_json_list_whose_end_is_damaged(make_raw) -> None:
    rows = [{"text": f"Text number {n}.", "n": n} for n in range(5)]
    whole = json.dumps(rows, indent=1)
    documents, rejects = sorted_out(read(make_raw(whole, "a.json")))
    assert ([document.text for document in documents], rejects) == ([row["text"] for row in rows], [])
    assert documents[1].origin.record == "line-6"
    documents, rejects = sorted_out(read(make_raw(whole[:-30], "a.json")))
    assert len(documents) == 4
    assert rejects[0].code == "malformed_record"
    assert whole[:-30][rejects[0].start :] == rejects[0].text
    documents, _ = sorted_out(read(make_raw(json.dumps(rows), "a")))
    assert len({document.id for document in documents}) == 5  # all on one line


def test_csv_with_quotes_line_ends_and_bad_rows(make_raw) -> None:
    table = (
        "id,text,year\r\n"
        '1,"He said ""no"", and\r\nwent.",1700\r\n'
        "2,too,many,cells\r\n"
        "3,plain words,\r\n"
        '4,"never closed,1701\r\n'
        "5,the last one,1702\r\n"
    )
    raw = make_raw(table, "rows.csv", text_field="text")
    documents, rejects = sorted_out(read(raw))
    assert [(document.origin.record, document.text, document.year) for document in documents] == [
        ("line-2", 'He said "no", and\nwent.', 1700), ("line-5", "plain words", None), ("line-7", "the last one", 1702),
    ]  # fmt: skip
    assert [(reject.origin.record, reject.code) for reject in rejects] == [
        ("line-4", "malformed_record"), ("line-6", "malformed_record"),
    ]  # fmt: skip
    block = documents[0].blocks[0]
    assert raw_text(raw)[block.start : block.end] == 'He said ""no"", and\r\nwent.'


@pytest.mark.parametrize(("name", "delimiter"), [("a.tsv", "\t"), ("a.csv", ";"), ("a.csv", "|")])
def test_other_delimiters(make_raw, name: str, delimiter: str) -> None:
    table = "\n".join(delimiter.join(cells) for cells in (("id", "body"), ("1", "some words"), ("2", "more words")))
    documents, _ = sorted_out(read(make_raw(table, name)))
    assert [document.text for document in documents] == ["some words", "more words"]


def test_a_table_without_header_has_numbered_columns(make_raw) -> None:
    table = '"3","AP - Fears for T N pension after talks","Unions are disappointed."\n"4","Short","News of the day."\n'
    documents, _ = sorted_out(read(make_raw(table, "news.csv", text_field="2")))
    assert [document.text for document in documents] == ["AP - Fears for T N pension after talks", "Short"]


def test_later_parts_of_a_csv_repeat_the_header(make_raw) -> None:
    part = RawFile(
        "test", "a.csv", "a.csv@90-120", b"id,text\n7,seventh\n", "0" * 64,
        {"line_offset": 6, "byte_offset": 82, "text_field": "text"},
    )  # fmt: skip
    (document,), _ = sorted_out(read(part))
    assert (document.text, document.origin.record) == ("seventh", "line-8")


def test_a_missing_column_is_said_once(make_raw) -> None:
    (reject,) = read(make_raw("id,body\n1,words\n2,words\n", "a.csv", text_field="text"))
    assert (reject.code, reject.reason) == ("malformed_record", "the table has no column 'text' but id, body")


def test_many_open_quotes_end_soon(make_raw) -> None:
    table = "id,text\n" + '1,"open\n' * 20_000
    _, rejects = sorted_out(read(make_raw(table, "a.csv", text_field="text")))
    assert rejects[-1].end >= len(table) - 1


def test_the_field_is_guessed() -> None:
    assert guessed_field([{"id": "a" * 90, "text": "x"}]) == "text"
    assert guessed_field([{"id": "a", "answer": {"long": "many words stand here"}}]) == "answer.long"
    assert guessed_field([{"n": 1}, {"n": 2}]) == ""
    assert guessed_field([{"conversations": [{"from": "human", "value": "Good day"}]}]) == "conversations.value"


def test_paths() -> None:
    value = {"a": [{"b": "one"}, {"b": "two"}, {}], "c.d": "three", "e": ["four", 5, " "]}
    assert strings_at(value, "a.b") == ["one", "two"]
    assert strings_at(value, "a.1.b") == ["two"]
    assert strings_at(value, "c.d") == ["three"]
    assert strings_at(value, "e") == ["four"]
    assert strings_at(value, "a.b.c") == strings_at(value, "x") == strings_at(value, "a.9.b") == []


def test_code_keeps_its_form(make_raw) -> None:
    source = "def f():\n\n    return 1\n"
    (document,), _ = sorted_out(read(make_raw(json.dumps({"code": source}), "a.jsonl", text_field="code", tier="code")))
    assert document.text == source


@settings(deadline=None)
@given(st.text(), st.text(max_size=5), st.booleans())
def test_places_in_json(text: str, before: str, ascii_only: bool) -> None:
    raw = json.dumps({"x": before, "text": text}, ensure_ascii=ascii_only)
    found, _ = places(raw, text, raw.index('"text"'), JSON_ESCAPE)
    assert found is not None
    for index in range(len(text)):
        if not "\ud800" <= text[index] <= "\udfff":
            assert json.loads(f'"{raw[found(index) : found(index + 1)]}"') == text[index]


@settings(deadline=None)
@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"])))
def test_places_in_csv(text: str) -> None:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerow(["a", text])
    found, _ = places(file.getvalue(), text, 4, CSV_ESCAPE)
    assert found is not None
    for index in range(len(text)):
        assert file.getvalue()[found(index) : found(index + 1)].replace('""', '"') == text[index]


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=8), st.integers())
def test_no_row_is_lost(rows: list[tuple[str, str]], seed: int) -> None:
    lines = [json.dumps({"a": a, "text": b}) for a, b in rows]
    if random.Random(seed).random() < 0.5:
        lines.insert(random.Random(seed).randrange(len(lines) + 1), '{"broken": ')
    lines += ['{"text": "an ordinary row"}'] * (len(lines) + 2)
    raw = RawFile("test", "a.jsonl", "", "\n".join(lines).encode(), "0" * 64, {"text_field": "text"})
    assert len(list(read(raw))) == len(lines)


def test_real_data_files(real_data, make_raw) -> None:
    import gzip

    wanted = {
        "qa/bbq/Religion.jsonl.gz": ("question", 600), "qa/products/shopee.csv.gz": (None, 800),
        "docs/retrieval/cranfield/corpus.jsonl.gz": ("text", 1_400), "instruct/llama_factory/v1_sft_demo.jsonl.gz": (None, 500),
        "instruct/self_instruct/user_oriented_instructions.jsonl.gz": ("instruction", 252),
        "instruct/llama_factory/identity.json.gz": ("output", 91),
    }  # fmt: skip
    for name, (field, count) in wanted.items():
        path = real_data / name
        if not path.is_file():
            pytest.skip(f"{name} is not here")
        known = {"text_field": field} if field else {}
        raw = make_raw(gzip.decompress(path.read_bytes()), path.name.removesuffix(".gz"), **known)
        documents, rejects = sorted_out(read(raw))
        assert len(documents) + len(rejects) == count, name
        assert len(documents) >= 0.98 * count, (name, rejects[:2])
