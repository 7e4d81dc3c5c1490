"""Runs a recipe: works out what is done already, does the rest in order, and leaves one folder per stage.

A stage's key is the digest of its kind, version, seed, the settings that change its output, the digests of its inputs and of the
outside files it reads. A finished folder with the same key is never done again; one with another key is set aside, not deleted.
"""

import errno
import json
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caslon import __version__
from caslon.errors import StorageError, UserError
from caslon.folders import (
    MANIFEST,
    PARTIAL,
    Manifest,
    StageFolder,
    adopt_partial,
    begun_with,
    complete,
    content_digest,
    content_files,
    digest_of,
    lock,
    partial_folder,
    set_aside,
    sha256_of_file,
    write_atomic,
)
from caslon.observe.events import EventLog, Finished, Listener, Started
from caslon.observe.metrics_file import MetricsFile
from caslon.observe.tracking import tracked
from caslon.recipe import RESOLVED_FILE, Recipe, StageTable, stage_module
from caslon.stages.stage import THIS, PlanContext, PlanRow, StageContext

if TYPE_CHECKING:
    from caslon.train.distributed import Processes

SUPERSEDED = "superseded"
RECORDED_VERSIONS = ("torch", "tokenizers", "safetensors", "numpy", "pyarrow")
MANY_SOURCES = 50  # beyond this a manifest names their common folder, not each file


@dataclass(frozen=True)
class PlannedStage:
    """What will happen to one stage. `key` is None while an input is not built, since nobody can know it yet."""

    table: StageTable
    key: str | None
    state: str  # "done" | "set aside" (done before under other settings) | "begun" | "to do"
    rows: tuple[PlanRow, ...]


def plan(recipe: Recipe, runs: Path, *, device: str = THIS, price_per_hour: float | None = None) -> list[PlannedStage]:
    """Return what `run` would do, stage by stage, with every derived value, on this device or on one that is named."""
    run_folder = runs / recipe.name
    finished: dict[str, StageFolder] = {}
    planned = []
    for table in recipe.stages:
        inputs = {thing: finished[name] for thing, name in table.inputs.items() if name in finished}
        key = stage_key(recipe, table, inputs) if len(inputs) == len(table.inputs) else None
        found = _finished_folder(run_folder, table.name, key)
        if found:
            finished[table.name] = found
        context = PlanContext(
            table.name,
            table.settings,
            recipe.seed,
            inputs,
            {other.name: other.settings for other in recipe.stages},
            Path.cwd(),
            device,
            price_per_hour,
            may_measure=found is None,
        )
        rows = _rows(table, context)
        planned.append(PlannedStage(table, key, _state(run_folder, table.name, found), rows))
    return planned


def run(
    recipe: Recipe,
    runs: Path,
    *,
    until: str | None = None,
    only: str | None = None,
    command: str = "",
    listeners: Sequence[Listener] = (),
    on_stage: Callable[[StageTable, str], None] = lambda _table, _state: None,
    processes: "Processes | None" = None,
) -> Path:
    """Do what is not done yet and return the run folder. Safe to kill and call again at any moment.

    `on_stage` hears each stage with "cached" or "begins". Of several `processes` the first one calls this; the others `follow`.
    Raises `UserError` when another run holds the run folder.
    """
    run_folder = runs / recipe.name
    with lock(run_folder):
        _write_recipe(recipe, run_folder, until)
        _write_plan(recipe, runs, run_folder)
        finished: dict[str, StageFolder] = {}
        for table in _selected(recipe, until, only):
            inputs = _inputs(run_folder, table, finished)
            key = stage_key(recipe, table, inputs)
            folder = _finished_folder(run_folder, table.name, key)
            on_stage(table, "cached" if folder else "begins")
            if folder is None:
                folder = _do(recipe, table, inputs, key, run_folder, command, listeners, processes)
            finished[table.name] = _restore(run_folder, table.name, folder)
    return run_folder


def go_on(
    recipe: Recipe,
    runs: Path,
    stage: str,
    *,
    allow_change: bool = False,
    command: str = "",
    listeners: Sequence[Listener] = (),
    on_stage: Callable[[StageTable, str], None] = lambda _table, _state: None,
    processes: "Processes | None" = None,
) -> Path:
    """Finish a stage that was begun, perhaps under other settings, and return the run folder.

    Its inputs are taken as they lie beside it: nothing before it is looked at, so the run may have come from another machine.
    """
    run_folder = runs / recipe.name
    table = recipe.stage(stage)
    with lock(run_folder):
        inputs = _inputs(run_folder, table, {})
        key = stage_key(recipe, table, inputs)
        with _adopted(run_folder, stage, key):
            _write_recipe(recipe, run_folder, recorded_end(run_folder))
            on_stage(table, "begins")
            _do(recipe, table, inputs, key, run_folder, command, listeners, processes, allow_change=allow_change)
    return run_folder


def follow(processes: "Processes") -> None:
    """Take part in the stages that the first process shares, till it ends. Folders, keys and locks are its affair alone."""
    while (told := processes.hear()) is not None:
        module = stage_module(told["kind"])
        with EventLog(None) as events:
            module.run(
                StageContext(
                    told["name"],
                    module.Settings(**told["settings"]),
                    told["seed"],
                    Path(told["folder"]),
                    {thing: StageFolder.open(Path(path)) for thing, path in told["inputs"].items()},
                    events,
                    Path.cwd(),
                    told["allow_change"],
                    processes,
                )
            )


def _share(processes: "Processes | None", table: StageTable, context: StageContext) -> StageContext:
    """Return the context of a stage that all processes run, after they were told; of another one as it is."""
    if processes is None or not getattr(table.module, "SEVERAL_PROCESSES", False):
        return context
    processes.tell(
        {
            "kind": table.kind,
            "name": context.name,
            "settings": context.settings.model_dump(mode="json"),
            "seed": context.seed,
            "folder": str(context.folder),
            "inputs": {thing: str(folder.path) for thing, folder in context.inputs.items()},
            "allow_change": context.allow_change,
        }
    )
    return replace(context, processes=processes)


@contextmanager
def _adopted(run_folder: Path, stage: str, key: str) -> Iterator[None]:
    """Let begun work go on under a key; when the stage refuses its settings, all is recorded as it was before."""
    begun, record = run_folder / (stage + PARTIAL), run_folder / RESOLVED_FILE
    key_before, record_before = begun_with(begun), record.read_bytes()
    adopt_partial(run_folder / stage, key)
    try:
        yield
    except UserError:
        write_atomic(record, record_before)
        adopt_partial(run_folder / stage, key_before or key)
        raise


def begun_stage(recipe: Recipe, runs: Path) -> str | None:
    """Return the stage of a run that was begun and not finished, the last one if there are several."""
    begun = [table.name for table in recipe.stages if (runs / recipe.name / (table.name + PARTIAL)).is_dir()]
    return begun[-1] if begun else None


def other_work(recipe: Recipe, runs: Path, stage: str) -> Path | None:
    """Return the folder of a stage, finished or begun, that holds the work of other settings or inputs than these."""
    run_folder, table = runs / recipe.name, recipe.stage(stage)
    planned = next(item for item in plan(recipe, runs) if item.table is table)
    for path in (run_folder / stage, run_folder / (stage + PARTIAL)):
        if path.is_dir() and planned.key != _key_of(path):
            return path
    return None


def _key_of(folder: Path) -> str | None:
    if (folder / MANIFEST).is_file():
        return StageFolder.open(folder).manifest.key
    return begun_with(folder)


def stage_key(recipe: Recipe, table: StageTable, inputs: Mapping[str, StageFolder]) -> str:
    """Return the cache key of a stage whose inputs are known."""
    names_matter = getattr(table.module, "NAMES_MATTER", True)
    return digest_of(
        {
            "stage": table.kind,
            "version": table.module.VERSION,
            "seed": recipe.seed,
            "settings": table.settings.output_settings(),
            "inputs": {thing: folder.digest for thing, folder in inputs.items()},
            "sources": sorted(
                (Path(path).name if names_matter else "", digest) for path, digest in _source_digests(table).items()
            ),
        }
    )


def check_extras(recipe: Recipe) -> None:
    """Raise `UserError` naming the pip command when a stage's optional libraries are not installed."""
    from importlib.util import find_spec

    for table in recipe.stages:
        for module, extra in getattr(table.module, "NEEDS", {}).items():
            if find_spec(module) is None:
                raise UserError(
                    f"[{table.name}] needs the library '{module}', which is not installed",
                    fix=f'pip install "caslon[{extra}]"',
                )


def _selected(recipe: Recipe, until: str | None, only: str | None) -> Sequence[StageTable]:
    if only is not None:
        return [recipe.stage(only)]
    if until is None:
        return recipe.stages
    return recipe.stages[: recipe.stages.index(recipe.stage(until)) + 1]


def _inputs(run_folder: Path, table: StageTable, finished: Mapping[str, StageFolder]) -> dict[str, StageFolder]:
    return {thing: finished.get(name) or StageFolder.open(run_folder / name) for thing, name in table.inputs.items()}


def _finished_folder(run_folder: Path, name: str, key: str | None) -> StageFolder | None:
    """Return the finished folder with this key, in its place or set aside."""
    if key is None:
        return None
    for path in (run_folder / name, run_folder / SUPERSEDED / f"{name}-{key[:16]}"):
        if (path / MANIFEST).is_file() and (folder := StageFolder.open(path)).manifest.key == key:
            return folder
    return None


def _restore(run_folder: Path, name: str, folder: StageFolder) -> StageFolder:
    """Bring a folder that was set aside back to its place."""
    place = run_folder / name
    if folder.path == place:
        return folder
    set_aside(place, run_folder / SUPERSEDED)
    folder.path.rename(place)
    return replace(folder, path=place)


def _do(
    recipe: Recipe,
    table: StageTable,
    inputs: Mapping[str, StageFolder],
    key: str,
    run_folder: Path,
    command: str,
    listeners: Sequence[Listener],
    processes: "Processes | None",
    *,
    allow_change: bool = False,
) -> StageFolder:
    begun, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    partial = partial_folder(run_folder / table.name, key, run_folder / SUPERSEDED)
    log = partial / "events.jsonl"
    with MetricsFile(log) as metrics, EventLog(log, (metrics, *listeners)) as events:
        events.emit(Started(table.name))
        context = StageContext(
            table.name, table.settings, recipe.seed, partial, inputs, events, Path.cwd(), allow_change
        )
        with _full_disk_told(partial), _mirrored(context):
            totals = table.module.run(_share(processes, table, context))
        seconds = round(time.monotonic() - begun, 1)
        events.emit(Finished(seconds))
    files = content_files(partial)
    manifest = Manifest(
        stage=table.name,
        stage_version=table.module.VERSION,
        key=key,
        digest=content_digest(files),
        seed=recipe.seed,
        settings=table.settings.model_dump(mode="json"),
        inputs={
            thing: {"folder": f"../{folder.path.name}", "digest": folder.digest} for thing, folder in inputs.items()
        },
        sources=_source_digests(table),
        files=files,
        totals={**totals, "peak_memory_bytes": _peak_memory_bytes()},
        versions=_versions(),
        device=_device(),
        started=started,
        seconds=seconds,
        base=str(Path.cwd()),
        command=command,
    )
    return complete(partial, run_folder / table.name, manifest, run_folder / SUPERSEDED)


def _mirrored(context: StageContext) -> AbstractContextManager[None]:
    """Return a context in which a tracker gets the metrics of a stage whose settings name one."""
    settings = context.settings.model_dump(mode="json")
    kind, where = settings.get("tracker", "none"), settings.get("tracker_uri", "")
    return tracked(kind, where, folder=context.folder, base=context.base, settings=settings, events=context.events)


@contextmanager
def _full_disk_told(folder: Path) -> Iterator[None]:
    """Turn the system's word for a full disk, wherever a stage met it, into a StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageError(
            f"cannot write: {error.strerror}",
            where=str(folder),
            fix="free some disk space; the same command goes on from here",
        ) from error


def _source_digests(table: StageTable) -> dict[str, str]:
    """Return the outside files a stage reads with their digests; many files become one line for their common folder."""
    if not hasattr(table.module, "sources"):
        return {}
    paths: list[Path] = sorted(table.module.sources(table.settings, Path.cwd()))
    if len(paths) <= MANY_SOURCES:
        return {str(path): sha256_of_file(path) for path in paths}
    parents = [set(path.parents) for path in paths]
    common = max(set.intersection(*parents), key=lambda parent: len(parent.parts))
    digest = digest_of([(path.relative_to(common).as_posix(), sha256_of_file(path)) for path in paths])
    return {f"{common} ({len(paths):,} files)": digest}


def _rows(table: StageTable, context: PlanContext) -> tuple[PlanRow, ...]:
    return tuple(table.module.plan(context)) if hasattr(table.module, "plan") else ()


def _state(run_folder: Path, name: str, found: StageFolder | None) -> str:
    if found:
        return "done" if found.path == run_folder / name else "set aside"
    return "begun" if (run_folder / (name + PARTIAL)).is_dir() else "to do"


def _write_recipe(recipe: Recipe, run_folder: Path, until: str | None) -> None:
    """Keep the recipe, what it came to, and how far the run was to go beside the results."""
    kept = run_folder / "recipe.toml"
    if not (kept.is_file() and kept.samefile(recipe.path)):
        shutil.copyfile(recipe.path, kept)
    resolved = {**_resolved(recipe), "until": until}
    write_atomic(run_folder / RESOLVED_FILE, json.dumps(resolved, indent=2, ensure_ascii=False) + "\n")


def recorded_end(run_folder: Path) -> str | None:
    """Return the stage at which a run was to stop; None when it was to do all."""
    until: str | None = json.loads((run_folder / RESOLVED_FILE).read_text(encoding="utf-8")).get("until")
    return until


def _write_plan(recipe: Recipe, runs: Path, run_folder: Path) -> None:
    """Keep the plan beside the results. A plan made before work started is not overwritten by a later one."""
    planned = plan(recipe, runs)
    path = run_folder / "plan.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    kept = {(row["stage"], row["name"]): row for row in earlier}
    rows = []
    for stage in planned:
        for row in stage.rows:
            new = {"stage": stage.table.name, **row.__dict__}
            done = stage.state == "done"
            rows.append(kept.get((stage.table.name, row.name), new) if done else new)
    write_atomic(path, json.dumps(rows, indent=2, ensure_ascii=False, default=str) + "\n")


def _resolved(recipe: Recipe) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "seed": recipe.seed,
        "tables": dict(recipe.tables),
        "stages": {
            table.name: {"settings": table.settings.model_dump(mode="json"), "inputs": dict(table.inputs)}
            for table in recipe.stages
        },
    }


def _versions() -> dict[str, str]:
    versions = {"caslon": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in RECORDED_VERSIONS:
        versions[name] = metadata.version(name)
    return versions


def _device() -> str:
    torch = sys.modules.get("torch")  # a stage that does not compute with it should not pay for its import
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    threads = f", {torch.get_num_threads()} threads" if torch is not None else ""
    return f"CPU {platform.machine()}{threads}"


def _peak_memory_bytes() -> int:
    """Return the largest resident size of this process and its children so far (Linux counts in KiB, macOS in bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return max(own, children) * unit
