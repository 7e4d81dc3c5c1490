"""A training run on disk: numbered Hugging Face model folders that also hold what the run needs to go on exactly.

`checkpoints/step-000400/` is a whole model folder, with `optim.safetensors`, `trainer.json` and `MANIFEST.json` (size and
SHA-256 of every file) beside the weights. It is written to a hidden sibling, flushed and renamed, so a folder with that name is
complete. `best` and `last` are relative links, replaced by rename. Nothing is pickled. Where several processes hold a part of the
optimiser's state each, `optim-00001-of-00002.safetensors` and its siblings stand in the place of the one file.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from caslon.errors import StorageError, UserError
from caslon.folders import sha256_of_file, sync_folder, write_atomic
from caslon.train.parts import read_part
from caslon.train.random_states import PREFIX as RANDOM_STATES

OPTIMIZER_FILES = "optim*.safetensors"
STATE_FILE = "trainer.json"
MANIFEST_FILE = "MANIFEST.json"
PREFIX = "step-"
SPARE = 1.1  # a save needs its size and a tenth more

WriteModel = Callable[[Path, Mapping[str, Any]], None]
"""Write a complete model folder at a path, with these facts in its sidecar."""

# What may be changed under way, when it is asked for by name: it alters neither shapes nor which rows a step reads.
CHANGEABLE = {
    *(
        "steps",
        "schedule",
        "weight_decay",
        "clip",
        "momentum",
        "beta1",
        "table_rate_ratio",
        "head_rate_ratio",
        "on_nan",
    ),
    *("micro_batch", "checkpoint_every", "eval_every", "eval_batches", "save_every", "keep", "keep_every"),
    *("best_metric", "patience"),
}


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint folder."""

    path: Path
    step: int

    def state(self) -> dict[str, Any]:
        """Return what the trainer wrote down."""
        state: dict[str, Any] = json.loads((self.path / STATE_FILE).read_text(encoding="utf-8"))
        return state

    def tensors(self, part: int = 0, parts: int = 1) -> dict[str, Tensor]:
        """Return the state of the optimiser and of the random generators by name.

        Of several parts only the rows of one are read, however many parts were written.
        """
        return read_part(sorted(self.path.glob(OPTIMIZER_FILES)), part, parts, uncut=RANDOM_STATES)

    def problem(self) -> str | None:
        """Return what is wrong with the folder, by its manifest; `None` when it is intact."""
        try:
            files = json.loads((self.path / MANIFEST_FILE).read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, KeyError):
            return f"{MANIFEST_FILE} is missing or damaged"
        for name, entry in files.items():
            file = self.path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["bytes"] or sha256_of_file(file) != entry["sha256"]:
                return f"{name} was changed or damaged after it was written"
        return None


@dataclass
class Checkpoints:
    """The checkpoints of one run, below `folder`. `warn` tells the user what was skipped or could not be saved.

    The newest `keep` are kept, and all at multiples of `keep_every`. Of several processes one `owns` the folder; the others
    only write their part of the optimiser's state.
    """

    folder: Path
    keep: int
    warn: Callable[[str], None]
    keep_every: int | None = None
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
    owns: bool = True

    def __post_init__(self) -> None:
        if not self.owns:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(f".{PREFIX}*"):  # of a process that was killed while it saved
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint, damaged or not."""
        return next(iter(self.all()[::-1]), None)

    def all(self) -> list[Checkpoint]:
        """Return the complete checkpoints, oldest first."""
        found = (path for path in self.folder.glob(f"{PREFIX}*") if path.is_dir() and not path.is_symlink())
        return sorted((Checkpoint(path, int(path.name.removeprefix(PREFIX))) for path in found), key=lambda c: c.step)

    def newest_intact(self) -> Checkpoint | None:
        """Return the newest undamaged checkpoint, `None` when there never was one; `StorageError` when all are damaged."""
        candidates = self.all()[::-1]
        for candidate in candidates:
            problem = candidate.problem()
            if problem is None:
                lost = candidates[0].step - candidate.step
                if lost:
                    self.warn(f"going on from {candidate.path.name}: {lost} steps are lost and will be repeated")
                return candidate
            self.warn(f"checkpoint {candidate.path.name} is not intact: {problem}")
        if candidates:
            raise StorageError(
                "no checkpoint of this run is intact",
                where=str(self.folder),
                fix="restore one from a backup, or remove the folder to train from the start",
            )
        return None

    def best(self) -> Checkpoint | None:
        """Return the checkpoint that the link `best` points to."""
        return self._linked("best")

    def save(
        self,
        step: int,
        write_model: WriteModel,
        optimizer: Mapping[str, Tensor],
        state: Mapping[str, Any],
        *,
        best: bool,
        weight_bytes: int = 0,
        parts: int = 1,
    ) -> Checkpoint | None:
        """Write a checkpoint and point the links to it; `None`, with a warning, when the disk has no room for it.

        `weight_bytes` is the size of the model, which counts for the room that is needed. Of several parts of the optimiser's
        state `optimizer` is the first; `write_part` wrote the others.
        """
        if not self.make_room(weight_bytes + sum(tensor.nbytes for tensor in optimizer.values())):
            return None
        path = self.folder / f"{PREFIX}{step:06d}"
        partial = self.folder / f".{path.name}.{os.getpid()}"
        try:
            partial.mkdir()
            write_model(partial, {"step": step, "tokens_seen": state["tokens"]})
            for part in range(1, parts):
                self._part_before(step, part, parts).rename(partial / optimizer_file(part, parts))
            _write_tensors(partial / optimizer_file(0, parts), optimizer)
            self._write(partial, state)
            self._put(partial, path)
        except (OSError, SafetensorError, StorageError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            self.warn(f"checkpoint at step {step} could not be written: {error}")
            return None
        for name in ("last", "best") if best else ("last",):
            self._link(name, path)
        self.prune()
        return Checkpoint(path, step)

    def write_part(self, step: int, optimizer: Mapping[str, Tensor], part: int, parts: int) -> None:
        """Write one part of the optimiser's state, which the next `save` of that step moves to its place."""
        _write_tensors(self._part_before(step, part, parts), optimizer)

    def _part_before(self, step: int, part: int, parts: int) -> Path:
        return self.folder / f".{PREFIX}{step:06d}.{optimizer_file(part, parts)}"

    def prune(self) -> None:
        """Remove old checkpoints: all but the newest `keep` regular ones, the milestones, the best and the last."""
        spare = self._protected()
        checkpoints = self.all()
        regular = [item for item in checkpoints if item.state()["regular"]]
        kept = {item.step for item in regular[-self.keep :]} | spare
        for item in checkpoints:
            if item.step not in kept:
                self._remove(item)

    def change_state(self, checkpoint: Checkpoint, changes: Mapping[str, Any], keep_in: Path) -> None:
        """Replace a checkpoint by one with a changed trainer state; the one before is kept in a folder. Files are shared."""
        partial = self.folder / f".{checkpoint.path.name}.{os.getpid()}"
        shutil.copytree(checkpoint.path, partial, copy_function=os.link)
        state = {**checkpoint.state(), **changes}
        write_atomic(partial / STATE_FILE, json.dumps(state, indent=2, sort_keys=True) + "\n")
        self._seal(partial)
        checkpoint.path.rename(keep_in / checkpoint.path.name)
        partial.rename(checkpoint.path)
        sync_folder(self.folder)

    def go_on_from(self, checkpoint: Checkpoint, best_step: int | None) -> None:
        """Make `checkpoint` the last one: later ones are removed, and both links are set as they were at its step."""
        for item in self.all():
            if item.step > checkpoint.step:
                self._remove(item)
        self._link("last", checkpoint.path)
        best = self.folder / f"{PREFIX}{best_step or checkpoint.step:06d}"
        self._link("best", best if best.is_dir() else checkpoint.path)

    def _write(self, partial: Path, state: Mapping[str, Any]) -> None:
        write_atomic(partial / STATE_FILE, json.dumps(state, indent=2, sort_keys=True) + "\n")
        self._seal(partial)

    def _seal(self, partial: Path) -> None:
        """Write the manifest of a folder that is whole otherwise, and flush everything to disk."""
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
            for path in sorted(partial.iterdir())
            if path.name != MANIFEST_FILE
        }
        write_atomic(partial / MANIFEST_FILE, json.dumps({"files": files}, indent=2) + "\n")
        for file in partial.iterdir():
            _flush(file)
        sync_folder(partial)

    def _put(self, partial: Path, path: Path) -> None:
        """Rename the finished folder to its name; a damaged or rewound one of that step is replaced."""
        if path.exists():
            old = self.folder / f".{path.name}.old"
            path.rename(old)
            partial.rename(path)
            shutil.rmtree(old)
        else:
            partial.rename(path)
        sync_folder(self.folder)

    def _remove(self, item: Checkpoint) -> None:
        """Take a checkpoint away in one rename, so that a kill in between leaves no half folder under its name."""
        doomed = self.folder / f".{item.path.name}.old"
        item.path.rename(doomed)
        shutil.rmtree(doomed)

    def _link(self, name: str, path: Path) -> None:
        temporary = self.folder / f".{name}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(path.name)
        temporary.replace(self.folder / name)

    def _linked(self, name: str) -> Checkpoint | None:
        link = self.folder / name
        if not link.exists():
            return None
        path = self.folder / link.readlink()
        return Checkpoint(path, int(path.name.removeprefix(PREFIX)))

    def _protected(self) -> set[int]:
        linked = {item.step for item in (self._linked("best"), self._linked("last")) if item is not None}
        every = self.keep_every
        return linked | {item.step for item in self.all() if every and item.step % every == 0}

    def make_room(self, tensor_bytes: int) -> bool:
        """Return whether a save fits, after removing old checkpoints as far as that is allowed and needed."""
        newest = self.newest()
        size = max(tensor_bytes, _folder_bytes(newest.path) if newest else 0)
        for item in [*self.all(), None]:
            free = self.free_bytes(self.folder)
            if free >= SPARE * size:
                return True
            if item is not None and item.step not in self._protected():
                self._remove(item)
        self.warn(f"no checkpoint written: it needs {SPARE * size / 1e6:.0f} MB and {free / 1e6:.0f} MB are free")
        return False


def optimizer_file(part: int, parts: int) -> str:
    """Return the name of the file with the 0-based `part` of the optimiser's state."""
    return "optim.safetensors" if parts == 1 else f"optim-{part + 1:05d}-of-{parts:05d}.safetensors"


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file(dict(tensors), path)
    path.chmod(mode)  # some safetensors versions write 0600 whatever the umask


def refuse_changes(
    before: Mapping[str, Any], now: Mapping[str, Any], where: Path, *, allow_change: bool = False
) -> list[str]:
    """Return in what a run differs from the checkpoint it would go on from, when that is allowed.

    `UserError` naming every difference when it is not, or when one alters shapes, data or the state that is taken over.
    """
    now = _as_json(now)
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    told = [line for key in changed for line in _differences(key, before.get(key), now.get(key))]
    if not changed or (allow_change and CHANGEABLE.issuperset(changed)):
        return told
    fixed = [key for key in changed if key not in CHANGEABLE]
    fix = "restore the settings, or give the run another name to train from the start"
    if not fixed:
        fix = "give --allow-change to go on with the new values, or restore the old ones"
    elif allow_change:
        fix = f"--allow-change does not cover {', '.join(fixed)}: {fix}"
    raise UserError(
        "this run differs from the one that wrote the checkpoint: " + "; ".join(told), where=str(where), fix=fix
    )


def _differences(key: str, before: Any, now: Any) -> list[str]:
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return [f"{key}: {before!r} -> {now!r}"]
    inner = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [line for name in inner for line in _differences(f"{key}.{name}", before.get(name), now.get(name))]


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _flush(path: Path) -> None:
    with path.open("rb") as file, suppress(OSError):  # some network disks refuse to flush a file opened for reading
        os.fsync(file.fileno())
