"""A corpus that was built by the stage is sound; every kind of damage is found and named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_documents import folder_of_texts

from caslon.corpus.replay import replay_segments
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.verify import verify
from caslon.folders import MANIFEST
from caslon.recipe import load_recipe
from caslon.runner import run
from caslon.stages.corpus import load_entries


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    texts = folder_of_texts(folder / "texts")
    (folder / "recipe.toml").write_text(
        f'name = "small"\n[corpus]\nsources = "{texts}"\nsplit = [0.6, 0.2, 0.2]\nworkers = 1\n', encoding="utf-8"
    )
    return run(load_recipe(folder / "recipe.toml", []), folder / "runs") / "corpus"


def damaged(corpus: Path, copy: Path) -> Path:
    shutil.copytree(corpus, copy)
    return copy


def test_a_built_corpus_is_sound(corpus: Path) -> None:
    found = verify(corpus)
    assert found.problems == []
    assert found.passed
    assert (found.documents, found.rejects) == (24, 6)
    assert found.segments > 24


def rewrite(path: Path, change: Callable[[list[dict[str, object]]], None]) -> None:
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), path)


def test_a_changed_byte_is_named(corpus: Path, tmp_path: Path) -> None:
    folder = damaged(corpus, tmp_path / "corpus")
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "!", encoding="utf-8")
    assert verify(folder).problems == ["README.md was changed after it was written"]


def test_a_lost_segment_is_named(corpus: Path, tmp_path: Path) -> None:
    folder = damaged(corpus, tmp_path / "corpus")
    rewrite(folder / "segments/train-00000.parquet", lambda rows: rows.pop(0))
    problems = verify(folder).problems
    assert any("are in no segment" in problem for problem in problems)
    assert any("dataset id" in problem for problem in problems)


def test_a_lost_reject_is_named(corpus: Path, tmp_path: Path) -> None:
    folder = damaged(corpus, tmp_path / "corpus")
    rewrite(folder / "rejects/rejects-00000.parquet", lambda rows: rows.pop(0))
    assert any("were counted" in problem for problem in verify(folder).problems)


def test_a_text_in_two_splits_is_named(corpus: Path, tmp_path: Path) -> None:
    folder = damaged(corpus, tmp_path / "corpus")
    stranger = pq.read_table(folder / "documents/validation-00000.parquet").to_pylist()[0]
    rewrite(folder / "documents/train-00000.parquet", lambda rows: rows.append(stranger))
    assert any("groups stand in two splits" in problem for problem in verify(folder).problems)


def test_a_missing_file_and_an_extra_one_are_named(corpus: Path, tmp_path: Path) -> None:
    folder = damaged(corpus, tmp_path / "corpus")
    shutil.copyfile(folder / "signals/signals-00000.parquet", folder / "signals/signals-00001.parquet")
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"]["ghost.txt"] = {"bytes": 1, "sha256": "0" * 64}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    problems = verify(folder).problems
    assert "ghost.txt is missing" in problems
    assert "signals/signals-00001.parquet is not in the manifest" in problems


def test_segments_are_made_again_from_their_raw_files(corpus: Path, tmp_path: Path) -> None:
    texts = corpus.parents[2] / "texts"
    settings = CorpusSettings(sources=str(texts), split=(0.6, 0.2, 0.2), workers=1)
    entries = load_entries(settings, texts)
    assert replay_segments(corpus, entries, settings, texts, 1000) == []
    other = CorpusSettings(sources=str(texts), split=(0.6, 0.2, 0.2), tiers={"general": (100_000, 50, 0.5)})
    assert any("is now dropped" in problem for problem in replay_segments(corpus, entries, other, texts, 5))
