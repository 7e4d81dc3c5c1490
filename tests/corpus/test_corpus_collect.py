import bz2
import gzip
import io
import lzma
import pickle
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from caslon.corpus.collect import load_raw, raw_files, source_paths
from caslon.corpus.registry import base_of, load_sources
from caslon.errors import UserError

TEXT = b"In the reign of King Charles the plague came to London.\n"


def collect(path: Path, **chosen: object) -> list:
    return list(raw_files(load_sources(str(path), Path("/"), **chosen)))


def tar_of(path: Path, members: dict[str, bytes], mode: str = "w:bz2") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_folder_is_walked_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/b.txt", ".hidden/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    found = collect(tmp_path)
    assert [raw.path for raw in found] == ["a/b.txt", "a/z.txt", "b.txt"]
    assert pickle.loads(pickle.dumps(found[0])) == found[0]


def test_every_kind_of_archive_is_read_as_a_stream(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar.bz2", {"x/1.txt": TEXT, "x/2.txt": TEXT[:-1]})
    tar_of(tmp_path / "b.tar", {"3.txt": TEXT}, "w")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("4.txt", TEXT)
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(TEXT))
    (tmp_path / "e.txt.bz2").write_bytes(bz2.compress(TEXT))
    (tmp_path / "f.xz").write_bytes(lzma.compress(TEXT))
    found = collect(tmp_path)
    assert [(raw.path, raw.member) for raw in found] == [
        ("a.tar.bz2", "x/1.txt"), ("a.tar.bz2", "x/2.txt"), ("b.tar", "3.txt"), ("c.zip", "4.txt"), ("d.txt.gz", ""),
        ("e.txt.bz2", ""), ("f.xz", ""),
    ]  # fmt: skip
    assert all(raw.bytes.startswith(TEXT[:-1]) and not raw.problems for raw in found)


def test_cut_off_archives_keep_what_could_be_read(tmp_path: Path) -> None:
    data = bytes(range(256)) * 400
    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT * 2000 + data)[:-30])
    whole = tar_of(tmp_path / "b.tar", {"1.txt": TEXT, "2.txt": TEXT * 500}, "w").read_bytes()
    (tmp_path / "b.tar").write_bytes(whole[:2000])
    (tmp_path / "c.zip").write_bytes(b"PK\x03\x04" + b"\x00" * 40)
    found = {(raw.path, raw.member): raw for raw in collect(tmp_path)}
    assert found["a.gz", ""].bytes.startswith(TEXT)
    assert found["a.gz", ""].problems[0][0] == "truncated"
    assert found["b.tar", "1.txt"].bytes == TEXT
    assert found["b.tar", ""].problems[0][0] == "truncated"
    assert found["c.zip", ""].problems[0][0] == "truncated"


def test_bombs_escapes_and_locked_members_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"\0" * (40 << 20)))
    tar_of(tmp_path / "bomb.tar.gz", {"zeros": b"\0" * (40 << 20)}, "w:gz")
    with zipfile.ZipFile(tmp_path / "escape.zip", "w") as archive:
        archive.writestr("../../evil.txt", TEXT)
        archive.writestr("good.txt", TEXT)
    found = {(raw.path, raw.member): raw for raw in collect(tmp_path)}
    assert found["bomb.gz", ""].problems[0][0] == "too_large"
    assert found["bomb.tar.gz", "zeros"].problems[0][0] == "too_large"
    assert found["escape.zip", "../../evil.txt"].problems[0][0] == "malformed_record"
    assert found["escape.zip", "good.txt"].bytes == TEXT
    assert not (tmp_path.parent / "evil.txt").exists()


def test_links_in_tars_are_no_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert collect(tmp_path) == []


def test_max_items_and_globs_bound_a_source(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", {f"{number}.txt": TEXT for number in range(5)}, "w")
    assert [raw.member for raw in collect(tmp_path, max_items=2)] == ["0.txt", "1.txt"]


def test_load_raw_finds_a_member_again(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar.bz2", {"1.txt": b"one", "2.txt": TEXT})
    entries = load_sources(str(tmp_path), Path("/"))
    raw = list(raw_files(entries))[1]
    again = load_raw(raw.origin, base_of(entries, raw.source))
    assert again.bytes == TEXT
    assert again.sha256 == raw.sha256
    (tmp_path / "a.tar.bz2").unlink()
    with pytest.raises(UserError, match="not there any more"):
        load_raw(raw.origin, tmp_path)


def test_source_paths_name_what_a_cache_key_hashes(tmp_path: Path) -> None:
    tar_of(tmp_path / "a.tar", {"1.txt": TEXT}, "w")
    (tmp_path / "sources.json").write_text('{"files": [{"archive": "a.tar", "path": "1.txt"}]}')
    entries = load_sources(str(tmp_path), Path("/"))
    assert source_paths(entries) == [tmp_path / "a.tar", tmp_path / "sources.json"]
    assert [raw.metadata["role"] for raw in raw_files(entries)] == ["train"]


def test_damaged_archive_of_an_inventory_does_not_go_unseen(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(tmp_path / "a.tar", {"1.txt": TEXT * 50}, "w").read_bytes()[:900])
    (tmp_path / "sources.json").write_text('{"files": [{"archive": "a.tar", "path": "1.txt"}]}')
    assert [raw.problems[0][0] for raw in collect(tmp_path)] == ["truncated"]


def test_standard_library_is_read_in_place_without_tests_and_packages() -> None:
    entries = load_sources("python", Path("/"))
    names = [path.as_posix() for path in source_paths(entries)]
    assert any(name.endswith("/textwrap.py") for name in names)
    assert any(name.endswith("/pydoc_data/topics.py") for name in names)
    assert not any("/site-packages/" in name or "/test/" in name or "/idle_test/" in name for name in names)
    assert 300 < len(names) < 2000
    first = next(raw_files(entries))
    assert (first.source, first.member, first.metadata["tier"]) == ("python", "", "code")
    assert not first.path.startswith("/"), f"ids must not depend on where {sys.prefix} lies"
    assert load_raw(first.origin, Path("/nowhere")).bytes == first.bytes


def test_zstandard_is_read_and_its_end_is_watched(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    packed = zstandard.ZstdCompressor().compress(TEXT * 1000)
    (tmp_path / "a.txt.zst").write_bytes(packed + zstandard.ZstdCompressor().compress(TEXT))  # two frames
    (tmp_path / "b.txt.zst").write_bytes(zstandard.ZstdCompressor().compress(bytes(range(256)) * 999 + TEXT)[:-9])
    (tmp_path / "bomb.zst").write_bytes(zstandard.ZstdCompressor().compress(b"\0" * (40 << 20)))
    tar = tar_of(tmp_path / "c.tar", {"1.txt": TEXT}, "w")
    (tmp_path / "c.tar.zst").write_bytes(zstandard.ZstdCompressor().compress(tar.read_bytes()))
    tar.unlink()
    found = {(raw.path, raw.member): raw for raw in collect(tmp_path)}
    assert found["a.txt.zst", ""].bytes == TEXT * 1001 and not found["a.txt.zst", ""].problems
    assert found["b.txt.zst", ""].problems[0][0] == "truncated"
    assert (found["bomb.zst", ""].bytes, found["bomb.zst", ""].problems[0][0]) == (b"", "too_large")
    assert found["c.tar.zst", "1.txt"].bytes == TEXT


def test_archives_inside_archives_are_read_one_level_deep(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("deep/3.txt", TEXT)
        archive.writestr("again.gz", gzip.compress(TEXT))
    members = {"1.txt": TEXT, "2.txt.gz": gzip.compress(TEXT), "more.zip": inner.getvalue()}
    tar_of(tmp_path / "a.tar.gz", members, "w:gz")
    entries = load_sources(str(tmp_path), Path("/"))
    found = {raw.member: raw for raw in raw_files(entries)}
    assert list(found) == ["1.txt", "2.txt.gz", "more.zip!again.gz", "more.zip!deep/3.txt"]
    assert found["2.txt.gz"].bytes == found["more.zip!deep/3.txt"].bytes == TEXT
    assert found["more.zip!again.gz"].bytes.startswith(b"\x1f\x8b"), "two levels down it stays as it is"
    for raw in found.values():
        assert load_raw(raw.origin, tmp_path).bytes == raw.bytes


def test_bomb_inside_an_archive_is_refused_and_its_neighbours_read(tmp_path: Path) -> None:
    bomb = gzip.compress(b"\0" * (40 << 20))
    tar_of(tmp_path / "a.tar", {"0.gz": bomb, "1.txt": TEXT}, "w")
    found = {raw.member: raw for raw in collect(tmp_path)}
    assert found["0.gz"].problems[0][0] == "too_large" and found["1.txt"].bytes == TEXT


def test_archive_whose_members_lead_out_of_an_inner_archive_is_refused(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("../../evil.txt", TEXT)
    tar_of(tmp_path / "a.tar", {"in.zip": inner.getvalue()}, "w")
    (raw,) = collect(tmp_path)
    assert (raw.bytes, raw.problems[0][0]) == (b"", "malformed_record")


def test_globs_let_files_in_and_keep_them_out(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md", "c/d.txt", "c/draft.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(TEXT)
    tar_of(tmp_path / "e.tar", {"in.txt": TEXT, "in.md": TEXT}, "w")
    (entry,) = load_sources(str(tmp_path), Path("/"))
    chosen = replace(entry, include=("*.txt",), exclude=("*draft*",))
    assert [raw.origin.address for raw in raw_files([chosen])] == ["a.txt", "c/d.txt", "e.tar!in.txt"]


def test_denied_source_gives_its_reason_and_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    (entry,) = load_sources(str(tmp_path), Path("/"))
    (raw,) = raw_files([replace(entry, denied="CC BY-NC: no commercial use")])
    assert (raw.bytes, raw.problems) == (b"", (("licence_denied", "CC BY-NC: no commercial use"),))


def test_file_that_must_not_be_read_is_a_problem_and_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    (raw,) = collect(tmp_path)
    assert raw.problems[0][0] == "fetch_failed"
