"""Where texts come from: turns the `sources` of a recipe into source entries.

A source is the word `python` (the standard library of the running interpreter), the word `london-registry` (the sources on
historical London that come with caslon), a folder or file, or a registry: a JSON list of entries. A second form of registry
is an inventory of archives (inventory.py). All mistakes of a registry are reported at once (registry_check.py).
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from caslon.corpus.inventory import id_from, inventory_entries
from caslon.corpus.licences import denial, licence_of
from caslon.corpus.registry_check import Finding, Period, check, listing
from caslon.corpus.registry_entry import FORMULAIC_PROFILES, PYTHON, TIERS, SourceEntry
from caslon.errors import UserError
from caslon.settings import nearest

__all__ = [
    "LONDON",
    "LONDON_REGISTRY",
    "PYTHON",
    "REGISTRY_NAME",
    "Registry",
    "SourceEntry",
    "base_of",
    "load_sources",
    "python_entry",
]
REGISTRY_NAME = "sources.json"
LONDON = "london-registry"
LONDON_REGISTRY = Path(__file__).parent / "sources" / "london.json"


@dataclass(frozen=True)
class Registry:
    """The entries of one registry file, and what was noted about it without keeping it from use."""

    path: Path
    entries: tuple[SourceEntry, ...]
    warnings: tuple[Finding, ...] = ()

    @staticmethod
    def load(
        path: Path,
        roles: Sequence[str] = ("train",),
        *,
        base: Path | None = None,
        period: Period | None = None,
        tier_of: Mapping[str, str] | None = None,
        tiers: Collection[str] = TIERS,
        commercial_use: bool = False,
    ) -> "Registry":
        """Return the registry in `path`, of an inventory only the files with one of `roles`.

        `base` is where relative locations start, else the registry's folder. Raises `UserError` with every mistake.
        """
        text = _text_of(path)
        rows = inventory_rows(path, text)
        if rows is not None:
            entries = inventory_entries(
                path, rows, roles=roles, tier_of=tier_of, commercial_use=commercial_use, tiers=tiers
            )
            return Registry(path, entries)
        found = listing(path, text)
        findings = check(found, period=period, tiers=tiers)
        errors = [finding for finding in findings if finding.severity == "error"]
        if errors:
            raise UserError("the registry has mistakes:\n" + "\n".join(map(str, errors)), where=str(path))
        start = base or path.parent.resolve()
        entries = tuple(_entry(start, row.value, commercial_use) for row in found.rows)
        return Registry(path, entries, tuple(findings))


def load_sources(
    sources: str | Sequence[str],
    base: Path,
    *,
    roles: Sequence[str] = ("train",),
    only: Sequence[str] = (),
    max_items: int | None = None,
    enable: Sequence[str] = (),
    tier_of: Mapping[str, str] | None = None,
    tiers: Collection[str] = TIERS,
    commercial_use: bool = False,
    period: Period | None = None,
) -> tuple[SourceEntry, ...]:
    """Return the enabled entries that a recipe's `sources` mean, sorted by id; relative paths start at `base`.

    `roles` picks files of an inventory and `tier_of` gives them tiers (glob -> one of `tiers`), `only` keeps sources whose
    id matches one of its globs, `enable` switches on sources that a registry ships disabled, `max_items` bounds the files
    read from each source that sets no bound of its own. With `commercial_use` what its licence keeps from it is marked:
    `SourceEntry.denial` says why. `period` makes a source that lies wholly outside it a mistake.
    """
    names = [sources] if isinstance(sources, str) else list(sources)
    if not names:
        raise UserError("the corpus names no source", where="corpus.sources", fix='use sources = "python" or a folder')

    def load(path: Path, start: Path | None = None) -> tuple[SourceEntry, ...]:
        return Registry.load(
            path, roles, base=start, period=period, tier_of=tier_of, tiers=tiers, commercial_use=commercial_use
        ).entries

    found: list[SourceEntry] = []
    for name in names:
        registry = registry_path(name, base)
        if name == PYTHON:
            found.append(python_entry())
        elif registry is not None:
            found += load(registry, base.resolve() if name == LONDON else None)
        else:
            found.append(_plain_entry((base / Path(name).expanduser()).resolve()))
    found = [entry for entry in switched_on(found, enable) if entry.enabled and (not only or _matches(entry.id, only))]
    if not found:
        wanted = f" with an id like {', '.join(only)}" if only else ""
        raise UserError(f"no enabled source{wanted} in {', '.join(names)}", where="corpus.sources")
    entries = [replace(entry, max_items=entry.max_items or max_items or None) for entry in found]
    return tuple(sorted(_with_unique_ids(entries), key=lambda entry: entry.id))


def registry_path(name: str, base: Path) -> Path | None:
    """Return the registry file that a source name means; None when it means `python`, a folder or another file."""
    if name == PYTHON:
        return None
    if name == LONDON:
        return LONDON_REGISTRY
    path = base / Path(name).expanduser()
    if not path.exists():
        raise UserError(f"the source '{name}' does not exist", where=str(path), fix="check corpus.sources")
    path = path.resolve()
    if path.is_dir():
        return path / REGISTRY_NAME if (path / REGISTRY_NAME).is_file() else None
    return path if path.suffix == ".json" else None


def switched_on(entries: Sequence[SourceEntry], globs: Sequence[str]) -> list[SourceEntry]:
    """Return the entries with those enabled whose id matches a glob; `UserError` when it fits none, or one may not be used."""
    for glob in globs:
        if not any(fnmatchcase(entry.id, glob) for entry in entries):
            guess = nearest(glob, [entry.id for entry in entries])
            raise UserError(
                f"no source has an id like '{glob}'",
                where="corpus.enable",
                fix=f"did you mean '{guess}'?" if guess else None,
            )
    chosen = [entry for entry in entries if not entry.enabled and _matches(entry.id, globs)]
    barred = [entry for entry in chosen if entry.allowed_use == "none" or licence_of(entry.licence).vague]
    if barred:
        raise UserError(
            "these sources cannot be enabled: "
            + "; ".join(f"'{entry.id}' has the licence '{entry.licence}'" for entry in barred),
            where="corpus.enable",
            fix="write into the registry what their licence really allows",
        )
    return [replace(entry, enabled=True) if entry in chosen else entry for entry in entries]


def base_of(entries: Iterable[SourceEntry], source: str) -> Path:
    """Return the folder at which the paths in the origins of one source start."""
    for entry in entries:
        if entry.id == source:
            return entry.base
    raise UserError(f"no source has the id '{source}'", where="corpus.sources")


def python_entry() -> SourceEntry:
    """Return the entry of the running interpreter's standard library."""
    return SourceEntry(
        id=PYTHON,
        location=PYTHON,
        title="Python standard library",
        languages=("en",),
        licence="PSF-2.0",
        tier="code",
        status="verified",
    )


def inventory_rows(path: Path, text: str) -> list[Any] | None:
    """Return the rows of an inventory; None when the text is a registry of the other form. `UserError` when it is no JSON."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"the registry is not JSON: {error}", where=str(path)) from error
    if isinstance(value, dict) and isinstance(value.get("files"), list):
        rows: list[Any] = value["files"]
        return rows
    return None


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _plain_entry(path: Path) -> SourceEntry:
    if path.is_dir():
        return SourceEntry(id=id_from(path.name), location=".", base=path, title=path.name)
    return SourceEntry(id=id_from(path.name), location=path.name, base=path.parent, title=path.name)


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
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the registry cannot be read: {error}", where=str(path)) from error


def _entry(base: Path, row: Mapping[str, Any], commercial_use: bool) -> SourceEntry:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    if values["location"] == PYTHON:
        values.setdefault("tier", "code")
    licence = licence_of(values["licence"])
    values.setdefault("allowed_use", licence.allowed_use)
    values.setdefault("formulaic", values.get("profile") in FORMULAIC_PROFILES)
    if licence.vague and values.get("enabled", True):
        values |= {"enabled": False, "disabled_reason": f"the licence '{licence.text}' does not tell what is allowed"}
    reason = denial(values["allowed_use"], licence.text, commercial_use=commercial_use)
    return SourceEntry(base=base, denied=reason, **values)
