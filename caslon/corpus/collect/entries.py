"""Source entries turned into raw files, one after another, in an order that depends on names only.

Files and archives on this machine are read where they lie; what has to be fetched is read from the raw store, where the
collectors put it. Nothing here makes a request.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from caslon.corpus.collect.archives import read_path
from caslon.corpus.collect.library import library_files, library_folder
from caslon.corpus.collect.parts import Limits
from caslon.corpus.collect.raw_file import RawFile
from caslon.corpus.collect.store import Store, StoredFile
from caslon.corpus.document import Origin
from caslon.corpus.registry import REGISTRY_NAME
from caslon.corpus.registry_entry import PYTHON, SourceEntry
from caslon.errors import UserError

IN_PLACE = ("folder", "rows", "mediawiki")  # collectors that read files of this machine as they are
COMPLETE = "complete"  # mark of a source that was collected to its end, or as far as was asked for


def raw_files(
    entries: Iterable[SourceEntry], store: Store | None = None, limits: Limits | None = None
) -> Iterator[RawFile]:
    """Yield the raw files of all entries, entry by entry, sorted by path inside an entry; one is in memory at a time.

    Raises UserError (exit 2) for a source that has to be fetched and is not in the store.
    """
    for entry in entries:
        yield from _files_of(entry, store, limits or Limits())


def source_paths(entries: Iterable[SourceEntry], store: Store | None = None) -> list[Path]:
    """Return every outside file that the entries read, sorted: what a cache key has to hash."""
    paths: set[Path] = set()
    for entry in entries:
        if is_local(entry):
            paths.update(path for path, _ in paths_of(entry))
        elif store is not None:
            paths.update(store.object_path(row.sha256) for row in _usable(store, entry) if row.sha256)
        registry = entry.base / REGISTRY_NAME
        if entry.facts and registry.is_file():
            paths.add(registry)
    return sorted(paths)


def load_raw(origin: Origin, base: Path, store: Store | None = None) -> RawFile:
    """Return the raw file, member or part a document came from, out of the store where it was fetched.

    `base` is the `base` of its source entry (any path for `python`). Raises UserError when it is not there any more.
    """
    stored = store.record(origin.source, origin.path) if store is not None and origin.source != PYTHON else None
    if stored is not None and stored.kind == "file" and store is not None:
        path = store.object_path(stored.sha256)
    else:
        path = (library_folder() if origin.source == PYTHON else base) / origin.path
    if not path.is_file():
        raise UserError("the raw file is not there any more", where=str(path))
    for raw in read_path(origin.source, path, origin.path, origin.member or None):
        if raw.member == origin.member:
            return raw
    raise UserError(f"the archive has no member '{origin.member}' any more", where=str(path))


def is_local(entry: SourceEntry) -> bool:
    """Return whether an entry's files are read where they lie; the others come from the store."""
    if entry.location == PYTHON:
        return True
    if entry.is_remote or entry.collector == "slack":
        return False
    return entry.collector in IN_PLACE or entry.path.exists()


def paths_of(entry: SourceEntry) -> list[tuple[Path, str]]:
    """Return `(path, path relative to the base)` of every file of a local entry, sorted by the latter."""
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


def _files_of(entry: SourceEntry, store: Store | None, limits: Limits) -> Iterator[RawFile]:
    found = _local_files(entry, limits) if is_local(entry) else _fetched_files(entry, store, limits)
    items: set[tuple[str, str]] = set()
    for raw, known in found:
        whole = raw.whole_member
        facts = _facts_of(entry, whole or raw.path)
        if facts is None and raw.problems and not raw.member:
            facts = {}  # the archive itself is damaged: that must not go unseen
        if facts is None or not entry.wants(f"{raw.path}!{whole}" if whole else raw.path):
            continue
        items.add((raw.path, whole))
        if entry.max_items and len(items) > entry.max_items:
            return
        yield _denied(entry, replace(raw, metadata={**_metadata(entry), **known, **facts, **raw.metadata}), whole)


def _denied(entry: SourceEntry, raw: RawFile, whole: str) -> RawFile:
    reason = entry.denial(whole or raw.path)
    return replace(raw, bytes=b"", problems=(("licence_denied", reason),)) if reason else raw


def _local_files(entry: SourceEntry, limits: Limits) -> Iterator[tuple[RawFile, Mapping[str, Any]]]:
    for path, name in paths_of(entry):
        for raw in read_path(entry.id, path, name, None, limits):
            yield raw, {}


def _fetched_files(
    entry: SourceEntry, store: Store | None, limits: Limits
) -> Iterator[tuple[RawFile, Mapping[str, Any]]]:
    if store is None or not store.marked(entry.id, COMPLETE):
        raise UserError(
            f"the source '{entry.id}' was not collected, or not to its end",
            where=entry.location,
            fix=f"run: caslon corpus collect ... --only {entry.id}",
        )
    for row in _usable(store, entry):
        known = {**row.metadata, "url": row.final_url or row.url, "licence": row.licence}
        if row.problem:
            yield RawFile(entry.id, row.path, "", b"", "", {}, ((row.problem, row.reason),)), known
            continue
        if not store.holds(row):
            raise UserError(
                f"not in the store any more: {entry.id}/{row.path}", where=row.url, fix="run: caslon corpus collect"
            )
        for raw in read_path(entry.id, store.object_path(row.sha256), row.path, None, limits):
            yield raw, known


def _usable(store: Store, entry: SourceEntry) -> Iterator[StoredFile]:
    """The rows of a source that are still offered and are meant to be read as text."""
    return (row for row in store.records(entry.id, "file") if not row.gone and not row.metadata.get("catalogue_only"))


def _facts_of(entry: SourceEntry, path: str) -> Mapping[str, Any] | None:
    """What an inventory says about the file; None when there is one and it does not list the file."""
    return entry.facts.get(path) if entry.facts else {}


def _metadata(entry: SourceEntry) -> dict[str, Any]:
    known: dict[str, Any] = {"tier": entry.tier, "licence": entry.licence, "role": entry.role, "formats": entry.formats}
    stated = {
        "languages": entry.languages,
        "time_period": entry.time_period,
        "profile": entry.profile,
        "text_field": entry.text_field,
        "consenting_authors": entry.consenting_authors,
        "formulaic": entry.formulaic,
        "ocr": entry.ocr,
        "allowed_use": entry.allowed_use if entry.allowed_use != "any" else "",
    }
    return known | {name: value for name, value in stated.items() if value}
