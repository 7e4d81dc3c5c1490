import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.corpus.collect.collector import BUILT_IN
from caslon.corpus.registry_check import FIELDS, canonical_address, check, known_collectors, listing
from caslon.corpus.registry_entry import CATALOGUES, COLLECTORS, SourceEntry
from caslon.errors import UserError

GOOD = {"id": "stow-survey", "location": "stow", "title": "A Survey of London", "licence": "CC0-1.0"}


def findings(rows: Any, **options: Any) -> list[tuple[str, str, str]]:
    found = check(listing(Path("r.json"), json.dumps({"sources": rows})), **options)
    return [(finding.severity, finding.field, finding.message) for finding in found]


def test_a_good_entry_has_no_findings() -> None:
    assert findings([GOOD]) == []


@pytest.mark.parametrize(
    ("more", "name", "words"),
    [
        ({"id": "X!"}, "id", "is not 3-64 of"),
        ({"id": "ab"}, "id", "is not 3-64 of"),
        ({"tirr": "web"}, "tirr", "is unknown; did you mean 'tier'?"),
        ({"tier": "webb"}, "tier", "is not one of"),
        ({"collector": "gutenburg"}, "collector", "is not one of"),
        ({"priority": 1}, "priority", "is not one of high, medium, low"),
        ({"licence": " "}, "licence", "is empty"),
        ({"time_period": [1800, 1700]}, "time_period", "begins (1800) after it ends (1700)"),
        ({"time_period": [1800]}, "time_period", "is not [first year, last year]"),
        ({"time_period": [True, 1800]}, "time_period", "is not [first year, last year]"),
        ({"allowed_use": "none"}, "allowed_use", "'none' in an enabled source"),
        ({"licence": "all rights reserved"}, "licence", "allows no use, and the source is enabled"),
        ({"formats": ["word"]}, "formats", "is not a list of auto"),
        ({"max_items": 0}, "max_items", "above 0"),
        ({"max_share": 1.5}, "max_share", "is not a share"),
        ({"max_share": True}, "max_share", "is not a share"),
        ({"delay_seconds": -1}, "delay_seconds", "0 or more"),
        ({"checksum": "sha256:12"}, "checksum", "hexadecimal"),
        ({"status": "checked"}, "status", "verified, unverified"),
        ({"enabled": "yes"}, "enabled", "true or false"),
        ({"include": "*.xml"}, "include", "a list of globs"),
        ({"collector": "internet_archive", "location": "https://archive.org"}, "search_terms", "are missing"),
        ({"collector": "rows"}, "text_field", "is missing"),
    ],
)
def test_every_mistake_is_an_error_at_its_field(more: dict[str, Any], name: str, words: str) -> None:
    ((severity, field, message),) = findings([GOOD | more])
    assert (severity, field) == ("error", name)
    assert words in message


@pytest.mark.parametrize("name", ["id", "location", "title", "licence"])
def test_needed_fields_are_missed(name: str) -> None:
    row = {key: value for key, value in GOOD.items() if key != name}
    assert ("error", name, "is missing") in findings([row])


def test_disabled_sources_may_be_barred() -> None:
    assert findings([GOOD | {"allowed_use": "none", "enabled": False}]) == []


@pytest.mark.parametrize(
    ("years", "severity"),
    [([1860, 1900], "error"), ([1400, 1499], "error"), ([1840, 1851], "warning"), ([1500, 1850], "")],
)
def test_the_period_is_compared_with_the_recipes(years: list[int], severity: str) -> None:
    found = findings([GOOD | {"time_period": years}], period=(1500, 1850))
    assert [kind for kind, _, _ in found] == ([severity] if severity else [])
    assert findings([GOOD | {"time_period": years}]) == []


def test_repeated_ids_are_errors_and_repeated_addresses_warnings() -> None:
    rows = [
        GOOD,
        GOOD,
        GOOD | {"id": "one", "location": "https://www.example.org/a/?b=1&a=2#top"},
        GOOD | {"id": "two", "location": "http://example.org:80/a?a=2&b=1&utm_source=x"},
    ]
    found = findings(rows)
    assert [(severity, field) for severity, field, _ in found] == [("error", "id"), ("warning", "location")]
    assert "repeats line 1" in found[0][2]
    assert "leads to the same as entry 'one': https://example.org/a?a=2&b=1" in found[1][2]


def test_searches_of_one_catalogue_differ_by_terms_and_years() -> None:
    search = {"collector": "internet_archive", "location": "https://archive.org", "search_terms": ["Stow", "London"]}
    same = search | {"location": "http://www.archive.org/", "search_terms": ["london", "stow"]}
    assert canonical_address(search) == canonical_address(same)
    assert canonical_address(search) != canonical_address(search | {"time_period": [1598, 1603]})
    assert canonical_address(search) != canonical_address(search | {"search_terms": ["stow"]})


def test_archives_are_told_apart_by_their_globs() -> None:
    assert canonical_address({"location": "./a.zip"}) == canonical_address({"location": "a.zip"})
    assert canonical_address({"location": "a.zip", "include": ["x*"]}) != canonical_address({"location": "a.zip"})


def test_licences_give_warnings() -> None:
    assert findings([GOOD | {"licence": "various"}])[0][:2] == ("warning", "licence")
    assert "taken as disabled" in findings([GOOD | {"licence": "various"}])[0][2]
    assert "taken for research only" in findings([GOOD | {"licence": "the mayor's own"}])[0][2]
    assert findings([GOOD | {"licence": "the mayor's own", "allowed_use": "any"}]) == []
    assert (
        "is more than 'CC BY-NC 4.0' allows"
        in findings([GOOD | {"licence": "CC BY-NC 4.0", "allowed_use": "any"}])[0][2]
    )
    assert findings([GOOD | {"licence": "CC0-1.0", "allowed_use": "research"}]) == []


def test_all_findings_come_at_once_with_file_line_entry_and_field(tmp_path: Path) -> None:
    rows = [
        GOOD,
        GOOD | {"id": "X!", "location": "x", "licence": " "},
        {"id": "third", "location": "y", "title": "t", "licence": "CC0", "tirr": "web"},
        "not an object",
        GOOD | {"id": "fifth", "location": "f", "time_period": [1800, 1700], "allowed_use": "none"},
        GOOD,
    ]
    path = tmp_path / "sources.json"
    text = json.dumps({"note": '"sources": [', "sources": rows}, indent=1)
    found = [str(finding) for finding in check(listing(path, text))]
    lines = text.splitlines()

    def line(part: str, after: int = 0) -> int:
        return next(number for number, words in enumerate(lines, 1) if number > after and part in words)

    bad = line('"X!"')
    fifth = line('"fifth"')
    assert found[0].startswith(f"{path}:{bad}: error: entry 'X!': field id: ")
    assert found[1].startswith(f"{path}:{line('licence', bad)}: error: entry 'X!': field licence: is empty")
    assert found[2] == f"{path}:{line('tirr')}: error: entry 'third': field tirr: is unknown; did you mean 'tier'?"
    assert found[3] == f"{path}:{line('not an object')}: error: entry number 4: is not an object"
    assert found[4].startswith(f"{path}:{line('time_period', fifth)}: error: entry 'fifth': field time_period: begins")
    assert found[5].startswith(f"{path}:{line('allowed_use', fifth)}: error: entry 'fifth': field allowed_use")
    assert found[6].startswith(
        f"{path}:{line('stow-survey', fifth)}: error: entry 'stow-survey': field id: repeats line 4"
    )
    assert len(found) == 7


def test_a_key_written_twice_is_an_error() -> None:
    text = '[{"id": "abc", "location": "a", "title": "t", "licence": "CC0", "title": "u"}]'
    ((finding),) = check(listing(Path("r.json"), text))
    assert (finding.field, finding.message) == ("title", "stands there twice")


@pytest.mark.parametrize("text", ["", "{", '{"texts": []}', "3", '{"sources": {}}'])
def test_what_is_no_registry_is_a_user_error(text: str) -> None:
    with pytest.raises(UserError):
        listing(Path("r.json"), text)


def test_a_list_where_a_name_belongs_is_a_finding() -> None:
    text = '[{"id": "abc", "location": "a", "title": "t", "licence": "CC0", "collector": [], "tier": {}}]'
    messages = {finding.field: finding.message for finding in check(listing(Path("r.json"), text))}
    assert messages["collector"].startswith("[] is not one of ")
    assert messages["tier"].startswith("{} is not one of ")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FIELDS, "other"]), inner, max_size=6),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, max_size=4), st.sampled_from([None, 1]))
def test_no_entry_breaks_the_check(rows: list[Any], indent: int | None) -> None:
    text = json.dumps({"sources": rows}, indent=indent)
    found = listing(Path("r.json"), text)
    assert [row.value for row in found.rows] == rows
    assert all(json.loads(text[row.start : row.end]) == row.value for row in found.rows)
    check(found, period=(1500, 1850))


def test_fields_collectors_and_catalogues_are_those_of_the_code() -> None:
    names = set(SourceEntry.__dataclass_fields__) - {"base", "facts", "denied"}
    assert set(FIELDS) == names
    assert set(COLLECTORS) == set(BUILT_IN) <= known_collectors()
    assert set(CATALOGUES) <= set(COLLECTORS)
