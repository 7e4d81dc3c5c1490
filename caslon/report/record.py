"""Stage folders to the sober end of a run's report: plan beside actual, machine and lineage, and how to do it again."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caslon.folders import StageFolder
from caslon.report.blocks import Block, Code, Details, Section, Table, Text, Value
from caslon.report.numbers import readable_bytes, readable_seconds

MODEL_FOLDER = "model"
SECONDS_NAMES = ("time", "seconds", "training time")
MEMORY_NAMES = ("peak memory",)

Json = dict[str, Any]
Stages = Mapping[str, StageFolder]  # by name, in the order of work


def plan_section(plan: Sequence[Json], stages: Stages) -> Section:
    """Return what was foretold beside what came; a value nobody measured stands in the folded table only."""
    compared = []
    for row in plan:
        actual = _actual(row, stages.get(row["stage"]))
        if actual is not None:
            ratio = _ratio(row["value"], actual)
            compared.append([row["stage"], row["name"], row["value"], actual, ratio, row["unit"]])
    every = [[row["stage"], row["name"], cell(row["value"]), row["unit"], row["origin"]] for row in plan]
    blocks: list[Block] = []
    if compared:
        blocks.append(Table(["stage", "value", "planned", "actual", "actual / planned", "unit"], compared))
    whole = Table(["stage", "value", "planned", "unit", "from"], every)
    blocks.append(Details("Every planned value and where it came from", [whole]))
    return Section("Plan and actual", blocks, intro="What was expected before the work began, and what came.")


def _actual(row: Json, folder: StageFolder | None) -> Value:
    """Return the figure of a finished stage that a planned one foretold, or None."""
    if folder is None or isinstance(row["value"], str):
        return None
    if row["name"] in SECONDS_NAMES:
        return folder.manifest.seconds
    totals = folder.manifest.totals
    name = "peak_memory_bytes" if row["name"] in MEMORY_NAMES else row["name"].replace(" ", "_")
    value = totals.get(name, totals.get(f"{name}_{row['unit']}"))
    return value if isinstance(value, int | float) else None


def _ratio(planned: Any, actual: Any) -> float | None:
    return round(actual / planned, 3) if isinstance(planned, int | float) and planned else None


def cell(value: Any) -> Value:
    """Return any JSON value as something a table can show."""
    if value is None or isinstance(value, str | int | float):
        return value
    return json.dumps(value, ensure_ascii=False)


def environment_section(stages: Stages) -> Section:
    """Return machine, versions and lineage of all stages."""
    versions: dict[str, str] = {}
    for folder in stages.values():
        versions |= folder.manifest.versions
    lineage = [
        [name, thing, Path(recorded["folder"]).name, recorded["digest"][:16]]
        for name, folder in stages.items()
        for thing, recorded in folder.manifest.inputs.items()
    ]
    sources = [[name, *pair] for name, folder in stages.items() for pair in folder.manifest.sources.items()]
    columns = ["stage", "device", "began (UTC)", "time", "peak memory", "content digest"]
    rows = [_stage_row(name, folder) for name, folder in stages.items()]
    blocks: list[Block] = [Table(columns, rows, caption="Stages")]
    if lineage:
        blocks.append(Table(["stage", "reads", "from", "content digest"], lineage, caption="Lineage"))
    if sources:
        blocks.append(Details("Outside sources", [Table(["stage", "path", "SHA-256"], sources)]))
    blocks.append(Table(["part", "version"], [list(pair) for pair in sorted(versions.items())], caption="Versions"))
    return Section("Environment and lineage", blocks)


def _stage_row(name: str, folder: StageFolder) -> list[Value]:
    manifest = folder.manifest
    memory = manifest.totals.get("peak_memory_bytes")
    taken = [readable_seconds(manifest.seconds), readable_bytes(memory) if memory else None]
    return [name, manifest.device, manifest.started, *taken, manifest.digest[:16]]


def repeat_section(run_folder: Path, stages: Stages, recipe: str, model: str) -> Section:
    """Return the commands that do the run again and use its model (`model`: a stage's name, or empty)."""
    place = run_folder.as_posix()
    commands = list(dict.fromkeys(folder.manifest.command for folder in stages.values() if folder.manifest.command))
    lines = commands or [f"caslon run {place}/recipe.toml"]
    if model:
        lines += [f"caslon {verb} {place}/{model}/{MODEL_FOLDER}" for verb in ("chat", "serve")]
    lines.append(f"caslon explain {place}/{list(stages)[-1]}")
    seed = next(iter(stages.values())).manifest.seed
    text = f"The seed is {seed}. The same recipe on the same kind of machine gives the same content digests."
    blocks: list[Block] = [Text(text), Code("\n".join(lines), "commands, from the folder the run was started in")]
    if recipe:
        blocks.append(Details("The recipe", [Code(recipe)]))
    settings = {name: folder.manifest.settings for name, folder in stages.items()}
    blocks.append(Details("Every setting", [Code(json.dumps(settings, indent=2, ensure_ascii=False))]))
    return Section("How to repeat this", blocks)
