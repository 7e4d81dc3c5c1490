"""One file before and after every step: in JSON, in the terminal and as a page; never a value that must not be shown."""

import json
from pathlib import Path

import pytest
from made_documents import prose
from typer.testing import CliRunner

from caslon.commands.corpus_inspect import inspect as inspect_command
from caslon.commands.output import group
from caslon.corpus.inspect import InspectedDocument, Inspection, Stage, inspect
from caslon.corpus.pipeline import build
from caslon.corpus.registry import load_sources
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import read_documents, read_segments
from caslon.errors import UserError
from caslon.observe.events import EventLog

app = group()
app.command()(inspect_command)
MAIL = "john.smith@example.com"


@pytest.fixture
def letter(tmp_path: Path) -> Path:
    path = tmp_path / "letter.txt"
    text = f"{prose(1)}\n\nWrite to Mr. Smith at {MAIL}  about the mer\u00adchants of L0nd0n.\n\n{prose(2)}\n"
    path.write_text(text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    return path


def only(found: Inspection) -> InspectedDocument:
    (document,) = found.documents
    return document


def stage(document: InspectedDocument, name: str) -> Stage:
    return next(one for one in document.stages if one.name == name)


def test_every_step_is_shown_before_and_after(letter: Path) -> None:
    settings = CorpusSettings(ocr_repair="apply", period=(1500, 1850))
    found = inspect(letter, settings, letter.parent)
    (file,) = found.files
    assert (file.kind, file.encoding, file.bytes) == ("text", "utf-8", letter.stat().st_size)
    document = only(found)
    assert document.verdict == "kept"
    assert [one.name for one in document.stages] == [
        "read", "forget", "repair", "ocr", "language", "period", "quality", "contamination", "exact duplicates",
        "near duplicates", "source share", "boilerplate", "privacy", "segments",
    ]  # fmt: skip
    assert any("mer‹soft hyphen›chants" in line for line in stage(document, "repair").differences.lines)
    assert "+about the merchants of L0nd0n." in " ".join(stage(document, "repair").differences.lines) or any(
        line.startswith("+") and "merchants of L0nd0n" in line for line in stage(document, "repair").differences.lines
    )
    assert any(line.startswith("+") and "of London." in line for line in stage(document, "ocr").differences.lines)
    assert any(line.startswith("+") and "[EMAIL]" in line for line in stage(document, "privacy").differences.lines)
    assert stage(document, "language").note == "en 100%"
    assert stage(document, "period").note == "unknown: no date, and the text does not tell"
    assert stage(document, "contamination").outcome == "off"
    assert stage(document, "near duplicates").outcome == "whole corpus"


def test_every_score_stands_beside_its_threshold(letter: Path) -> None:
    settings = CorpusSettings(period=(1500, 1850), tiers={"general": (200, 50, 0.99)}, minimum_score=1.0)
    document = only(inspect(letter, settings, letter.parent))
    scores = {score.name: score for score in document.scores}
    assert document.verdict == "low_meaningful_ratio"
    assert stage(document, "quality").outcome == "rejected"
    assert stage(document, "privacy").outcome == stage(document, "segments").outcome == "not reached"
    assert (scores["meaningful_ratio"].minimum, scores["meaningful_ratio"].passed) == (0.99, False)
    assert scores["meaningful_ratio"].code == "low_meaningful_ratio"
    limits = {name: score.limits for name, score in scores.items()}
    assert limits == {
        "language_share": "at least 0.3", "modernity": "at most 1", "characters": "at least 200", "words": "at least 50",
        "meaningful_ratio": "at least 0.99", "ad_density": "", "ocr_signs": "", "repeated_lines": "at most 0.3",
        "repeated_paragraphs": "at most 0.3", "top_3gram": "at most 0.18", "mean_word": "3 to 10",
        "longest_token": "at most 1000", "symbols_per_word": "at most 0.1", "score": "at least 1",
    }  # fmt: skip
    assert [name for name, score in scores.items() if score.passed is False] == ["meaningful_ratio"]


def test_a_text_in_another_language_is_measured_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "german.txt"
    sentence = "Der Kaufmann ging am frühen Morgen durch die alte Stadt und sah die Schiffe auf dem breiten Fluss. "
    path.write_text(
        "\n\n".join(sentence.replace("Kaufmann", name) for name in ("Bischof", "Schreiber", "Soldat", "Müller"))
    )
    document = only(inspect(path, CorpusSettings(), tmp_path))
    assert document.verdict == "wrong_language"
    assert {"language_share", "words", "meaningful_ratio", "score"} <= {score.name for score in document.scores}


@pytest.mark.parametrize("action", ["mask", "report", "drop"])
def test_personal_data_is_never_shown(letter: Path, action: str) -> None:
    settings = CorpusSettings.model_validate({"privacy": {"email": action}})
    found = inspect(letter, settings, letter.parent)
    assert MAIL not in json.dumps(found.to_json(), ensure_ascii=False)
    assert "john.smith" not in json.dumps(found.to_json())
    masked = any("[EMAIL]" in line for line in stage(only(found), "privacy").differences.lines)
    assert masked == (action == "mask")
    assert only(found).verdict == ("secret_found" if action == "drop" else "kept")


def test_ids_and_segments_are_those_of_a_build(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(6):
        (texts / f"{number}.txt").write_text(prose(number, 9), encoding="utf-8")
    settings = CorpusSettings(sources="texts", split=(0.6, 0.2, 0.2), workers=1)
    entries = load_sources("texts", tmp_path)
    build(entries, settings, 1, tmp_path / "corpus", EventLog(None), tmp_path)
    document = only(found := inspect(texts / "3.txt", settings, tmp_path, entries))
    assert found.registered
    built = next(one for one in read_documents(tmp_path / "corpus") if one.origin.path == "3.txt")
    assert document.id == built.id
    pieces = [(one.id, one.start, one.end) for one in read_segments(tmp_path / "corpus") if one.document_id == built.id]
    assert [(one.id, one.start, one.end) for one in document.segments] == pieces
    assert {score.name: score.value for score in document.scores}["score"] == built.scores["score"]


def test_the_first_documents_of_many(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": prose(number)}) for number in range(5)), encoding="utf-8")
    found = inspect(path, CorpusSettings(), tmp_path, documents=2)
    assert (len(found.documents), found.complete) == (2, False)
    whole = inspect(path, CorpusSettings(), tmp_path)
    assert (len(whole.documents), whole.complete) == (5, True)
    assert stage(whole.documents[1], "read").outcome == "changed"  # from the row's JSON to its text


def test_what_cannot_be_read_has_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "nothing.txt"
    path.write_text(" \n", encoding="utf-8")
    document = only(inspect(path, CorpusSettings(), tmp_path))
    assert (document.verdict, document.stages[0].outcome) == ("empty", "rejected")
    assert {one.outcome for one in document.stages[1:]} == {"not reached"}


def test_a_forgotten_file_is_not_read(letter: Path) -> None:
    (letter.parent / "forget.txt").write_text("letter.txt\n")
    document = only(inspect(letter, CorpusSettings(forget="forget.txt"), letter.parent))
    assert document.verdict == "forgotten"
    assert document.stages[0].name == "forget"


def test_a_missing_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        inspect(tmp_path / "missing.txt", CorpusSettings(), tmp_path)


# --- the command -------------------------------------------------------------------------------------------------------


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_terminal_shows_steps_scores_and_verdict_without_colours(letter: Path) -> None:
    shown = call(str(letter), "--set", "corpus.ocr_repair=apply")
    assert "\x1b" not in shown
    assert "letter.txt: text, utf-8" in shown
    assert "verdict: kept" in shown
    assert "at least 200" in shown
    assert "    +" in shown
    assert MAIL not in shown


def test_settings_can_be_changed_and_mistakes_are_named(letter: Path) -> None:
    found = json.loads(call(str(letter), "--json", "--set", "corpus.maximum_ad_density=0.2", "--tier", "historical"))
    assert found["documents"][0]["tier"] == "historical"
    with pytest.raises(UserError, match="unknown key"):
        call(str(letter), "--set", "corpus.maximum_ad_densty=0.2")


def test_a_recipe_gives_settings_and_what_its_sources_say(letter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(letter.parent)
    row = {
        "id": "letters",
        "title": "Letters",
        "location": "letter.txt",
        "licence": "CC0-1.0",
        "tier": "historical",
        "ocr": True,
    }
    Path("sources.json").write_text(json.dumps({"sources": [row]}))
    Path("recipe.toml").write_text('name = "small"\n[corpus]\nsources = "sources.json"\n')
    found = json.loads(call("letter.txt", "--recipe", "recipe.toml", "--json"))
    assert (found["source"], found["registered"]) == ("letters", True)
    assert found["documents"][0]["tier"] == "historical"
    assert found["documents"][0]["licence"] == "CC0-1.0"
    ocr = next(stage for stage in found["documents"][0]["stages"] if stage["name"] == "ocr")
    assert ocr["outcome"] == "changed"  # the source says that a machine read it


def test_the_page_is_whole_and_asks_for_nothing(letter: Path) -> None:
    page = letter.with_name("page.html")
    assert call(str(letter), "--html", str(page)).strip() == str(page)
    html = page.read_text(encoding="utf-8")
    assert MAIL not in html
    assert "Scores beside their thresholds" in html
    assert "Every step" in html
    assert "[EMAIL]" in html
    assert "default-src 'none'" in html
    assert not any(f'{name}="http' in html for name in ("src", "href"))
