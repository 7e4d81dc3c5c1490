"""The registry of historical London that ships with caslon."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from caslon.corpus.licences import licence_of
from caslon.corpus.registry import LONDON, LONDON_REGISTRY, Registry, SourceEntry, load_sources
from caslon.corpus.registry_check import canonical_address, check, listing
from caslon.corpus.registry_entry import COLLECTORS, FORMULAIC_PROFILES
from caslon.recipe import load_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "london.toml"


@pytest.fixture(scope="module")
def entries() -> tuple[SourceEntry, ...]:
    return Registry.load(LONDON_REGISTRY).entries


def test_it_has_no_errors_and_no_warnings_under_the_london_recipe() -> None:
    found = listing(LONDON_REGISTRY, LONDON_REGISTRY.read_text(encoding="utf-8"))
    assert [str(finding) for finding in check(found, period=(1500, 1850))] == []
    addresses = Counter(canonical_address(row.value) for row in found.rows)
    assert addresses.most_common(1)[0][1] == 1


def test_it_holds_at_least_218_sources_over_all_collectors(entries: tuple[SourceEntry, ...]) -> None:
    assert len(entries) >= 218
    assert len({entry.id for entry in entries}) == len(entries)
    assert {entry.collector for entry in entries} == set(COLLECTORS)
    assert sum(entry.enabled for entry in entries) >= 218


def test_all_years_lie_in_the_period(entries: tuple[SourceEntry, ...]) -> None:
    for entry in entries:
        if entry.collector != "slack":  # a form to fill in
            assert entry.time_period, entry.id
            assert 1500 <= entry.time_period[0] <= entry.time_period[1] <= 1850, entry.id


def test_what_is_enabled_is_allowed_and_what_is_not_says_why(entries: tuple[SourceEntry, ...]) -> None:
    for entry in entries:
        if entry.enabled:
            licence = licence_of(entry.licence)
            assert licence.recognised, entry.id
            assert not licence.vague, entry.id
            assert entry.allowed_use == licence.allowed_use, entry.id
            assert entry.allowed_use in ("any", "non_commercial"), entry.id
        else:
            assert entry.disabled_reason, entry.id


def test_old_bailey_and_london_lives_ship_disabled_and_are_switched_on_by_globs(
    entries: tuple[SourceEntry, ...], tmp_path: Path
) -> None:
    law = {entry.id for entry in entries if entry.profile in FORMULAIC_PROFILES}
    assert len(law) == 8
    assert all(entry.formulaic and not entry.enabled for entry in entries if entry.id in law)
    assert law == {entry.id for entry in entries if entry.id.startswith(("old-bailey-", "london-lives-"))}
    without = {entry.id for entry in load_sources(LONDON, tmp_path)}
    together = {entry.id for entry in load_sources(LONDON, tmp_path, enable=["old-bailey-*", "london-lives-*"])}
    assert together - without == law


def test_only_what_was_fetched_is_an_item_and_verified(entries: tuple[SourceEntry, ...]) -> None:
    verified = [entry for entry in entries if entry.status == "verified"]
    assert len(verified) >= 100
    for entry in verified:
        assert re.fullmatch(r"https://raw\.githubusercontent\.com/[\w.-]+/[\w.-]+/[0-9a-f]{40}/.+", entry.location), (
            entry.id
        )
        assert entry.checksum.startswith("sha256:"), entry.id
        assert entry.max_items == 1, entry.id
    for entry in entries:
        if entry.collector == "internet_archive":
            assert entry.is_search, entry.id
        if entry.collector == "gutenberg":
            assert entry.is_search or entry.location.isdigit(), entry.id


def test_commercial_use_leaves_out_what_may_not_be_sold(tmp_path: Path) -> None:
    found = load_sources(LONDON, tmp_path, commercial_use=True, enable=["old-bailey-*"])
    denied = {entry.id.split("-")[0] for entry in found if entry.denied}
    assert denied == {"dracor", "old"}


def test_the_london_recipe_uses_it(tmp_path: Path) -> None:
    settings = load_recipe(RECIPE).stage("corpus").settings
    assert (settings.sources, settings.period, settings.max_share) == (LONDON, (1500, 1850), 0.5)
    found = load_sources(settings.sources, tmp_path, period=settings.period, tiers=settings.all_tiers)
    assert len(found) >= 218


@pytest.mark.parametrize(
    ("source", "sample"),
    [
        ("eltec-the-inheritance-of-evil", "eltec__ENG18490_Skene.xml"),
        ("eebo-a08014", "eebo-tcp__A08014.xml"),
    ],
)
def test_checksums_are_those_of_the_real_texts(
    real_data: Path, entries: tuple[SourceEntry, ...], source: str, sample: str
) -> None:
    content = (real_data / "london" / "sample" / sample).read_bytes()
    entry = next(entry for entry in entries if entry.id == source)
    assert entry.checksum == "sha256:" + hashlib.sha256(content).hexdigest()
