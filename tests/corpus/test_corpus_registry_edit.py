import json
from pathlib import Path

import pytest

from caslon.corpus.registry import LONDON_REGISTRY
from caslon.corpus.registry_edit import added, entry_text, switched
from caslon.errors import UserError

ROW = {"id": "stow-survey", "title": "A Survey of London", "location": "stow", "licence": "CC0-1.0"}
HAND = """[
  {"id": "first", "title": "First", "location": "a",   "licence": "CC0-1.0"},

  { "title": "Second",
    "id": "second", "location": "b", "licence": "MIT", "enabled": false, "disabled_reason": "slow" }
]
"""


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    path = tmp_path / "sources.json"
    path.write_text(HAND)
    return path


def test_the_first_entry_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sources.json"
    change = added(path, ROW)
    assert not path.exists()
    change.write()
    assert json.loads(path.read_text()) == {"sources": [ROW]}
    second = ROW | {"id": "second", "location": "b"}
    added(path, second).write()
    assert json.loads(path.read_text()) == {"sources": [ROW, second]}
    assert list(tmp_path.iterdir()) == [path]


def test_adding_leaves_everything_else_as_it_was(by_hand: Path) -> None:
    change = added(by_hand, ROW)
    assert change.after.startswith(HAND.rstrip("]\n"))
    taken = [line for line in change.difference.splitlines() if line.startswith("-") and not line.startswith("---")]
    assert taken == [
        '-    "id": "second", "location": "b", "licence": "MIT", "enabled": false, "disabled_reason": "slow" }'
    ]
    assert '+      "title": "A Survey of London",' in change.difference
    assert [row["id"] for row in json.loads(change.after)] == ["first", "second", "stow-survey"]


def test_a_repeated_id_or_address_is_refused(by_hand: Path) -> None:
    with pytest.raises(UserError, match=r"'first' is there already\n.*sources.json:2"):
        added(by_hand, ROW | {"id": "first"})
    with pytest.raises(UserError, match="the source 'second' leads to the same place"):
        added(by_hand, ROW | {"location": "./b"})
    assert by_hand.read_text() == HAND


def test_a_wrong_entry_is_refused_with_all_its_mistakes(by_hand: Path) -> None:
    with pytest.raises(UserError, match=r"field priority(.|\n)*field tier") as caught:
        added(by_hand, ROW | {"tier": "x", "priority": "y"})
    assert caught.value.exit_code == 2
    with pytest.raises(UserError, match="outside the recipe's period"):
        added(by_hand, ROW | {"time_period": [1900, 1910]}, period=(1500, 1850))


def test_a_licence_that_does_not_tell_is_added_disabled(by_hand: Path) -> None:
    change = added(by_hand, ROW | {"licence": "various"})
    row = json.loads(change.after)[2]
    assert row["enabled"] is False
    assert "does not tell" in row["disabled_reason"]
    assert [warning.field for warning in change.warnings] == ["licence"]


def test_switching_touches_only_the_entries_meant(by_hand: Path) -> None:
    change = switched(by_hand, ["sec*"], enabled=True)
    assert change.ids == ("second",)
    assert change.after.startswith(HAND[: HAND.index('  { "title"')])
    row = json.loads(change.after)[1]
    assert row["enabled"] is True
    assert "disabled_reason" not in row
    change.write()
    assert switched(by_hand, ["second"], enabled=True).difference == ""
    off = switched(by_hand, ["*"], enabled=False, reason="holiday")
    assert {(row["enabled"], row["disabled_reason"]) for row in json.loads(off.after)} == {(False, "holiday")}


def test_a_glob_that_fits_nothing_is_a_mistake(by_hand: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'second'"):
        switched(by_hand, ["secnd"], enabled=True)


def test_what_may_not_be_used_is_not_enabled(by_hand: Path) -> None:
    by_hand.write_text(HAND.replace('"MIT"', '"all rights reserved"'))
    with pytest.raises(UserError, match="'second' cannot be enabled: its licence is 'all rights reserved'"):
        switched(by_hand, ["second"], enabled=True)


def test_a_file_changed_meanwhile_is_not_overwritten(by_hand: Path) -> None:
    change = added(by_hand, ROW)
    by_hand.write_text(HAND + "\n")
    with pytest.raises(UserError, match="changed meanwhile"):
        change.write()
    assert by_hand.read_text() == HAND + "\n"


def test_the_shipped_registry_and_inventories_are_not_edited(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus\.enable"):
        switched(LONDON_REGISTRY, ["*"], enabled=True)
    path = tmp_path / "sources.json"
    path.write_text('{"files": []}')
    with pytest.raises(UserError, match="inventory"):
        added(path, ROW)


def test_an_entry_is_written_one_field_a_line_in_the_fields_order() -> None:
    row = {"licence": "CC0-1.0", "time_period": [1598, 1603], "id": "abc", "title": "Ærø"}
    assert entry_text(row, indent=2).splitlines() == [
        "  {", '    "id": "abc",', '    "title": "Ærø",', '    "time_period": [1598, 1603],', '    "licence": "CC0-1.0"', "  }",
    ]  # fmt: skip
