"""Several runs to one page: their figures side by side, each curve of all of them in one chart, and what was set differently."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caslon.folders import StageFolder
from caslon.observe.events import Timing, metric_values
from caslon.report.blocks import Block, Chart, Charts, Page, Section, Series, Table, Text
from caslon.report.curves import warnings
from caslon.report.numbers import readable_bytes, readable_seconds
from caslon.report.record import cell

LOG = "events.jsonl"
FIGURES = ("parameters", "steps", "tokens", "epochs", "val_loss", "val_bpb", "best_step", "steps_skipped")
CURVES: Mapping[str, tuple[str, str]] = {
    "eval/val_bpb": ("Bits per byte, validation", "bits per byte"),
    "eval/val_loss": ("Loss, validation", "nats per token"),
    "train/loss": ("Loss, training", "nats per token"),
    "train/lr": ("Learning rate", "learning rate"),
    "train/grad_norm": ("Gradient norm", "gradient norm"),
    "train/tokens_per_s": ("Throughput", "tokens per second"),
    "train/mfu": ("Share of the device's peak", "share of peak"),
}
INTRO = "Over tokens, not steps, so that runs with different batches can be compared."
TOKENIZERS_DIFFER = (
    "These runs read different tokens: losses per token and perplexities cannot be compared; "
    "bits per byte can, if the text is the same."
)

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Trained:
    """A training stage of a run."""

    name: str  # of the run
    stage: StageFolder

    def curves(self) -> dict[str, Points]:
        """Return every metric of the log over tokens seen."""
        log = self.stage.path / LOG
        values = metric_values(log) | metric_values(log, Timing.kind)
        tokens = dict(values.get("train/tokens", []))
        return {
            name: [(int(tokens[step]), value) for step, value in points if step in tokens]
            for name, points in values.items()
        }


def trained_stages(folders: Sequence[Path], opened: Callable[[Path], list[StageFolder]]) -> list[Trained]:
    """Return the pretraining of each run folder, or its first stage that trained; `opened` lists a run's finished stages."""
    found = []
    for folder in folders:
        stages = [stage for stage in opened(folder) if "steps" in stage.manifest.totals]
        stages.sort(key=lambda stage: stage.manifest.stage != "pretrain")
        found += [Trained(folder.resolve().name, stage) for stage in stages[:1]]
    return found


def comparison_page(runs: Sequence[Trained]) -> Page:
    """Return the page; `numbers` holds the figures of every run."""
    figures = {run.name: _figures(run) for run in runs}
    notes: list[Block] = []
    if len({run.stage.manifest.inputs.get("tokens", {}).get("digest") for run in runs}) > 1:
        notes.append(Text(TOKENIZERS_DIFFER))
    warned = [[run.name, text] for run in runs for text in warnings(run.stage.path / LOG)]
    sections = [
        Section("Figures", [*notes, _figure_table(figures)]),
        Section("Curves", _charts({run.name: run.curves() for run in runs}), intro=INTRO),
        Section("What was set differently", [_differences(runs)]),
        *([Section("Warnings", [Table(["run", "warning"], warned)])] if warned else []),
    ]
    names = ", ".join(run.name for run in runs)
    return Page(
        "Comparison", names, sections, kicker="caslon runs", footer="Every figure also stands in the JSON file beside this page.",
        numbers={"runs": figures},
    )  # fmt: skip


def _figures(run: Trained) -> dict[str, Any]:
    manifest = run.stage.manifest
    memory = manifest.totals.get("peak_memory_bytes")
    return {
        **{name: manifest.totals.get(name) for name in FIGURES},
        "time": readable_seconds(manifest.seconds),
        "peak memory": readable_bytes(memory) if memory else None,
        "device": manifest.device,
        "seed": manifest.seed,
    }


def _figure_table(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    names = list(next(iter(figures.values())))
    scores = [(values["val_bpb"], place) for place, values in enumerate(figures.values()) if values["val_bpb"]]
    best = frozenset({min(scores)[1]} if scores else ())
    rows = [[run, *(cell(values[name]) for name in names)] for run, values in figures.items()]
    return Table(["run", *(name.replace("_", " ") for name in names)], rows, emphasis=best)


def _charts(curves: Mapping[str, Mapping[str, Points]]) -> list[Block]:
    charts = []
    for metric, (title, unit) in CURVES.items():
        series = [
            Series(run, [value for _, value in values[metric]], [tokens for tokens, _ in values[metric]])
            for run, values in curves.items()
            if values.get(metric)
        ]
        if series:
            charts.append(Chart(title, series, x_label="tokens", y_label=unit))
    return [*charts[:2], *([Charts(charts[2:])] if charts[2:] else [])]


def _differences(runs: Sequence[Trained]) -> Block:
    settings = [run.stage.manifest.settings for run in runs]
    names = list(dict.fromkeys(name for values in settings for name in values))
    rows = [[name, *(cell(values.get(name)) for values in settings)] for name in names]
    rows = [row for row in rows if any(value != row[1] for value in row[2:])]
    return (
        Table(["setting", *(run.name for run in runs)], rows) if rows else Text("Nothing: the settings are the same.")
    )
