import bz2
import gzip
import io
import lzma
import pickle
import sys
import tarfile
import zipfile
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
