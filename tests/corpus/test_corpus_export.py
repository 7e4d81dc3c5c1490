import json
from pathlib import Path

import pytest
from made_documents import folder_of_texts
from test_corpus_pipeline import build_corpus

from caslon.corpus.export import export
from caslon.corpus.shards import SPLITS, read_segments
from caslon.errors import UserError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build_corpus(folder_of_texts(tmp_path_factory.mktemp("texts")), folder)
    return folder


def texts(corpus: Path, split: str) -> list[str]:
    return [segment.text for segment in read_segments(corpus, split)]


def test_text_has_segments_parted_by_a_blank_line(corpus: Path, tmp_path: Path) -> None:
    written = export(corpus, tmp_path / "out", "txt")
    assert [item.path.name for item in written] == ["train.txt", "validation.txt", "test.txt"]
    for item, split in zip(written, SPLITS, strict=True):
        assert item.path.read_text(encoding="utf-8") == "\n\n".join(texts(corpus, split)) + "\n"
        assert item.segments == len(texts(corpus, split))


def test_json_lines_carry_the_address(corpus: Path, tmp_path: Path) -> None:
    (written,) = export(corpus, tmp_path / "out", "jsonl", ["test"])
    rows = [json.loads(line) for line in written.path.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == texts(corpus, "test")
    assert all(row["address"].startswith("good-") or "copy" in row["address"] for row in rows)


def test_a_hugging_face_folder_loads_offline(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    export(corpus, tmp_path / "out", "hf")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: loaded[split]["text"][:] for split in SPLITS} == {split: texts(corpus, split) for split in SPLITS}


def test_what_cannot_be_done_is_said(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no export format 'csv'"):
        export(corpus, tmp_path / "out", "csv")
    with pytest.raises(UserError, match="no split 'dev'"):
        export(corpus, tmp_path / "out", "txt", ["dev"])
    with pytest.raises(UserError, match="no corpus here"):
        export(tmp_path, tmp_path / "out", "txt")
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export(corpus, tmp_path / "out", "txt")
