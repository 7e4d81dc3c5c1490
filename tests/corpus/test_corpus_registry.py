import json
from pathlib import Path

import pytest

from caslon.corpus.registry import Registry, base_of, load_sources
from caslon.errors import UserError

GOOD = {"id": "stow-survey", "location": "stow", "title": "A Survey of London", "licence": "CC0-1.0"}


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return path


def test_python_needs_no_file(tmp_path: Path) -> None:
    (entry,) = load_sources("python", tmp_path)
    assert (entry.id, entry.tier, entry.licence) == ("python", "code", "PSF-2.0")


def test_folder_and_file_become_entries(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "One Book.txt").write_text("text")
    entries = load_sources(["texts", "One Book.txt"], tmp_path)
    assert [entry.id for entry in entries] == ["one-book", "texts"]
    assert base_of(entries, "texts") == tmp_path / "texts"


def test_registry_keeps_every_field(tmp_path: Path) -> None:
    row = {**GOOD, "time_period": [1598, 1603], "languages": ["en"], "tier": "historical", "include": ["*.xml"]}
    path = write(tmp_path / "sources.json", {"sources": [row]})
    (entry,) = Registry.load(path).entries
    assert entry.time_period == (1598, 1603)
    assert entry.path == tmp_path / "stow"
    assert entry.wants("stow/a.xml")
    assert not entry.wants("stow/a.txt")


def test_registry_reports_all_mistakes_with_line_entry_and_field(tmp_path: Path) -> None:
    rows = [
        GOOD,
        {**GOOD, "id": "X!", "licence": " "},
        {"id": "third", "location": "x", "title": "t", "licence": "l", "tirr": "web"},
        {**GOOD, "id": "fourth", "time_period": [1800, 1700], "allowed_use": "none"},
        GOOD,
    ]
    path = write(tmp_path / "sources.json", rows)
    with pytest.raises(UserError) as caught:
        Registry.load(path)
    message = str(caught.value)
    lines = path.read_text().splitlines()
    second = next(number for number, line in enumerate(lines, 1) if '"X!"' in line) - 1
    for words in (
        f"{path}:{second}: entry 'X!': field id",
        "entry 'X!': field licence",
        "entry 'third': field tirr: is unknown; did you mean 'tier'?",
        "entry 'fourth': field time_period",
        "entry 'fourth': field allowed_use",
        "entry 'stow-survey': field id: repeats line",
    ):
        assert words in message


def test_missing_source_and_broken_registry_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_sources("nowhere", tmp_path)
    (tmp_path / "sources.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        load_sources("sources.json", tmp_path)


def test_disabled_and_unwanted_sources_stay_out(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "id": "asleep", "enabled": False}, {**GOOD, "id": "other"}]
    path = write(tmp_path / "sources.json", rows)
    assert [entry.id for entry in load_sources(str(path), tmp_path)] == ["other", "stow-survey"]
    assert [entry.id for entry in load_sources(str(path), tmp_path, only=["sto*"])] == ["stow-survey"]
    with pytest.raises(UserError, match="no enabled source"):
        load_sources(str(path), tmp_path, only=["nothing"])


def test_two_sources_with_one_id_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "texts").mkdir(parents=True)
    with pytest.raises(UserError, match="two sources have the id 'texts'"):
        load_sources(["a/texts", "b/texts"], tmp_path)


def test_inventory_gives_an_entry_per_archive_with_facts(tmp_path: Path) -> None:
    files = [
        {"archive": "oldbailey.tar.bz2", "path": "ob/1.xml", "title": "Session", "year": 1740, "lang": "eng",
         "licence": "CC BY-NC 4.0", "role": "train", "work": "w1"},
        {"archive": "oldbailey.tar.bz2", "path": "ob/2.xml", "role": "duplicate"},
        {"archive": None, "path": "bad/x.txt", "role": "negative", "expected": "reject"},
    ]  # fmt: skip
    write(tmp_path / "sources.json", {"note": "", "files": files})
    (entry,) = load_sources(str(tmp_path), Path("/"))
    assert (entry.id, entry.tier, entry.time_period, entry.licence) == (
        "oldbailey",
        "general",
        (1740, 1740),
        "CC BY-NC 4.0",
    )
    assert dict(entry.facts["ob/1.xml"]) == {
        "role": "train", "title": "Session", "licence": "CC BY-NC 4.0", "year": 1740, "group": "w1", "languages": ("en",),
        "tier": "general",
    }  # fmt: skip
    both = load_sources(str(tmp_path), Path("/"), roles=("negative", "duplicate"))
    assert [e.location for e in both] == ["bad", "oldbailey.tar.bz2"]
    assert list(both[1].facts) == ["ob/2.xml"]


def test_the_real_inventory_loads(real_data: Path) -> None:
    entries = load_sources(str(real_data / "london"), Path("/"))
    assert sum(len(entry.facts) for entry in entries) == 11_910
    assert {entry.id: entry.tier for entry in entries}["eebo-tcp"] == "historical"
