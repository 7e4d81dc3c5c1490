"""One recipe under a list of changes: each trained with the same seeds and steps, and one table of what every change is worth.

Each training is a run of its own (`runs/<name>-<change>-<seed>`), so it can be stopped, resumed and reported on like any other;
what stands before the training is done once for each seed. A run that diverges is a result too.
"""

import json
import os
import re
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from caslon import runner
from caslon.errors import Diverged, UserError
from caslon.folders import MANIFEST, StageFolder, write_atomic
from caslon.observe.events import Listener
from caslon.recipe import load_recipe
from caslon.stages.shape import ShapeSettings

KIND = "pretrain"
MANY_TIMES = 10.0  # the rate that should be too high


@dataclass(frozen=True)
class Change:
    """A name, and the settings of the recipe's pretraining that make it (`family=gpt2`)."""

    name: str
    settings: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The name as part of a folder's name."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:32]


@dataclass
class Row:
    """What came of a change over all seeds."""

    change: str
    settings: tuple[str, ...]
    parameters: int | None = None
    tokens: int | None = None
    losses: list[float] = field(default_factory=list)
    bits: list[float] = field(default_factory=list)  # bits per byte
    seconds: list[float] = field(default_factory=list)
    diverged: int = 0  # seeds

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values, with means and spreads."""
        means = {name: mean_and_spread(getattr(self, name)) for name in ("losses", "bits", "seconds")}
        return {**asdict(self), "means": means}


def standard_changes(recipe: Path, overrides: Sequence[str]) -> list[Change]:
    """Return the changes that are tried when none are given: activation, norm, tying, dropout, optimiser, schedule."""
    chosen = load_recipe(recipe, overrides).stage(KIND).settings
    assert isinstance(chosen, ShapeSettings)
    # Two matrices instead of SwiGLU's three: half as wide again has the same number of weights.
    wider = (f"intermediate_size={chosen.intermediate_size * 3 // 2}",) if chosen.intermediate_size else ()
    rate = getattr(chosen, "learning_rate", None) or 1e-3
    return [
        Change("GPT-2, ReLU", ("family=gpt2", "hidden_act=relu", *wider)),
        Change("GPT-2, GELU", ("family=gpt2", *wider)),
        Change("Llama", ("family=llama",)),
        Change("Llama, norms on queries and keys", ("family=qwen3",)),
        Change("Llama, head of its own", ("family=llama", "tie_word_embeddings=false")),
        Change("Llama, dropout", ("family=llama", "dropout=0.1")),
        Change("Llama, Muon", ("family=llama", "optimizer=muon")),
        Change("Llama, no schedule", ("family=llama", "schedule=constant")),
        Change(
            "Llama, no schedule, ten times the rate",
            ("family=llama", "schedule=constant", f"learning_rate={MANY_TIMES * rate}"),
        ),
    ]


def parsed_change(text: str) -> Change:
    """Return a change written as `NAME: key=value key=value`; `UserError` when it is not."""
    name, colon, rest = text.partition(":")
    settings = tuple(rest.split())
    if not colon or not name.strip() or not all("=" in setting for setting in settings):
        raise UserError(
            f"cannot read the change '{text}'", fix='write "NAME: key=value key=value", as in "ReLU: hidden_act=relu"'
        )
    return Change(name.strip(), settings)


def ablate(
    recipe: Path,
    changes: Sequence[Change],
    seeds: Sequence[int],
    runs: Path,
    *,
    overrides: Sequence[str] = (),
    listeners: Sequence[Listener] = (),
    on_run: Callable[[str], None] = lambda _name: None,
) -> list[Row]:
    """Train every change with every seed and return the rows, in the order given. Finished runs are not done again."""
    name = load_recipe(recipe, overrides).name
    rows = [Row(change.name, change.settings) for change in changes]
    for seed in seeds:
        first: Path | None = None
        for change, row in zip(changes, rows, strict=True):
            own = [f"name={name}-{change.slug}-{seed}", f"seed={seed}", *(f"{KIND}.{text}" for text in change.settings)]
            loaded = load_recipe(recipe, [*overrides, *own])
            on_run(loaded.name)
            if first is not None:
                _share_earlier_stages(first, runs / loaded.name)
            first = first or runs / loaded.name
            try:
                folder = runner.run(loaded, runs, until=KIND, listeners=listeners)
            except Diverged:
                row.diverged += 1
                continue
            _take_in(row, StageFolder.open(folder / KIND))
    return rows


def _share_earlier_stages(source: Path, target: Path) -> None:
    """Give a run the finished stages before the training; the runner takes them when their keys fit."""
    for manifest in source.glob(f"*/{MANIFEST}"):
        stage = manifest.parent
        if stage.name != KIND and not (target / stage.name).exists():
            shutil.copytree(stage, target / stage.name, copy_function=os.link, symlinks=True)


def _take_in(row: Row, stage: StageFolder) -> None:
    totals = stage.manifest.totals
    row.parameters, row.tokens = totals["parameters"], totals["tokens"]
    row.losses.append(totals["val_loss"])
    row.bits += [totals["val_bpb"]] if "val_bpb" in totals else []
    row.seconds.append(stage.manifest.seconds)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the mean and half the distance between the largest and the smallest value; None without values."""
    return (statistics.fmean(values), (max(values) - min(values)) / 2) if values else None


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table, best loss first."""
    lines = [
        "| change | settings | parameters | tokens | loss | bits per byte | time | seeds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    best_first = sorted(rows, key=lambda row: statistics.fmean(row.losses) if row.losses else float("inf"))
    for row in best_first:
        seeds = f"{len(row.losses)}" + (f", {row.diverged} diverged" if row.diverged else "")
        counts = [f"{count:,}" if count is not None else "" for count in (row.parameters, row.tokens)]
        scores = [_with_spread(values, digits) for values, digits in ((row.losses, 3), (row.bits, 3), (row.seconds, 1))]
        lines.append(
            f"| {' | '.join([row.change, ' '.join(row.settings), *counts, *scores[:2], scores[2] + ' s', seeds])} |"
        )
    return "\n".join(lines) + "\n"


def _with_spread(values: Sequence[float], digits: int) -> str:
    found = mean_and_spread(values)
    if found is None:
        return "–"
    mean, spread = found
    return f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if len(values) > 1 else "")


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write the table to `path` and every figure as JSON beside it."""
    write_atomic(path, table(rows))
    text = json.dumps([row.to_json() for row in rows], indent=2, ensure_ascii=False)
    write_atomic(path.with_suffix(".json"), text + "\n")
