import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caslon.corpus.licences import denial, licence_of, strictest
from caslon.corpus.registry_entry import ALLOWED_USES

# Every licence text of the real inventory, with what it means.
REAL = {
    "CC BY 4.0 markup; public domain text": ("CC-BY-4.0 LicenseRef-public-domain", "any"),
    "CC BY-NC 3.0 (Folger)": ("CC-BY-NC-3.0", "non_commercial"),
    "CC BY-NC 4.0": ("CC-BY-NC-4.0", "non_commercial"),
    "CC BY-SA 4.0": ("CC-BY-SA-4.0", "any"),
    "CC0 1.0": ("CC0-1.0", "any"),
    "CC0 1.0 (ECCO-TCP release; older header text inside says otherwise)": ("CC0-1.0", "any"),
    "CC0 1.0 (EEBO-TCP Phase 1)": ("CC0-1.0", "any"),
    "CC0 1.0 (EEBO-TCP Phase 2)": ("CC0-1.0", "any"),
    "CC0 1.0 (Standard Ebooks); public domain text": ("CC0-1.0 LicenseRef-public-domain", "any"),
    "CC0 1.0 markup (DraCor); source EarlyPrint CC BY-NC 3.0; text public domain": (
        "CC-BY-NC-3.0 CC0-1.0 LicenseRef-public-domain",
        "non_commercial",
    ),
    "MIT": ("MIT", "any"),
    "MIT repository; text public domain": ("LicenseRef-public-domain MIT", "any"),
    "Project Gutenberg licence": ("LicenseRef-Project-Gutenberg", "any"),
    "folder named opensource/ in a repository with no licence file (Perseus states CC BY-SA 3.0 US on its site); "
    "text public domain": (
        "CC-BY-SA-3.0-US LicenseRef-public-domain",
        "any",
    ),
    "made here, CC0": ("CC0-1.0", "any"),
    "public domain (NLTK corpus readme)": ("LicenseRef-public-domain", "any"),
    "public domain (US government)": ("LicenseRef-public-domain", "any"),
    "public domain in the USA, Project Gutenberg licence text inside": (
        "LicenseRef-Project-Gutenberg LicenseRef-public-domain",
        "any",
    ),
    "public domain text (Project Gutenberg / ELTeC); repository states no licence file": (
        "LicenseRef-public-domain",
        "any",
    ),
    "public domain text; repository states no licence (published as a benchmark corpus)": (
        "LicenseRef-public-domain",
        "any",
    ),
}
OTHERS = {
    "CC-BY-NC-SA-4.0": ("CC-BY-NC-SA-4.0", "non_commercial"),
    "cc_by_sa_3.0": ("CC-BY-SA-3.0", "any"),
    "CC BY-NC": ("LicenseRef-CC-BY-NC", "non_commercial"),
    "CC BY-ND 4.0": ("CC-BY-ND-4.0", "research"),
    "CC BY-NC-ND 4.0": ("CC-BY-NC-ND-4.0", "research"),
    "Creative Commons Attribution-NonCommercial 4.0 International": ("CC-BY-NC-4.0", "non_commercial"),
    "https://creativecommons.org/licenses/by-nc/4.0/": ("CC-BY-NC-4.0", "non_commercial"),
    "https://creativecommons.org/publicdomain/zero/1.0/": ("CC0-1.0", "any"),
    "Attribution-NonCommercial": ("", "non_commercial"),
    "Open Government Licence v3.0": ("OGL-UK-3.0", "any"),
    "OGL-UK-2.0": ("OGL-UK-2.0", "any"),
    "Apache-2.0": ("Apache-2.0", "any"),
    "PSF-2.0": ("PSF-2.0", "any"),
    "ODC-By-1.0": ("ODC-By-1.0", "any"),
    "research only": ("", "research"),
    "private study": ("", "research"),
    "All rights reserved": ("", "none"),
    "MIT code, text all rights reserved": ("MIT", "none"),
}


@pytest.mark.parametrize(("text", "meant"), [*REAL.items(), *OTHERS.items()])
def test_a_licence_is_understood(text: str, meant: tuple[str, str]) -> None:
    licence = licence_of(text)
    assert (" ".join(licence.spdx), licence.allowed_use) == meant
    assert licence.recognised
    assert not licence.vague


def test_every_licence_text_of_the_real_inventory_stands_above(real_data: Path) -> None:
    files = json.loads((real_data / "london" / "sources.json").read_text())["files"]
    assert {row["licence"] for row in files} == set(REAL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "various",
        "Various, see each item",
        "mixed: CC BY and others",
        "not stated",
        "unknown",
        "not in the public domain",
    ],
)
def test_what_does_not_tell_is_vague_and_for_research(text: str) -> None:
    licence = licence_of(text)
    assert (licence.vague, licence.allowed_use) == (True, "research")


def test_what_no_rule_knows_is_for_research_and_says_so() -> None:
    licence = licence_of("The Lord Mayor's own terms")
    assert (licence.recognised, licence.vague, licence.spdx, licence.allowed_use) == (False, False, (), "research")


def test_the_strictest_use_counts() -> None:
    assert strictest([]) == "any"
    assert strictest(["any", "research", "non_commercial"]) == "research"


def test_denials_name_the_licence() -> None:
    assert denial("any", "MIT", commercial_use=True) == ""
    assert denial("research", "x", commercial_use=False) == ""
    assert "'x' allows research use only" in denial("research", "x", commercial_use=True)
    assert "allows no use" in denial("none", "x", commercial_use=False)


@given(st.text())
def test_any_text_has_a_use(text: str) -> None:
    assert licence_of(text).allowed_use in ALLOWED_USES
