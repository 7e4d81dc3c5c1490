"""Inventories: turns a list that describes every file of some archives into source entries with facts about single files.

The form is `{"files": [{"archive", "path", "title", "year", "format", "licence", "role", ...}]}`; `archive` is a file beside
the inventory, null for a plain file. One entry stands for an archive, or for the top folder of plain files.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from caslon.corpus.licences import denial, licence_of, strictest
from caslon.corpus.registry_entry import FORMULAIC_PROFILES, TIERS, SourceEntry
from caslon.errors import UserError
from caslon.settings import nearest

DEFAULT_TIER = "general"
KEPT_AS_THEY_ARE = ("title", "author", "licence", "reason", "expected", "duplicate_of")
# How a file is built shows in the words for its archive, place and format, where a row has no `profile` of its own.
PROFILE_WORDS = (("old_bailey", re.compile(r"old[\s_-]?bailey")), ("london_lives", re.compile(r"london[\s_-]?lives")))
TWO_LETTERS = {
    "eng": "en", "fre": "fr", "fra": "fr", "ger": "de", "deu": "de", "dut": "nl", "nld": "nl", "wel": "cy", "cym": "cy",
    "fin": "fi", "swe": "sv", "por": "pt", "lat": "la", "spa": "es", "ita": "it", "gle": "ga", "gla": "gd",
}  # fmt: skip


def inventory_entries(
    path: Path,
    rows: Sequence[Any],
    *,
    roles: Sequence[str] = ("train",),
    tier_of: Mapping[str, str] | None = None,
    commercial_use: bool = False,
    tiers: Collection[str] = TIERS,
) -> tuple[SourceEntry, ...]:
    """Return one entry per archive or top folder that holds a file with a wanted role, sorted by location.

    `tier_of` maps globs on `archive/path` to tiers; the longest that fits counts, `general` where none does. A file whose
    licence keeps it out carries the reason as the fact `denied`: it stays listed, so that the loss is counted.
    """
    wanted_tiers = dict(tier_of or {})
    _check_tiers(wanted_tiers, tiers)
    members: dict[str, dict[str, Mapping[str, Any]]] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            raise UserError("an inventory row needs a path", where=f"{path}, files[{number}]")
        if row.get("role", "train") in roles:
            location = row.get("archive") or row["path"].split("/", 1)[0]
            members.setdefault(location, {})[row["path"]] = _facts(row, wanted_tiers, commercial_use)
    return tuple(_entry(path, location, facts) for location, facts in sorted(members.items()))


def id_from(name: str) -> str:
    """Return the id that a file or folder name suggests, always a valid one."""
    stem = re.sub(r"\.(tar|txt|html?|xml|zip|gz|bz2|xz|tgz|py|md|pdf|epub|docx|csv|jsonl?|parquet)\b", "", name.lower())
    spelled = re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_")[:60]
    return spelled if len(spelled) > 2 else f"source-{spelled}".rstrip("-")


def _check_tiers(tier_of: Mapping[str, str], tiers: Collection[str]) -> None:
    for glob, tier in tier_of.items():
        if tier not in tiers:
            guess = nearest(tier, tiers)
            raise UserError(
                f"'{glob}' asks for the tier '{tier}', which does not exist",
                where="corpus.tier_of",
                fix=f"did you mean '{guess}'?" if guess else f"use one of {', '.join(tiers)}",
            )


def _entry(path: Path, location: str, facts: Mapping[str, Mapping[str, Any]]) -> SourceEntry:
    years = [fact["year"] for fact in facts.values() if "year" in fact]
    profiles = {fact.get("profile", "") for fact in facts.values()}
    profile = profiles.pop() if len(profiles) == 1 else ""
    denials = {fact.get("denied", "") for fact in facts.values()}
    return SourceEntry(
        id=id_from(location),
        location=location,
        base=path.parent.resolve(),
        title=location,
        time_period=(min(years), max(years)) if years else None,
        languages=tuple(sorted({fact["languages"][0] for fact in facts.values() if "languages" in fact})),
        licence="; ".join(sorted({str(fact["licence"]) for fact in facts.values() if "licence" in fact})),
        allowed_use=strictest(fact["allowed_use"] for fact in facts.values() if "denied" not in fact),
        tier=Counter(fact["tier"] for fact in facts.values()).most_common(1)[0][0],
        profile=profile,
        formulaic=profile in FORMULAIC_PROFILES,
        status="verified",
        denied=denials.pop() if len(denials) == 1 else "",
        facts=facts,
    )


def _facts(row: Mapping[str, Any], tier_of: Mapping[str, str], commercial_use: bool) -> Mapping[str, Any]:
    facts: dict[str, Any] = {"role": row.get("role", "train")}
    facts |= {key: row[key] for key in KEPT_AS_THEY_ARE if row.get(key)}
    if isinstance(row.get("year"), int):
        facts["year"] = row["year"]
    if isinstance(row.get("in_period"), bool):
        facts["in_period"] = row["in_period"]
    if row.get("work"):
        facts["group"] = row["work"]
    if row.get("lang"):
        facts["languages"] = (TWO_LETTERS.get(row["lang"], row["lang"]),)
    if row.get("format"):
        facts["kind"] = row["format"]
    if row.get("ocr") or "OCR" in str(row.get("format")).split():
        facts["ocr"] = True
    if profile := _profile(row):
        facts["profile"] = profile
    facts["tier"] = _tier(row, tier_of)
    licence = str(row.get("licence") or "")
    facts["allowed_use"] = row.get("allowed_use") or licence_of(licence).allowed_use
    if reason := denial(facts["allowed_use"], licence or "not stated", commercial_use=commercial_use):
        facts["denied"] = reason
    return facts


def _tier(row: Mapping[str, Any], tier_of: Mapping[str, str]) -> str:
    address = "/".join(part for part in (row.get("archive"), row["path"]) if part)
    fitting = [glob for glob in tier_of if fnmatchcase(address, glob)]
    return tier_of[max(fitting, key=lambda glob: (len(glob), glob))] if fitting else DEFAULT_TIER


def _profile(row: Mapping[str, Any]) -> str:
    if row.get("profile"):
        return str(row["profile"])
    words = " ".join(str(row.get(key) or "") for key in ("archive", "path", "format")).lower()
    return next((profile for profile, pattern in PROFILE_WORDS if pattern.search(words)), "")
