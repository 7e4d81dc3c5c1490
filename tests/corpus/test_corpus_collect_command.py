"""The command that fills the store, from a recipe and from a registry."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caslon.commands.corpus_collect import collect
from caslon.commands.output import group
from caslon.errors import CaslonError, Stopped, UserError
from tests.corpus.loopback_server import Loopback, Reply, serving

TEXT = b'{"text": "In the reign of King Charles the plague came to London."}\n' * 20

app = group()
app.command()(collect)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with serving() as loopback:
        yield loopback


@pytest.fixture
def recipe(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "id": name, "title": name, "collector": "rows", "location": server.file(f"/{name}.jsonl", TEXT),
            "licence": "CC0-1.0", "formats": ["jsonl"], "text_field": "text", "priority": priority,
            "allowed_use": "any", "status": "unverified",
        }
        for name, priority in (("first-source", "low"), ("second-source", "high"))
    ]  # fmt: skip
    (tmp_path / "sources.json").write_text(json.dumps({"sources": rows}))
    (tmp_path / "recipe.toml").write_text(
        'name = "small"\n[corpus]\nsources = "sources.json"\n'
        'collect = { contact = "tests@example.org", allow_private = true, delay_seconds = 0.0, store = "kept" }\n'
    )
    return tmp_path / "recipe.toml"


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: str) -> CaslonError:
    with pytest.raises(CaslonError) as caught:
        CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    return caught.value


def test_recipe_is_collected_twice_and_the_second_time_for_nothing(recipe: Path, server: Loopback) -> None:
    first = json.loads(call(str(recipe), "--json"))
    assert [(row["source"], row["new"], row["bytes_fetched"]) for row in first] == [
        ("second-source", 1, len(TEXT)), ("first-source", 1, len(TEXT)),
    ]  # fmt: skip
    again = json.loads(call(str(recipe), "--json"))
    assert [(row["unchanged"], row["bytes_fetched"]) for row in again] == [(1, 0), (1, 0)]
    assert (recipe.parent / "kept" / "state.sqlite").is_file()
    assert "second-source" in call(str(recipe))


def test_bounds_and_choice_of_sources(recipe: Path, server: Loopback) -> None:
    (row,) = json.loads(call(str(recipe), "--json", "--only", "first-*"))
    assert row["source"] == "first-source"
    (row,) = json.loads(call(str(recipe), "--json", "--max-sources", "1"))
    assert row["source"] == "second-source"
    (row,) = json.loads(call(str(recipe), "--json", "--store", "other", "--max-bytes", "10"))
    assert row["state"] == "budget spent"


def test_dry_run_lists_items_and_bytes_and_fetches_nothing(recipe: Path, server: Loopback) -> None:
    printed = call(str(recipe), "--dry-run")
    assert "second-source: 1 items, 0 bytes, 1 of unknown size" in printed and "second-source.jsonl" in printed
    assert server.asked == []
    call(str(recipe))
    assert f"second-source: 1 items, {len(TEXT):,} bytes" in call(str(recipe), "--dry-run")


def test_offline_is_an_error_of_the_user_until_everything_is_there(recipe: Path) -> None:
    assert refusal(str(recipe), "--offline").exit_code == 2
    call(str(recipe))
    assert "2 files" in call(str(recipe), "--offline")


def test_registry_needs_a_contact(recipe: Path) -> None:
    found = refusal(str(recipe.parent / "sources.json"))
    assert isinstance(found, UserError) and "contact" in str(found)
    missing = refusal("nowhere.toml")
    assert missing.exit_code == 2


def test_all_sources_failing_is_a_failure(recipe: Path, server: Loopback) -> None:
    text = (recipe.parent / "sources.json").read_text().replace('"rows"', '"london_lives"').replace(".jsonl", ".html")
    (recipe.parent / "sources.json").write_text(text)
    server.reply("/first-source.html", Reply(status=404))
    assert refusal(str(recipe)).exit_code == 1


def test_ctrl_c_keeps_what_was_fetched(recipe: Path, server: Loopback) -> None:
    from caslon.corpus.collect import http

    real = http.Client.open
    calls = []

    def opened(self: http.Client, url: str, *rest: object, **more: object) -> object:
        calls.append(url)
        if url.endswith("first-source.jsonl"):
            raise KeyboardInterrupt
        return real(self, url, *rest, **more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(http.Client, "open", opened)
        stopped = refusal(str(recipe))
    assert isinstance(stopped, Stopped) and stopped.exit_code == 3
    rows = {row["source"]: row for row in json.loads(call(str(recipe), "--json"))}
    assert rows["second-source"]["bytes_fetched"] == 0 and rows["first-source"]["new"] == 1


def test_rights_can_only_be_confirmed_for_a_source_that_is_there(recipe: Path) -> None:
    assert refusal(str(recipe), "--confirm-rights", "no-such-source").exit_code == 2
    call(str(recipe), "--confirm-rights", "first-source")
