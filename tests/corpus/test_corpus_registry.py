import json
from pathlib import Path

import pytest

from caslon.corpus.registry import LONDON, Registry, base_of, load_sources, registry_path
from caslon.errors import UserError
from caslon.recipe import load_recipe

GOOD = {"id": "stow-survey", "location": "stow", "title": "A Survey of London", "licence": "CC0-1.0"}


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return path


def test_python_needs_no_file(tmp_path: Path) -> None:
    (entry,) = load_sources("python", tmp_path)
    assert (entry.id, entry.tier, entry.licence) == ("python", "code", "PSF-2.0")


def test_folder_and_file_become_entries(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "One Book.txt").write_text("text")
    entries = load_sources(["texts", "One Book.txt"], tmp_path)
    assert [entry.id for entry in entries] == ["one-book", "texts"]
    assert base_of(entries, "texts") == tmp_path / "texts"


def test_a_registry_keeps_every_field(tmp_path: Path) -> None:
    row = {
        "id": "sessions", "title": "Sessions", "collector": "internet_archive", "location": "https://archive.org/",
        "search_terms": ["old bailey", "sessions paper"], "time_period": [1674, 1834], "languages": ["en"],
        "formats": ["tei", "text"], "priority": "high", "licence": "CC BY-NC 4.0", "rights_url": "https://example.org/rights",
        "allowed_use": "research", "tier": "historical", "profile": "old_bailey", "ocr": True, "enabled": True,
        "disabled_reason": "", "max_items": 7, "max_share": 0.25, "delay_seconds": 2, "checksum": "md5:" + "0" * 32,
        "status": "verified", "notes": "n", "role": "train", "include": ["*.xml"], "exclude": ["*/index.xml"],
        "text_field": "text", "selector": "article", "consenting_authors": ["U1"],
    }  # fmt: skip
    path = write(tmp_path / "sources.json", {"sources": [row]})
    (entry,) = Registry.load(path).entries
    for name, value in row.items():
        assert getattr(entry, name) == (tuple(value) if isinstance(value, list) else value), name
    assert entry.formulaic  # follows from the profile
    assert entry.is_search
    assert entry.is_remote
    assert entry.wants("a.xml")
    assert not entry.wants("a.txt")


def test_local_sources_start_at_the_registry(tmp_path: Path) -> None:
    path = write(tmp_path / "sources.json", {"sources": [GOOD]})
    (entry,) = Registry.load(path).entries
    assert entry.path == tmp_path / "stow"
    assert not entry.is_remote
    assert (entry.allowed_use, entry.collector, entry.formulaic) == ("any", "folder", False)


def test_missing_source_and_broken_registry_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_sources("nowhere", tmp_path)
    (tmp_path / "sources.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        load_sources("sources.json", tmp_path)
    (tmp_path / "sources.json").write_text('{"texts": []}')
    with pytest.raises(UserError, match="no list of sources"):
        load_sources("sources.json", tmp_path)


def test_disabled_and_unwanted_sources_stay_out(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "id": "asleep", "enabled": False}, {**GOOD, "id": "other"}]
    path = write(tmp_path / "sources.json", rows)
    assert [entry.id for entry in load_sources(str(path), tmp_path)] == ["other", "stow-survey"]
    assert [entry.id for entry in load_sources(str(path), tmp_path, only=["sto*"])] == ["stow-survey"]
    with pytest.raises(UserError, match="no enabled source"):
        load_sources(str(path), tmp_path, only=["nothing"])


def test_globs_switch_on_what_is_shipped_disabled(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "id": "old-bailey-1", "enabled": False}, {**GOOD, "id": "asleep", "enabled": False}]
    path = write(tmp_path / "sources.json", rows)
    entries = load_sources(str(path), tmp_path, enable=["old-bailey-*"])
    assert [entry.id for entry in entries] == ["old-bailey-1", "stow-survey"]
    with pytest.raises(UserError, match=r"no source has an id like 'old-baily-1'\n.*\n.*did you mean 'old-bailey-1'"):
        load_sources(str(path), tmp_path, enable=["old-baily-1"])


@pytest.mark.parametrize("more", [{"allowed_use": "none"}, {"licence": "various"}])
def test_what_may_not_be_used_cannot_be_switched_on(tmp_path: Path, more: dict[str, str]) -> None:
    path = write(tmp_path / "sources.json", [GOOD, {**GOOD, "id": "barred", "enabled": False, **more}])
    with pytest.raises(UserError, match="cannot be enabled: 'barred'"):
        load_sources(str(path), tmp_path, enable=["*"])


def test_a_licence_that_does_not_tell_switches_a_source_off(tmp_path: Path) -> None:
    path = write(tmp_path / "sources.json", [GOOD, {**GOOD, "id": "mixture", "location": "m", "licence": "various"}])
    registry = Registry.load(path)
    mixture = registry.entries[1]
    assert not mixture.enabled
    assert "various" in mixture.disabled_reason
    assert [(finding.severity, finding.field) for finding in registry.warnings] == [("warning", "licence")]
    assert [entry.id for entry in load_sources(str(path), tmp_path)] == ["stow-survey"]


def test_commercial_use_marks_whole_sources_and_loses_none(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "id": "bailey", "location": "b", "licence": "CC BY-NC 4.0"}]
    path = write(tmp_path / "sources.json", rows)
    assert [entry.denied for entry in load_sources(str(path), tmp_path)] == ["", ""]
    bailey, stow = load_sources(str(path), tmp_path, commercial_use=True)
    assert (stow.denied, stow.denial("any file")) == ("", "")
    assert bailey.denied == bailey.denial("any file")
    assert "allows non-commercial use only" in bailey.denied


def test_a_source_outside_the_recipes_period_is_a_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "sources.json", [{**GOOD, "time_period": [1860, 1900]}])
    assert len(load_sources(str(path), tmp_path)) == 1
    with pytest.raises(UserError, match="1860-1900 lies outside the recipe's period 1500-1850"):
        load_sources(str(path), tmp_path, period=(1500, 1850))


def test_two_sources_with_one_id_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "texts").mkdir(parents=True)
    with pytest.raises(UserError, match="two sources have the id 'texts'"):
        load_sources(["a/texts", "b/texts"], tmp_path)


def test_the_word_for_the_shipped_registry_leads_to_it(tmp_path: Path) -> None:
    entries = load_sources(LONDON, tmp_path)
    assert {entry.base for entry in entries} == {tmp_path}  # relative paths start where the recipe runs
    path = registry_path(LONDON, tmp_path)
    assert path is not None
    assert [entry.id for entry in load_sources(str(path), tmp_path)] == [entry.id for entry in entries]


# --- inventories -------------------------------------------------------------------------------------------------------

FILES = [
    {"archive": "oldbailey.tar.bz2", "path": "ob/1.xml", "title": "Session", "year": 1740, "lang": "eng",
     "licence": "CC BY-NC 4.0", "role": "train", "work": "w1"},
    {"archive": "oldbailey.tar.bz2", "path": "ob/2.xml", "role": "duplicate", "licence": "CC0"},
    {"archive": "books.tar.bz2", "path": "books/a.txt", "format": "OCR plain text (archive.org djvu)", "licence": "CC0 1.0"},
    {"archive": "books.tar.bz2", "path": "books/b.txt", "licence": "all rights reserved"},
    {"archive": "books.tar.bz2", "path": "books/c.txt", "licence": "CC BY-NC 3.0"},
    {"archive": None, "path": "bad/x.txt", "role": "negative", "expected": "reject", "licence": "MIT"},
]  # fmt: skip


@pytest.fixture
def inventory(tmp_path: Path) -> str:
    write(tmp_path / "sources.json", {"note": "", "files": FILES})
    return str(tmp_path)


def test_an_inventory_gives_an_entry_per_archive_with_facts(inventory: str) -> None:
    books, bailey = load_sources(inventory, Path("/"))
    assert (bailey.id, bailey.tier, bailey.time_period, bailey.licence, bailey.allowed_use, bailey.formulaic) == (
        "oldbailey", "general", (1740, 1740), "CC BY-NC 4.0", "non_commercial", True,
    )  # fmt: skip
    assert dict(bailey.facts["ob/1.xml"]) == {
        "role": "train", "title": "Session", "licence": "CC BY-NC 4.0", "year": 1740, "group": "w1", "languages": ("en",),
        "tier": "general", "profile": "old_bailey", "allowed_use": "non_commercial",
    }  # fmt: skip
    assert (books.profile, books.formulaic, books.facts["books/a.txt"]["ocr"]) == ("", False, True)
    both = load_sources(inventory, Path("/"), roles=("negative", "duplicate"))
    assert [e.location for e in both] == ["bad", "oldbailey.tar.bz2"]
    assert list(both[1].facts) == ["ob/2.xml"]


def test_the_longest_glob_that_fits_gives_a_file_its_tier(inventory: str) -> None:
    tier_of = {"books*/b.txt": "web", "books*": "gutenberg", "*": "historical"}
    books, bailey = load_sources(inventory, Path("/"), tier_of=tier_of)
    in_another_order = dict(sorted(tier_of.items()))  # as a manifest keeps it
    assert load_sources(inventory, Path("/"), tier_of=in_another_order) == (books, bailey)
    assert [fact["tier"] for fact in books.facts.values()] == ["gutenberg", "web", "gutenberg"]
    assert (books.tier, bailey.tier) == ("gutenberg", "historical")


def test_a_tier_that_does_not_exist_is_a_mistake(inventory: str) -> None:
    with pytest.raises(UserError, match="did you mean 'historical'"):
        load_sources(inventory, Path("/"), tier_of={"*": "historic"})
    (entry, _) = load_sources(inventory, Path("/"), tier_of={"*": "own"}, tiers=("own",))
    assert entry.tier == "own"


def test_denied_files_stay_listed_with_their_reason(inventory: str) -> None:
    books, bailey = load_sources(inventory, Path("/"))
    assert [books.denial(path) for path in books.facts] == ["", "the licence 'all rights reserved' allows no use", ""]
    assert (books.denied, bailey.denied) == ("", "")
    books, bailey = load_sources(inventory, Path("/"), commercial_use=True)
    assert [bool(books.denial(path)) for path in books.facts] == [False, True, True]
    assert books.allowed_use == "any"  # of what is left in
    assert "non-commercial" in bailey.denied


def test_an_inventory_row_without_a_path_is_a_mistake(tmp_path: Path) -> None:
    write(tmp_path / "sources.json", {"files": [{"archive": "a.tar"}]})
    with pytest.raises(UserError, match=r"files\[0\]"):
        load_sources(str(tmp_path), Path("/"))


@pytest.mark.parametrize("recipe", ["london", "london-small"])
def test_the_london_recipes_give_the_real_inventory_its_tiers(real_data: Path, recipe: str) -> None:
    settings = load_recipe(Path(__file__).parents[2] / "recipes" / f"{recipe}.toml").stage("corpus").settings
    entries = load_sources(
        str(real_data / "london"),
        Path("/"),
        roles=("train", "sample"),
        tier_of=settings.tier_of,
        tiers=settings.all_tiers,
    )
    assert sum(len(entry.facts) for entry in entries) == 11_910 + 25
    tiers = {entry.id: entry.tier for entry in entries}
    assert tiers == {
        "books": "gutenberg", "ecco-tcp-txt": "historical", "ecco-tcp-xml-1": "historical", "ecco-tcp-xml-2": "historical",
        "ecco-tcp-xml-3": "historical", "eebo-tcp": "historical", "londonlives-petitions": "general",
        "oldbailey-ordinary": "general", "oldbailey-sessions-1": "general", "oldbailey-sessions-2": "general",
        "oldbailey-sessions-3": "general", "perseus": "historical", "plays": "historical", "sample": "historical",
    }  # fmt: skip
    sample = next(entry for entry in entries if entry.id == "sample")
    assert sample.facts["sample/oldbailey-sessions__16770711A.xml"]["tier"] == "general"
    assert sample.facts["sample/clic__ChiLit-fiord.txt"]["tier"] == "gutenberg"
    assert {entry.id for entry in entries if entry.formulaic} == {
        "londonlives-petitions", "oldbailey-ordinary", "oldbailey-sessions-1", "oldbailey-sessions-2", "oldbailey-sessions-3",
    }  # fmt: skip


def test_commercial_use_leaves_out_what_the_data_notes_say(real_data: Path) -> None:
    entries = load_sources(str(real_data / "london"), Path("/"), commercial_use=True)
    denied = {entry.id: sum(1 for path in entry.facts if entry.denial(path)) for entry in entries}
    assert {name: count for name, count in denied.items() if count} == {
        "oldbailey-ordinary": 459, "oldbailey-sessions-1": 257, "oldbailey-sessions-2": 80, "oldbailey-sessions-3": 35,
        "plays": 298,
    }  # fmt: skip
