import json
from pathlib import Path

import pytest
from made_documents import folder_of_texts
from test_corpus_pipeline import SPLIT, content

from caslon.corpus.pipeline import build, remove_work
from caslon.corpus.refilter import read_key, stored_with_key
from caslon.corpus.registry import load_sources
from caslon.corpus.settings import CorpusSettings
from caslon.observe.events import EventLog


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_texts(tmp_path_factory.mktemp("texts"))


def settings_of(texts: Path, **values: object) -> CorpusSettings:
    return CorpusSettings(sources=str(texts), **{"split": SPLIT, "workers": 1, **values})  # type: ignore[arg-type]


def built(texts: Path, folder: Path, earlier: tuple[Path, ...] = (), **values: object) -> Path:
    folder.mkdir(parents=True)
    settings = settings_of(texts, **values)
    build(load_sources(str(texts), texts), settings, 1, folder, EventLog(None), texts, earlier=earlier)
    remove_work(folder)
    return folder


def test_new_thresholds_give_the_bytes_of_a_whole_build(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = built(texts, tmp_path / "first")
    stricter = {"tiers": {"general": (900, 50, 0.5)}}
    whole = built(texts, tmp_path / "whole", **stricter)
    assert content(whole) != content(first)

    def fail(*_: object) -> None:
        raise AssertionError("raw files were read")

    monkeypatch.setattr("caslon.corpus.pipeline.raw_files", fail)
    again = built(texts, tmp_path / "again", (tmp_path / "none", first), **stricter)
    assert content(again) == content(whole)


def test_the_key_follows_files_and_reading_and_not_thresholds(texts: Path, tmp_path: Path) -> None:
    entries = load_sources(str(texts), texts)
    key = read_key(entries, settings_of(texts), texts)
    assert read_key(entries, settings_of(texts, minimum_score=50.0, workers=2), texts) == key
    assert read_key(entries, settings_of(texts, long_s="modern"), texts) != key
    other = folder_of_texts(tmp_path / texts.name)
    (other / "short.txt").write_text("Another text.", encoding="utf-8")
    assert read_key(load_sources(str(other), other), settings_of(texts), texts) != key


def test_a_corpus_is_found_by_its_key(tmp_path: Path) -> None:
    for name, key in (("a", "1"), ("b", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text(json.dumps({"read_key": key}), encoding="utf-8")
    folders = [tmp_path / name for name in ("missing", "a", "b")]
    assert stored_with_key(folders, "2") == tmp_path / "b"
    assert stored_with_key(folders, "3") is None
