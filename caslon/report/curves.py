"""A stage's event log to curves, texts and warnings: what training looked like, for any stage that trains.

Metric names are those the trainer logs: `train/loss`, `eval/val_bpb`, and so on. A metric that is not there makes no chart.
"""

from collections.abc import Sequence
from pathlib import Path

from caslon.observe.events import ExpertMap, Metrics, Note, Sample, Timing, metric_values, read_events
from caslon.report.blocks import Block, Chart, Charts, Level, Samples, SampleText, Series

EXPERT_SHARE = "eval/val_expert_share."  # then layer.expert
Points = list[tuple[int, float]]


def curve_blocks(log: Path, levels: Sequence[Level] = ()) -> list[Block]:
    """Return the curves of a training log. `levels` are bits per byte of baselines, drawn across that chart."""
    values = metric_values(log) | metric_values(log, Timing.kind)
    large = [
        _chart("Bits per byte", values, {"eval/val_bpb": "validation"}, "bits per byte", levels),
        _chart(
            "Loss",
            values,
            {"train/loss": "training", "eval/val_loss": "validation", "eval/train_loss": "training, mean"},
            "nats per token",
        ),
    ]
    small = [
        _chart("Learning rate", values, {"train/lr": "learning rate"}, "learning rate"),
        _chart("Gradient norm", values, {"train/grad_norm": "gradient norm"}, "gradient norm"),
        _chart("Throughput", values, {"train/tokens_per_s": "tokens per second"}, "tokens per second"),
        _chart("Share of the device's peak", values, {"train/mfu": "share"}, "share of peak"),
        _chart("Accuracy on unseen text", values, {"eval/val_accuracy": "next token right"}, "share"),
        *_expert_charts(values),
        _chart("Validation against training", _gap(values), {"gap": "validation less training"}, "nats per token"),
        _chart(
            "Shares of a layer's experts",
            values,
            {"train/expert_share_max": "most used", "train/expert_share_min": "least used"},
            "share",
        ),
        _chart("Balance of experts", values, {"train/aux_loss": "balance loss"}, "experts x shares x probabilities"),
    ]
    blocks: list[Block] = [chart for chart in large if chart]
    shown = [chart for chart in small if chart]
    return [*blocks, Charts(shown)] if shown else blocks


def _expert_charts(values: dict[str, Points]) -> list[Chart | None]:
    """Return one chart for each layer of experts: which share of the tokens each of them gets."""
    layers: dict[str, dict[str, str]] = {}
    for name in values:
        if name.startswith(EXPERT_SHARE):
            layer, _, expert = name.removeprefix(EXPERT_SHARE).partition(".")
            layers.setdefault(layer, {})[name] = f"expert {expert}"
    return [
        _chart(f"Use of the experts of layer {layer}", values, names, "share of tokens")
        for layer, names in layers.items()
    ]


def _chart(
    title: str, values: dict[str, Points], names: dict[str, str], y_label: str, levels: Sequence[Level] = ()
) -> Chart | None:
    series = [_series(label, values[name]) for name, label in names.items() if values.get(name)]
    return Chart(title, series, x_label="step", y_label=y_label, levels=levels) if series else None


def _series(name: str, points: Points) -> Series:
    return Series(name, [value for _, value in points], [step for step, _ in points])


def _gap(values: dict[str, Points]) -> dict[str, Points]:
    """How much worse unseen text is than seen text: what over-fitting looks like first."""
    seen = dict(values.get("eval/train_loss", []))
    return {"gap": [(step, value - seen[step]) for step, value in values.get("eval/val_loss", []) if step in seen]}


def expert_maps(log: Path) -> list[Block]:
    """Return, for each layer of a mixture, which expert each token of a text was sent to, as the last map of the log has it."""
    maps = [record for record in read_events(log) if record["kind"] == ExpertMap.kind]
    if not maps:
        return []
    # Numbered, because equal tokens would share a column.
    tokens = [f"{number} {token}" for number, token in enumerate(maps[-1]["tokens"], start=1)]
    return [
        Chart(
            f"Experts of layer {layer}",
            [Series(f"expert {expert}", row, tokens) for expert, row in enumerate(rows)],
            kind="heatmap",
            x_label="token",
            caption="The router's probability of each expert for each token of a text that was not learnt from.",
        )
        for layer, rows in enumerate(maps[-1]["layers"])
    ]


def sample_block(log: Path) -> Samples | None:
    """Return what the model wrote at each step, under one slider, or None when it wrote nothing."""
    texts = [
        SampleText(f"{record['step']:,}", record["prompt"], record["text"])
        for record in read_events(log)
        if record["kind"] == Sample.kind
    ]
    return Samples(texts) if texts else None


def last_values(log: Path) -> dict[str, float]:
    """Return the last value of each metric of a log."""
    return {name: points[-1][1] for name, points in metric_values(log, Metrics.kind).items()}


def warnings(log: Path) -> list[str]:
    """Return what the stage warned of, each line once."""
    records = (record for record in read_events(log) if record["kind"] == Note.kind and record["level"] == "warning")
    return list(dict.fromkeys(record["text"] for record in records))
