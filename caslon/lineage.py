"""Lineage across stages: from a model or any file of a run back to the raw files it was made from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caslon.errors import UserError
from caslon.folders import MANIFEST, StageFolder, sha256_of_file


@dataclass(frozen=True)
class Ancestor:
    """One stage on the way back; `depth` 0 is the stage that was asked about."""

    depth: int
    folder: StageFolder
    read_as: str  # what the stage above took from it: "model", "tokens", "text"


def stage_folder_of(path: Path) -> StageFolder:
    """Return the stage folder that holds a file or folder; `UserError` when it is in none."""
    resolved = path.resolve()
    for candidate in (resolved, *resolved.parents):
        if (candidate / MANIFEST).is_file() and _is_stage_manifest(candidate):
            return StageFolder.open(candidate)
    raise UserError(f"{path} is not part of a finished stage", fix="give a file or folder below runs/<name>/<stage>/")


def ancestors(path: Path) -> list[Ancestor]:
    """Return the stage that made `path` and all stages before it, nearest first.

    Raises `UserError` when an input folder was replaced since: its digest then differs from the recorded one.
    """
    found: list[Ancestor] = []
    _walk(stage_folder_of(path), 0, "", found)
    return found


def _walk(folder: StageFolder, depth: int, read_as: str, found: list[Ancestor]) -> None:
    found.append(Ancestor(depth, folder, read_as))
    for thing, recorded in folder.manifest.inputs.items():
        parent = _parent(folder, recorded)
        if all(ancestor.folder.path != parent.path for ancestor in found):
            _walk(parent, depth + 1, thing, found)


def _parent(folder: StageFolder, recorded: dict[str, str]) -> StageFolder:
    run_folder = folder.path.parent if folder.path.parent.name != "superseded" else folder.path.parent.parent
    name = Path(recorded["folder"]).name
    candidates = [run_folder / name, *sorted((run_folder / "superseded").glob(f"{name}-*"))]
    for candidate in candidates:
        if (candidate / MANIFEST).is_file():
            opened = StageFolder.open(candidate)
            if opened.digest == recorded["digest"]:
                return opened
    raise UserError(
        f"the {name} folder this was made from (digest {recorded['digest'][:16]}) is gone",
        where=str(run_folder),
        fix="run the recipe again with the settings in the manifest",
    )


def file_entry(path: Path) -> dict[str, Any] | None:
    """Return what the manifest says about one file and whether its bytes still agree; None for a folder or a record."""
    folder = stage_folder_of(path)
    name = path.resolve().relative_to(folder.path.resolve()).as_posix()
    entry = folder.manifest.files.get(name)
    if entry is None:
        return None
    return {"file": name, "sha256": entry.sha256, "intact": sha256_of_file(path) == entry.sha256}


def _is_stage_manifest(folder: Path) -> bool:
    return '"stage_version"' in (folder / MANIFEST).read_text(encoding="utf-8")
