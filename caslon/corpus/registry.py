"""Where texts come from: turns the `sources` of a recipe into source entries.

A source is the word `python` (the standard library of the running interpreter), a folder or file, or a registry: a JSON
list of entries. A second form of registry is read too, an inventory `{"files": [{"archive", "path", "title", ...}]}` that
describes every member of the archives beside it; its facts are joined to the members. All mistakes of a registry are
reported at once with file, line, entry and field.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from caslon.corpus.registry_entry import ALLOWED_USES, FORMATS, PRIORITIES, PYTHON, ROLES, TIERS, SourceEntry
from caslon.errors import UserError
from caslon.settings import nearest

REGISTRY_NAME = "sources.json"
__all__ = ["PYTHON", "REGISTRY_NAME", "Registry", "SourceEntry", "base_of", "load_sources", "python_entry"]
ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{2,63}")

# Inventories name the kind of a file in words; the tier of a file follows from its archive, then from those words.
# Trials and petitions are whole documents of a few hundred characters, so the historical minimum of 1,000 would drop them.
INVENTORY_TIERS = (
    ("oldbailey*", "general"), ("*petitions*", "general"), ("books*", "gutenberg"), ("sample/gitenberg*", "gutenberg"),
    ("sample/clic*", "gutenberg"), ("sample/standardebooks*", "gutenberg"), ("sample/eltec*", "gutenberg"),
    ("sample/oldbailey*", "general"), ("bad/*", "general"), ("*", "historical"),
)  # fmt: skip


@dataclass(frozen=True)
class Registry:
    """The entries of one registry file."""

    path: Path
    entries: tuple[SourceEntry, ...]

    @staticmethod
    def load(path: Path, roles: Sequence[str] = ("train",)) -> "Registry":
        """Return the registry in `path`, of an inventory only the files with one of `roles`."""
        text = _text_of(path)
        try:
            value = json.loads(text)
        except ValueError as error:
            raise UserError(f"the registry is not JSON: {error}", where=str(path)) from error
        if isinstance(value, dict) and isinstance(value.get("files"), list):
            return Registry(path, _inventory_entries(path, value["files"], roles))
        rows = value.get("sources") if isinstance(value, dict) else value
        if not isinstance(rows, list):
            raise UserError(
                "the registry holds no list of sources", where=str(path), fix='write {"sources": [{"id": ...}, ...]}'
            )
        return Registry(path, _checked_entries(path, text, rows))


def load_sources(
    sources: str | Sequence[str],
    base: Path,
    *,
    roles: Sequence[str] = ("train",),
    only: Sequence[str] = (),
    max_items: int | None = None,
) -> tuple[SourceEntry, ...]:
    """Return the entries that a recipe's `sources` mean, sorted by id; relative paths start at `base`.

    `roles` picks files of an inventory, `only` keeps sources whose id matches one of its globs, `max_items` bounds the
    files read from each source that sets no bound of its own.
    """
    names = [sources] if isinstance(sources, str) else list(sources)
    if not names:
        raise UserError("the corpus names no source", where="corpus.sources", fix='use sources = "python" or a folder')
    found = [entry for name in names for entry in _entries_of(name, base, roles)]
    found = [entry for entry in found if entry.enabled and (not only or _matches_any(entry.id, only))]
    if not found:
        wanted = f" with an id like {', '.join(only)}" if only else ""
        raise UserError(f"no enabled source{wanted} in {', '.join(names)}", where="corpus.sources")
    entries = [replace(entry, max_items=entry.max_items or max_items or None) for entry in found]
    return tuple(sorted(_with_unique_ids(entries), key=lambda entry: entry.id))


def base_of(entries: Iterable[SourceEntry], source: str) -> Path:
    """Return the folder at which the paths in the origins of one source start."""
    for entry in entries:
        if entry.id == source:
            return entry.base
    raise UserError(f"no source has the id '{source}'", where="corpus.sources")


def _matches_any(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _entries_of(name: str, base: Path, roles: Sequence[str]) -> tuple[SourceEntry, ...]:
    if name == PYTHON:
        return (python_entry(),)
    path = base / Path(name).expanduser()
    if not path.exists():
        raise UserError(f"the source '{name}' does not exist", where=str(path), fix="check corpus.sources")
    path = path.resolve()
    if path.is_dir() and (path / REGISTRY_NAME).is_file():
        return Registry.load(path / REGISTRY_NAME, roles).entries
    if path.is_file() and path.suffix == ".json":
        return Registry.load(path, roles).entries
    return (_plain_entry(path),)


def python_entry() -> SourceEntry:
    """Return the entry of the running interpreter's standard library."""
    return SourceEntry(
        id=PYTHON, location=PYTHON, title="Python standard library", languages=("en",), licence="PSF-2.0", tier="code"
    )


def _plain_entry(path: Path) -> SourceEntry:
    if path.is_dir():
        return SourceEntry(id=_id_from(path.name), location=".", base=path, title=path.name)
    return SourceEntry(id=_id_from(path.name), location=path.name, base=path.parent, title=path.name)


def _id_from(name: str) -> str:
    stem = re.sub(r"\.(tar|txt|html?|xml|zip|gz|bz2|xz|tgz|py|md)\b", "", name.lower())
    spelled = re.sub(r"[^a-z0-9_-]+", "-", stem).strip("-_")[:60]
    return spelled if len(spelled) > 2 else f"source-{spelled}".rstrip("-")


def _with_unique_ids(entries: Sequence[SourceEntry]) -> list[SourceEntry]:
    seen: dict[str, SourceEntry] = {}
    for entry in entries:
        twin = seen.setdefault(entry.id, entry)
        if twin is not entry:
            places = f"{twin.path} and {entry.path}"
            raise UserError(
                f"two sources have the id '{entry.id}': {places}",
                where="corpus.sources",
                fix="give them ids of their own in a registry file",
            )
    return list(entries)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the registry cannot be read: {error}", where=str(path)) from error


# --- inventories -------------------------------------------------------------------------------------------------------


def _inventory_entries(path: Path, rows: Sequence[Mapping[str, Any]], roles: Sequence[str]) -> tuple[SourceEntry, ...]:
    """One entry per archive, and per top folder of plain files, that holds a file with a wanted role."""
    members: dict[str, dict[str, Mapping[str, Any]]] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("path"), str):
            raise UserError("an inventory row needs a path", where=f"{path}, files[{number}]")
        if row.get("role", "train") in roles:
            location = row.get("archive") or row["path"].split("/", 1)[0]
            members.setdefault(location, {})[row["path"]] = _facts(row)
    return tuple(_inventory_entry(path, location, facts) for location, facts in sorted(members.items()))


def _inventory_entry(path: Path, location: str, facts: Mapping[str, Mapping[str, Any]]) -> SourceEntry:
    years = [fact["year"] for fact in facts.values() if fact.get("year") is not None]
    licences = sorted({str(fact["licence"]) for fact in facts.values() if fact.get("licence")})
    return SourceEntry(
        id=_id_from(location),
        location=location,
        base=path.parent.resolve(),
        title=location,
        time_period=(min(years), max(years)) if years else None,
        languages=tuple(sorted({fact["languages"][0] for fact in facts.values() if fact.get("languages")})),
        licence="; ".join(licences),
        tier=_inventory_tier(location, ""),
        facts=facts,
    )


def _inventory_tier(location: str, path: str) -> str:
    return next(tier for glob, tier in INVENTORY_TIERS if fnmatchcase(location, glob) or fnmatchcase(path, glob))


def _facts(row: Mapping[str, Any]) -> Mapping[str, Any]:
    facts: dict[str, Any] = {"role": row.get("role", "train")}
    for key in ("title", "author", "licence", "reason", "expected", "duplicate_of"):
        if row.get(key):
            facts[key] = row[key]
    if isinstance(row.get("year"), int):
        facts["year"] = row["year"]
    if row.get("work"):
        facts["group"] = row["work"]
    if row.get("lang"):
        facts["languages"] = (_two_letters(row["lang"]),)
    if row.get("format"):
        facts["kind"] = row["format"]
    facts["tier"] = _inventory_tier(row.get("archive") or "", row["path"])
    return facts


def _two_letters(language: str) -> str:
    known = {"eng": "en", "fre": "fr", "fra": "fr", "ger": "de", "deu": "de", "dut": "nl", "nld": "nl", "wel": "cy",
             "cym": "cy", "fin": "fi", "swe": "sv", "por": "pt", "lat": "la"}  # fmt: skip
    return known.get(language, language)


# --- registries --------------------------------------------------------------------------------------------------------


def _checked_entries(path: Path, text: str, rows: Sequence[Any]) -> tuple[SourceEntry, ...]:
    lines = _entry_lines(text, len(rows))
    problems: list[str] = []
    entries: list[SourceEntry] = []
    first: dict[str, int] = {}
    for number, row in enumerate(rows):
        found = [f"{path}:{lines[number]}: entry {_label(row, number)}: {problem}" for problem in _problems(row)]
        if not found:
            entry = _entry(path, row)
            if entry.id in first:
                found = [f"{path}:{lines[number]}: entry '{entry.id}': field id: repeats line {first[entry.id]}"]
            first.setdefault(entry.id, lines[number])
            entries.append(entry)
        problems += found
    if problems:
        raise UserError("the registry has mistakes:\n" + "\n".join(problems), where=str(path))
    return tuple(entries)


def _label(row: Any, number: int) -> str:
    return f"'{row['id']}'" if isinstance(row, dict) and isinstance(row.get("id"), str) else f"number {number + 1}"


def _entry_lines(text: str, count: int) -> list[int]:
    """Return the line on which each entry of the outermost list starts (JSON keeps no places, so it is scanned again)."""
    decoder = json.JSONDecoder()
    key = re.search(r'"sources"\s*:\s*\[', text) if not text.lstrip("\ufeff \t\r\n").startswith("[") else None
    at = key.end() if key else text.index("[") + 1
    lines = []
    for _ in range(count):
        at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n,"))
        lines.append(text.count("\n", 0, at) + 1)
        at = decoder.raw_decode(text, at)[1]
    return lines


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _is_period(value: Any) -> bool:
    whole = isinstance(value, list) and len(value) == 2 and all(type(year) is int for year in value)
    return whole and value[0] <= value[1]


# field: (test, what is right)
FIELDS: dict[str, tuple[Any, str]] = {
    "id": (
        lambda v: isinstance(v, str) and ID_PATTERN.fullmatch(v),
        "3-64 of a-z, 0-9, _ and -, a letter or digit first",
    ),
    "location": (lambda v: isinstance(v, str) and v, "a path, relative to the registry, or 'python'"),
    "title": (lambda v: isinstance(v, str) and v, "a text"),
    "licence": (lambda v: isinstance(v, str) and v.strip(), "an SPDX id or a text that says what is allowed"),
    "time_period": (_is_period, "[first year, last year]"),
    "languages": (_is_strings, 'a list of language codes such as ["en"]'),
    "formats": (lambda v: _is_strings(v) and set(v) <= set(FORMATS), f"a list of {', '.join(FORMATS)}"),
    "role": (lambda v: v in ROLES, f"one of {', '.join(ROLES)}"),
    "tier": (lambda v: v in TIERS, f"one of {', '.join(TIERS)}"),
    "priority": (lambda v: v in PRIORITIES, f"one of {', '.join(PRIORITIES)}"),
    "allowed_use": (lambda v: v in ALLOWED_USES, f"one of {', '.join(ALLOWED_USES)}"),
    "enabled": (lambda v: isinstance(v, bool), "true or false"),
    "ocr": (lambda v: isinstance(v, bool), "true or false"),
    "include": (_is_strings, "a list of globs"),
    "exclude": (_is_strings, "a list of globs"),
    "max_items": (lambda v: type(v) is int and v > 0, "a number above 0"),
    "disabled_reason": (lambda v: isinstance(v, str), "a text"),
    "rights_url": (lambda v: isinstance(v, str), "a URL"),
    "notes": (lambda v: isinstance(v, str), "a text"),
}
NEEDED = ("id", "location", "title", "licence")
WITHOUT_EFFECT = ("disabled_reason", "rights_url", "notes")


def _problems(row: Any) -> list[str]:
    if not isinstance(row, dict):
        return ["is not an object"]
    found = [f"field {name}: is missing" for name in NEEDED if name not in row]
    for name, value in row.items():
        if name not in FIELDS:
            guess = nearest(name, FIELDS)
            hint = f"; did you mean '{guess}'?" if guess else f"; known fields: {', '.join(FIELDS)}"
            found.append(f"field {name}: is unknown{hint}")
        elif not FIELDS[name][0](value):
            found.append(f"field {name}: {json.dumps(value)} is not {FIELDS[name][1]}")
    if row.get("allowed_use") == "none" and row.get("enabled", True):
        found.append("field allowed_use: 'none' in an enabled source; set enabled to false")
    return found


def _entry(path: Path, row: Mapping[str, Any]) -> SourceEntry:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    for name in WITHOUT_EFFECT:
        values.pop(name, None)
    if values["location"] == PYTHON:
        values.setdefault("tier", "code")
    return SourceEntry(base=path.parent.resolve(), **values)
