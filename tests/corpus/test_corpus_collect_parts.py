"""Large files of records come in parts that are cut at record borders and found again."""

import csv
import gzip
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.corpus.collect import Limits, RawFile, load_raw, raw_files
from caslon.corpus.collect.archives import read_path
from caslon.corpus.registry import load_sources

SMALL = Limits(single_bytes=2_000, part_bytes=700, file_bytes=3_000)
WORDS = "In the reign of King Charles the plague came to London."


def parts(path: Path, limits: Limits = SMALL) -> list[RawFile]:
    return list(raw_files(load_sources(str(path), Path("/")), limits=limits))


def found_again(path: Path, raw: RawFile) -> RawFile:
    return load_raw(raw.origin, path.parent)


def jsonl(rows: int) -> bytes:
    return b"".join(json.dumps({"id": number, "text": WORDS}).encode() + b"\n" for number in range(rows))


def test_jsonl_is_cut_at_line_ends_with_absolute_lines(tmp_path: Path) -> None:
    data = jsonl(100)
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    found = parts(path)
    assert len(found) > 5 and b"".join(raw.bytes for raw in found) == data
    for raw in found:
        first = json.loads(raw.bytes.split(b"\n")[0])
        assert first["id"] == raw.metadata["line_offset"]
        assert data[raw.metadata["byte_offset"] :].startswith(raw.bytes)
        again = found_again(path, raw)
        assert (again.bytes, again.sha256, again.name) == (raw.bytes, raw.sha256, "a.jsonl")
        assert again.metadata["line_offset"] == raw.metadata["line_offset"]


def test_file_up_to_the_limit_stays_whole(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(20))
    (raw,) = parts(tmp_path / "a.jsonl")
    assert raw.member == "" and "line_offset" not in raw.metadata


def test_csv_repeats_its_header_and_is_not_cut_inside_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [(str(number), f'{WORDS}\nHe said "no", {number}\n\n') for number in range(80)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *rows])
    found = parts(path)
    read = [row for raw in found for row in csv.DictReader(io.StringIO(raw.bytes.decode(), newline=""))]
    assert len(found) > 5 and [(row["id"], row["text"]) for row in read] == rows
    lines = path.read_bytes().split(b"\n")
    for raw in found[1:]:
        second = raw.bytes.split(b"\n")[1]
        assert lines[1 + raw.metadata["line_offset"]] == second  # line 2 of the part, counted from 0
        assert found_again(path, raw).bytes == raw.bytes


def dump(pages: int) -> bytes:
    head = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" xml:lang="en">\n'
        "<siteinfo><sitename>W</sitename></siteinfo>\n"
    )
    made = [
        f"<page><title>Page {number}</title><ns>0</ns><id>{number}</id><revision><id>{number}9</id>"
        f"<text>&lt;page&gt; {WORDS}</text></revision></page>\n"
        for number in range(pages)
    ]
    return (head + "".join(made) + "</mediawiki>\n").encode()


@pytest.mark.parametrize("packed", [False, True])
def test_mediawiki_parts_are_documents_of_whole_pages(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("a.xml.gz" if packed else "a.xml")
    path.write_bytes(gzip.compress(dump(60)) if packed else dump(60))
    found = parts(path)
    ids = []
    for raw in found:
        root = ElementTree.fromstring(raw.bytes)
        ids += [page.findtext("{*}id") for page in root.findall("{*}page")]
        assert found_again(path, raw).bytes == raw.bytes
    assert len(found) > 5 and ids == [str(number) for number in range(60)]
    assert found[0].name == path.name


def test_other_xml_is_cut_at_the_element_that_repeats_below_its_root(tmp_path: Path) -> None:
    path = tmp_path / "posts.xml"
    rows = "".join(f'  <row Id="{number}" Body="{WORDS}" />\n' for number in range(60))
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<posts>\n{rows}</posts>')
    found = parts(path)
    ids = [row.get("Id") for raw in found for row in ElementTree.fromstring(raw.bytes)]
    assert len(found) > 3 and ids == [str(number) for number in range(60)]


def test_records_that_nest_their_own_name_are_kept_whole(tmp_path: Path) -> None:
    path = tmp_path / "nested.xml"
    rows = "".join(f"<list><list><list>{WORDS} {number}</list></list></list>" for number in range(60))
    path.write_text(f"<lists>{rows}</lists>")
    found = parts(path)
    texts = ["".join(item.itertext()) for raw in found for item in ElementTree.fromstring(raw.bytes)]
    assert len(found) > 3 and texts == [f"{WORDS} {number}" for number in range(60)]


def test_one_record_above_the_limit_is_named_and_the_rest_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(30) + json.dumps({"id": -1, "text": "x" * 9000}).encode() + b"\n" + jsonl(30))
    found = parts(path)
    (refused,) = [raw for raw in found if raw.problems]
    assert refused.problems[0][0] == "too_large" and refused.metadata["line_offset"] == 30 and refused.bytes == b""
    lines = [line for raw in found for line in raw.bytes.splitlines()]
    assert b"\n".join(lines) + b"\n" == jsonl(30) * 2


def test_large_page_of_a_dump_is_named_and_the_rest_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    large = b"<page><title>Large</title><text>" + b"x" * 9000 + b"</text></page>\n"
    path.write_bytes(dump(40).replace(b"<page><title>Page 20<", large + b"<page><title>Page 20<"))
    found = parts(path)
    assert [raw.problems[0][0] for raw in found if raw.problems] == ["too_large"]
    titles = [
        page.findtext("{*}title")
        for raw in found
        if raw.bytes
        for page in ElementTree.fromstring(raw.bytes).findall("{*}page")
    ]
    assert titles == [f"Page {number}" for number in range(40)]


def test_other_large_files_are_refused_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(WORDS.encode() * 100)
    (tmp_path / "b.jsonl").write_bytes("\ufeff".encode("utf-16-le") + jsonl(60).decode().encode("utf-16-le"))
    for name in ("a.txt", "b.jsonl"):
        (raw,) = parts(tmp_path / name)
        assert (raw.bytes, raw.problems[0][0]) == (b"", "too_large")


def test_cut_off_packed_file_gives_its_parts_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl(2000))[:-200])
    found = parts(path)
    assert found[-1].problems[0][0] == "truncated"
    read = b"".join(raw.bytes for raw in found)
    assert len(read) > 50_000 and jsonl(2000).startswith(read)
    for raw in found[:-1]:
        assert found_again(path, raw).bytes == raw.bytes


def test_cut_off_xml_does_not_look_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(dump(60)[:-300])
    found = parts(path)
    for raw in found[:-1]:
        ElementTree.fromstring(raw.bytes)
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(found[-1].bytes)


def test_large_members_of_archives_come_in_parts_too(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data/rows.jsonl", jsonl(100))
        archive.writestr("note@1-2", "a name that looks like a part")
    found = parts(path)
    rows = [raw for raw in found if raw.whole_member == "data/rows.jsonl"]
    assert len(rows) > 5 and b"".join(raw.bytes for raw in rows) == jsonl(100)
    assert rows[0].name == "rows.jsonl"
    for raw in found:
        assert found_again(path, raw).bytes == raw.bytes


def test_parts_of_one_file_count_as_one_item(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(jsonl(100))
    entries = load_sources(str(tmp_path), Path("/"), max_items=1)
    assert {raw.path for raw in raw_files(entries, limits=SMALL)} == {"a.jsonl"}


def test_part_of_a_file_that_shrank_is_not_made_up(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(100))
    last = parts(path)[-1]
    path.write_bytes(jsonl(30))
    assert found_again(path, last).problems[0][0] == "truncated"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=40), min_size=1), min_size=1, max_size=60),
    st.integers(40, 400),
)
def test_any_jsonl_is_its_parts(tmp_path_factory: pytest.TempPathFactory, rows: list, size: int) -> None:
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    data = b"".join(json.dumps({**row, "n": number}).encode() + b"\n" for number, row in enumerate(rows))
    path.write_bytes(data)
    found = list(read_path("s", path, "a.jsonl", None, Limits(100, size, 100_000)))
    assert b"".join(raw.bytes for raw in found) == data
    assert all(found_again(path, raw).bytes == raw.bytes for raw in found)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text("ab\"',\n é", max_size=30), st.text('xy"\r\n,', max_size=30)), min_size=1, max_size=40),
    st.integers(30, 300),
)
def test_any_csv_is_its_parts(tmp_path_factory: pytest.TempPathFactory, rows: list, size: int) -> None:
    path = tmp_path_factory.mktemp("any") / "a.csv"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("first", "second"), *rows])
    path.write_bytes(text.getvalue().encode())
    read = []
    for raw in read_path("s", path, "a.csv", None, Limits(100, size, 100_000)):
        header, *some = csv.reader(io.StringIO(raw.bytes.decode(), newline=""))
        assert header == ["first", "second"]
        read += some
        assert found_again(path, raw).bytes == raw.bytes
    assert read == list(csv.reader(io.StringIO(text.getvalue(), newline="")))[1:]


STREAMED = """
import resource, sys
from pathlib import Path
from caslon.corpus.collect.archives import read_path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
records = parts = 0
for raw in read_path("s", Path(sys.argv[1]), "a", None):
    parts += 1
    records += raw.bytes.count(b'"text"')
    assert not raw.problems
print(parts, records, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    block = jsonl(10_000)
    grown = []
    for megabytes in (100, 200):
        with path.open("wb") as file:
            for _ in range(megabytes * 1_000_000 // len(block) + 1):
                file.write(block)
        lines = (megabytes * 1_000_000 // len(block) + 1) * 10_000
        run = subprocess.run([sys.executable, "-c", STREAMED, str(path)], capture_output=True, text=True, check=True)
        count, records, kilobytes = map(int, run.stdout.split())
        assert records == lines and count >= megabytes * 1_000_000 // (16 << 20)
        grown.append(kilobytes)
    assert grown[1] < 200_000 and grown[1] < grown[0] * 1.1
