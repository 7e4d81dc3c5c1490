"""Source entries turned into raw files, one after another, in an order that depends on names only."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from caslon.corpus.collect.archives import read_path
from caslon.corpus.collect.library import library_files, library_folder
from caslon.corpus.collect.raw_file import RawFile
from caslon.corpus.document import Origin
from caslon.corpus.registry import PYTHON, REGISTRY_NAME, SourceEntry
from caslon.errors import UserError


def raw_files(entries: Iterable[SourceEntry]) -> Iterator[RawFile]:
    """Yield the raw files of all entries, entry by entry, sorted by path inside an entry; one is in memory at a time."""
    for entry in entries:
        yield from _files_of(entry)


def source_paths(entries: Iterable[SourceEntry]) -> list[Path]:
    """Return every outside file that the entries read, sorted: what a cache key has to hash."""
    paths: set[Path] = set()
    for entry in entries:
        paths.update(path for path, _ in _paths_of(entry))
        registry = entry.base / REGISTRY_NAME
        if entry.facts and registry.is_file():
            paths.add(registry)
    return sorted(paths)


def load_raw(origin: Origin, base: Path) -> RawFile:
    """Return the raw file a document came from; `base` is the `base` of its source entry (any path for `python`)."""
    root = library_folder() if origin.source == PYTHON else base
    path = root / origin.path
    if not path.is_file():
        raise UserError("the raw file is not there any more", where=str(path))
    for raw in read_path(origin.source, path, origin.path, origin.member or None):
        if raw.member == origin.member:
            return raw
    raise UserError(f"the archive has no member '{origin.member}' any more", where=str(path))


def _files_of(entry: SourceEntry) -> Iterator[RawFile]:
    count = 0
    for path, name in _paths_of(entry):
        for raw in read_path(entry.id, path, name, None):
            address = f"{raw.path}!{raw.member}" if raw.member else raw.path
            facts = _facts_of(entry, raw)
            if facts is None and raw.problems and not raw.member:
                facts = {}  # the archive itself is damaged: that must not go unseen
            if facts is None or not entry.wants(address):
                continue
            yield replace(raw, metadata=_metadata(entry, facts))
            count += 1
            if count == entry.max_items:
                return


def _facts_of(entry: SourceEntry, raw: RawFile) -> Mapping[str, Any] | None:
    """What an inventory says about the file; None when there is one and it does not list the file."""
    if not entry.facts:
        return {}
    return entry.facts.get(raw.member or raw.path)


def _metadata(entry: SourceEntry, facts: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {"tier": entry.tier, "licence": entry.licence, "role": entry.role, "formats": entry.formats}
    if entry.languages:
        known["languages"] = entry.languages
    if entry.time_period:
        known["time_period"] = entry.time_period
    if entry.ocr:
        known["ocr"] = True
    return {**known, **facts}


def _paths_of(entry: SourceEntry) -> list[tuple[Path, str]]:
    """Return `(path, path relative to the base)` of every file of an entry, sorted by the latter."""
    if entry.location == PYTHON:
        return library_files()
    path = entry.path
    if path.is_file():
        return [(path, entry.location)]
    if not path.is_dir():
        raise UserError(f"the source '{entry.id}' does not exist", where=str(path), fix="check its location")
    names = [
        file.relative_to(entry.base).as_posix()
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    return [(entry.base / name, name) for name in sorted(names)]
