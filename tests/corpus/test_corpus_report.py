import json
import re
from dataclasses import replace
from pathlib import Path

from made_documents import folder_of_texts

from caslon.corpus.pipeline import build
from caslon.corpus.registry import load_sources
from caslon.corpus.report import warnings_of, write_report
from caslon.corpus.settings import CorpusSettings
from caslon.observe.events import EventLog


def made(tmp_path: Path) -> tuple[Path, dict[str, object]]:
    texts = folder_of_texts(tmp_path / "texts")
    settings = CorpusSettings(sources=str(texts), split=(0.6, 0.2, 0.2), period=(1500, 1850), workers=1)
    found = load_sources(str(texts), tmp_path)
    entries = [replace(entry, licence="CC BY-NC 4.0", allowed_use="non_commercial") for entry in found]
    folder = tmp_path / "corpus"
    folder.mkdir()
    totals = build(entries, settings, 1, folder, EventLog(None))
    return folder, write_report(folder, entries, settings, totals, 1.5)


def test_report_and_card_state_the_numbers_of_report_json(tmp_path: Path) -> None:
    folder, numbers = made(tmp_path)
    stored = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(numbers))
    card = (folder / "README.md").read_text(encoding="utf-8")
    page = (folder / "report.html").read_text(encoding="utf-8")
    for text in (card, page):
        assert f"{stored['documents']:,}" in text
        assert f"{stored['characters']:,}" in text
        assert stored["dataset_id"] in text
    for code in stored["rejects"]:
        assert code in page and code in card


def test_card_has_front_matter_licence_and_no_place_or_time(tmp_path: Path) -> None:
    folder, _ = made(tmp_path)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlanguage:\n- en\n")
    assert "path: segments/train-*.parquet" in card
    assert "non-commercial" in card
    assert str(tmp_path) not in card
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", card)


def test_numbers_add_up_by_source_and_split(tmp_path: Path) -> None:
    _, numbers = made(tmp_path)
    stored = json.loads(json.dumps(numbers))
    assert sum(row["documents"] for row in stored["sources"].values()) == stored["documents"]
    assert sum(row["documents"] for row in stored["splits"].values()) == stored["documents"]
    assert sum(stored["licence_characters"].values()) == stored["characters"]
    assert sum(stored["rejects"].values()) == sum(sum(row.values()) for row in stored["rejects_by_source"].values())
    assert stored["period_verdicts"] == {"unknown": stored["documents"]}


def test_warnings_name_what_a_reader_should_know(tmp_path: Path) -> None:
    _, numbers = made(tmp_path)
    assert any("no known year" in warning for warning in warnings_of(numbers))
    row = {"documents": 10, "rejected": 90, "kept_share": 0.1, "characters": 5, "raw_files": 100}
    changed = {
        **numbers,
        "sources": {"bad": row, "good": {**row, "kept_share": 0.8}},
        "rejects": {"step_failed": 2, "licence_denied": 7},
    }
    text = " ".join(warnings_of(changed))
    assert "bad: only 10%" in text and "good: only" not in text
    assert "2 documents made a step fail" in text and "7 files were left out because of their licence" in text
