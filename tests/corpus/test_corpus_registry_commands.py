"""`caslon corpus sources ...`: what the commands print, write and return."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from caslon.commands.corpus_sources import app
from caslon.errors import UserError

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pamphlet.txt").write_text("The Lord Mayor came to Cheapside.\n")
    return tmp_path


def call(*words: str) -> Result:
    return RUNNER.invoke(app, list(words))


def rows() -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(Path("sources.json").read_text())["sources"]
    return found


def add_pamphlet() -> Result:
    return call("add", "pamphlet.txt", "--licence", "CC0-1.0", "--period", "1640", "1660", "--language", "en")


def test_a_source_is_added_by_flags_and_the_difference_shown() -> None:
    result = add_pamphlet()
    assert result.exit_code == 0, result.output
    assert '+      "id": "pamphlet",' in result.stdout
    assert "looked at pamphlet.txt: 34 bytes" in result.stderr
    assert rows() == [
        {
            "id": "pamphlet", "title": "pamphlet.txt", "collector": "folder", "location": "pamphlet.txt",
            "time_period": [1640, 1660], "languages": ["en"], "formats": ["text"], "licence": "CC0-1.0", "status": "verified",
        }
    ]  # fmt: skip
    again = add_pamphlet()
    assert isinstance(again.exception, UserError)
    assert "there already" in str(again.exception)


def test_a_dry_run_writes_nothing() -> None:
    result = call("add", "pamphlet.txt", "--licence", "CC0-1.0", "--dry-run", "--json")
    told = json.loads(result.stdout)
    assert (told["ids"], told["written"]) == (["pamphlet"], False)
    assert "pamphlet.txt" in told["difference"]
    assert not Path("sources.json").exists()


def test_what_cannot_be_guessed_must_be_said() -> None:
    for words, what in ((["add"], "what should be added"), (["add", "pamphlet.txt"], "needs --licence")):
        assert what in str(call(*words).exception)
    assert "--contact" in str(call("add", "https://example.org/a", "--licence", "CC0-1.0").exception)
    assert "nothing can be read there" in str(call("add", "nowhere.txt", "--licence", "CC0-1.0").exception)


def test_the_wizard_asks_for_what_flags_did_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caslon.commands.corpus_sources._at_a_terminal", lambda: True)
    answers = ["730", "oliver-twist", "Oliver Twist", "public domain", "en", "1838 1838", "", "y", ""]
    words = ["add", "--collector", "gutenberg", "--no-probe"]
    result = RUNNER.invoke(app, words, input="\n".join(answers))
    assert result.exit_code == 0, result.output
    assert rows() == [
        {
            "id": "oliver-twist", "title": "Oliver Twist", "collector": "gutenberg", "location": "730",
            "time_period": [1838, 1838], "languages": ["en"], "licence": "public domain", "status": "unverified",
        }
    ]  # fmt: skip
    result = RUNNER.invoke(
        app,
        ["add", "pamphlet.txt", "--licence", "MIT", "--language", "en", "--period", "1640", "1640"],
        input="\n\n\nn\n",
    )
    assert "not written" in result.stdout
    assert len(rows()) == 1


def test_sources_are_switched_off_and_on() -> None:
    add_pamphlet()
    assert call("disable", "pam*", "--reason", "too short").exit_code == 0
    assert (rows()[0]["enabled"], rows()[0]["disabled_reason"]) == (False, "too short")
    told = json.loads(call("enable", "pamphlet", "--json").stdout)
    assert (told["ids"], told["written"], rows()[0]["enabled"]) == (["pamphlet"], True, True)
    assert json.loads(call("enable", "pamphlet", "--json").stdout)["written"] is False


def test_validate_prints_every_finding_and_exits_with_2() -> None:
    add_pamphlet()
    assert call("validate").exit_code == 0
    late = call("validate", "--period", "1700", "1800")
    assert late.exit_code == 2
    assert "field time_period: 1640-1660 lies outside the recipe's period 1700-1800" in late.stdout
    told = json.loads(call("validate", "--period", "1650", "1800", "--json").stdout)
    ((finding),) = told["findings"]
    assert (finding["severity"], finding["entry"], finding["field"], finding["line"]) == (
        "warning",
        "'pamphlet'",
        "time_period",
        8,
    )


def test_validate_takes_the_period_from_a_recipe() -> None:
    add_pamphlet()
    Path("r.toml").write_text('name = "r"\n[corpus]\nperiod = [1700, 1750]\n')
    assert call("validate", "--recipe", "r.toml").exit_code == 2


def test_list_shows_and_counts_what_is_there() -> None:
    add_pamphlet()
    call("add", "6", "--collector", "gutenberg", "--licence", "public domain", "--disabled", "later")
    told = json.loads(call("list", "--json").stdout)
    assert [(row["id"], row["enabled"], row["allowed_use"]) for row in told] == [
        ("pamphlet", True, "any"),
        ("gutenberg-6", False, "any"),
    ]
    assert "2 sources: 1 enabled, 1 disabled; 1 fetched once (verified), 1 not yet (unverified)" in call("list").stdout
    assert [row["id"] for row in json.loads(call("list", "--disabled", "--json").stdout)] == ["gutenberg-6"]
    assert json.loads(call("list", "--collector", "web", "--json").stdout) == []


def test_the_shipped_registry_is_named_by_a_word() -> None:
    assert call("validate", "--registry", "london-registry", "--period", "1500", "1850").exit_code == 0
    assert "corpus.enable" in str(call("enable", "old-bailey-*", "--registry", "london-registry").exception)


def test_a_missing_registry_is_a_mistake_that_names_the_shipped_one() -> None:
    missing = call("list").exception
    assert isinstance(missing, UserError)
    assert "london-registry" in str(missing)


def test_an_inventory_can_be_listed_and_validated() -> None:
    files = [{"archive": None, "path": "texts/a.txt", "licence": "CC BY-NC 4.0"}]
    Path("sources.json").write_text(json.dumps({"files": files}))
    ((row),) = json.loads(call("list", "--json").stdout)
    assert (row["id"], row["files"], row["allowed_use"]) == ("texts", 1, "non_commercial")
    assert call("validate").exit_code == 0
