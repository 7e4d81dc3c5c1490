"""An inventory's word about its files beside a corpus made of them."""

import json
from pathlib import Path

import pytest
from made_documents import prose

from caslon.corpus.pipeline import build
from caslon.corpus.registry import SourceEntry, load_sources
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.truth import truth
from caslon.observe.events import EventLog

GERMAN = "Der Kaufmann ging am frühen Morgen durch die alte Stadt und sah die Schiffe auf dem breiten Fluss liegen. "


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("inventory")
    texts = {f"good-{number}.txt": prose(number, 5) for number in range(8)}
    texts |= {"copy.txt": texts["good-1.txt"].upper(), "short.txt": "Too short.", "german.txt": GERMAN * 12}
    texts["kept-negative.txt"] = prose(99, 5)
    rows = []
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        row: dict[str, object] = {"archive": None, "path": name, "role": "train", "work": name, "lang": "eng"}
        if name == "copy.txt":
            row |= {"role": "duplicate", "duplicate_of": "good-1", "work": "good-1.txt"}
        if name == "german.txt":
            row |= {"role": "negative", "reason": "German", "lang": "deu"}
        if name == "kept-negative.txt":
            row |= {"role": "negative", "reason": "looks like the rest"}
        rows.append(row)
    (folder / "sources.json").write_text(json.dumps({"files": rows}), encoding="utf-8")
    roles = ("train", "duplicate", "negative")
    settings = CorpusSettings(sources=str(folder), roles=roles, split=(0.6, 0.2, 0.2), workers=1)
    entries = load_sources(str(folder), folder, roles=roles)
    corpus = folder / "corpus"
    corpus.mkdir()
    build(entries, settings, 1, corpus, EventLog(None))
    return truth(corpus, entries, ("en",)) or {}


def test_shares_are_those_of_the_listed_files(found: dict[str, object]) -> None:
    assert found["train_kept"] == {"part": 8, "whole": 9, "share": round(8 / 9, 4)}
    assert found["train_lost_by_code"] == {"too_short": 1}
    assert found["duplicates_caught"]["share"] == 1.0  # type: ignore[index]
    negatives = found["negatives_caught"]
    assert (negatives["part"], negatives["whole"]) == (1, 2)  # type: ignore[index]
    assert negatives["by_kind"]["German"]["share"] == 1.0  # type: ignore[index]


def test_losses_and_survivors_are_named(found: dict[str, object]) -> None:
    assert [row["file"].partition(":")[2] for row in found["train_lost"]] == ["short.txt"]  # type: ignore[index]
    assert [row["file"].partition(":")[2] for row in found["negatives_kept"]] == ["kept-negative.txt"]  # type: ignore[index]


def test_precision_and_recall_of_each_filter(found: dict[str, object]) -> None:
    filters = found["filters"]
    assert filters["language"]["precision"]["share"] == filters["language"]["recall"]["share"] == 1.0  # type: ignore[index]
    assert filters["duplicates"]["recall"] == {"part": 1, "whole": 1, "share": 1.0}  # type: ignore[index]
    assert filters["period"]["precision"]["share"] is None  # type: ignore[index]


def test_sources_without_an_inventory_tell_nothing(tmp_path: Path) -> None:
    assert truth(tmp_path, [SourceEntry(id="plain", location=".", base=tmp_path)], ("en",)) is None
