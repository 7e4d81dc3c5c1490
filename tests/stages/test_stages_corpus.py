import hashlib
import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from caslon.corpus.shards import SPLITS, read_documents, read_segments
from caslon.folders import content_files
from caslon.observe.events import EventLog, read_events
from caslon.stages import corpus
from caslon.stages.stage import PlanContext, StageContext


def texts(folder: Path) -> Path:
    folder.mkdir()
    nouns, verbs = ("king", "river", "letter", "church", "merchant"), ("saw", "left", "loved", "crossed", "praised")
    for seed in range(12):
        pick = random.Random(seed).choice
        lines = [
            f"The {pick(nouns)} of the {pick(nouns)} {pick(verbs)} the old {pick(nouns)} again." for _ in range(90)
        ]
        (folder / f"{seed}.txt").write_text(
            "\n\n".join(" ".join(lines[i : i + 5]) for i in range(0, 90, 5)), encoding="utf-8"
        )
    return folder


def run(source: Path, folder: Path, base: Path) -> dict[str, object]:
    folder.mkdir()
    settings = corpus.Settings(
        sources=str(source), split=(0.6, 0.2, 0.2), workers=1, near_duplicates={"enabled": False}
    )
    with EventLog(folder / "events.jsonl") as events:
        return corpus.run(StageContext("corpus", settings, 1, folder, {}, events, base))


def test_the_stage_writes_a_whole_folder_twice_the_same(tmp_path: Path) -> None:
    source = texts(tmp_path / "texts")
    totals = run(source, tmp_path / "one", tmp_path)
    assert run(source, tmp_path / "two", tmp_path) == totals
    first, second = content_files(tmp_path / "one"), content_files(tmp_path / "two")
    assert first == second
    assert {"README.md", "dataset.json"} < set(first)
    assert not any(name.startswith("work/") for name in first)
    assert (tmp_path / "one" / "report.html").is_file()
    assert totals["documents"] == sum(1 for _ in read_documents(tmp_path / "one"))
    assert all(list(read_segments(tmp_path / "one", split)) for split in SPLITS)
    phases = {record.get("phase") for record in read_events(tmp_path / "one" / "events.jsonl")}
    assert phases - {None} == {"read", "judge", "find duplicates", "mask and cut", "write", "check the splits"}


def test_the_dataset_id_follows_the_content_not_the_place(tmp_path: Path) -> None:
    source = texts(tmp_path / "texts")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = texts(elsewhere / "texts")
    first, second = run(source, tmp_path / "one", tmp_path), run(moved, tmp_path / "two", tmp_path)
    assert first["dataset_id"] == second["dataset_id"]
    (source / "3.txt").write_text((source / "3.txt").read_text(encoding="utf-8") + " An end.", encoding="utf-8")
    assert run(source, tmp_path / "three", tmp_path)["dataset_id"] != first["dataset_id"]


def test_sources_and_plan_look_without_reading(tmp_path: Path) -> None:
    source = texts(tmp_path / "texts")
    settings = corpus.Settings(sources="texts", workers=3)
    assert corpus.sources(settings, tmp_path) == sorted(source.iterdir())
    rows = {row.name: row.value for row in corpus.plan(PlanContext("corpus", settings, 1, {}, {}, tmp_path))}
    assert rows["files"] == 12
    assert rows["size"] == sum(path.stat().st_size for path in source.iterdir())
    assert rows["workers"] == 3


def test_settings_refuse_what_cannot_be_meant() -> None:
    for values in (
        {"split": (0.9, 0.2, 0.0)},
        {"period": (1850, 1500)},
        {"near_duplicates": {"bands": 7}},
        {"segments": {"minimum_characters": 90, "maximum_characters": 100}},
        {"sauces": "python"},
    ):
        with pytest.raises(ValidationError):
            corpus.Settings(**values)


def test_workers_do_not_enter_the_cache_key() -> None:
    assert corpus.Settings(workers=1).output_settings() == corpus.Settings(workers=2).output_settings()
    assert "workers" not in corpus.Settings().output_settings()
    assert hashlib.sha256(repr(corpus.Settings().output_settings()).encode()).hexdigest()
