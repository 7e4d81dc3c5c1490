"""Results to a report: one page, the same as Markdown and as JSON. Published results stand in a part of their own.

Loads beside the contract's are in tables of their own, and never ranked.
"""

from collections.abc import Sequence
from pathlib import Path

from caslon.bench.lanes import STATUSES, Lane, lanes_of
from caslon.bench.profiles import CONTRACT
from caslon.bench.published import published, published_results
from caslon.bench.results import Result
from caslon.bench.sentences import on_change, on_devices, on_law, on_leaders, on_sizes, signed
from caslon.bench.summary import Entry, Summary, entry_of, summary_of
from caslon.folders import write_atomic
from caslon.report.markdown import page_markdown
from caslon.report.page import (
    Block,
    Chart,
    Charts,
    Details,
    Notice,
    Page,
    Section,
    Series,
    Table,
    Text,
    Value,
    write_page,
)

MAX_BARS = 40


def write_report(folder: Path, results: Sequence[Result], *, with_published: bool = False) -> Summary:
    """Write `report.html`, `report.md` and `report.json`; return the summary of the results, or of the published ones alone."""
    own = summary_of(lanes_of(results))
    reference = summary_of(lanes_of(published_results()))
    sections = list(_sections(own, "")) if results else []
    if with_published or not results:
        sections += _sections(reference, "Published: " if results else "")
    numbers = {
        "own": own.to_json() if results else None,
        "published": reference.to_json() if with_published or not results else None,
    }
    subtitle = (
        f"{len(results)} results of {len(own.lanes)} set-ups"
        if results
        else f"Published results, {published()['source']}"
    )
    page = Page("Load tests", subtitle, sections, numbers=numbers)
    folder.mkdir(parents=True, exist_ok=True)
    write_page(folder / "report.html", page)
    write_atomic(folder / "report.md", page_markdown(page))
    return own if results else reference


def _sections(summary: Summary, prefix: str) -> Sequence[Section]:
    sections = [_leaders(summary, prefix)] if summary.ranked else []
    sections.append(_status(summary, prefix))
    if summary.ranked:
        sections.append(_side_by_side(summary, prefix))
    if summary.changes:
        sections.append(_scaling(summary, prefix))
    models = dict.fromkeys(lane.model for lane in summary.lanes if lane.by_profile)
    sections += [_model(summary, model, prefix) for model in models]
    others = [lane for lane in summary.lanes if lane.others]
    return [*sections, _others(others, prefix)] if others else sections


def _leaders(summary: Summary, prefix: str) -> Section:
    blocks: list[Block] = [Text("\n\n".join([*on_leaders(summary), *on_devices(summary), *on_law(summary)]))]
    for profile in CONTRACT:
        blocks.append(_table(summary.leaders(profile.name), f"{profile.name}: the three with the most tok/s"))
    blocks.append(Charts([_bars(summary.entries[profile.name], profile.name) for profile in CONTRACT]))
    several = len({entry.model for entry in summary.entries[CONTRACT[0].name]}) > 1
    if several:
        best = [(profile.name, summary.best_of_models(profile.name)[:3]) for profile in CONTRACT]
        tables: list[Block] = [_table(entries, f"{name}: one set-up of each model") for name, entries in best]
        blocks.append(Details("With one set-up of each model", tables))
    return Section(f"{prefix}Who leads", blocks)


def _bars(entries: Sequence[Entry], profile: str) -> Chart:
    shown = entries[:MAX_BARS]
    labels = [f"TTFT {entry.ttft_ms:,.0f} ms, TPOT {entry.tpot_ms:,.2f} ms" for entry in shown]
    series = Series(
        "tok/s", [entry.output_throughput for entry in shown], [entry.label for entry in shown], "tok/s", labels
    )
    return Chart(profile, [series], kind="bar", horizontal=True, y_label="output tokens per second")


def _table(entries: Sequence[Entry], caption: str) -> Table:
    columns = ["set-up", "shape", "tok/s", "TTFT ms", "TPOT ms", "tok/s per device", "notes"]
    return Table(columns, [_row(entry) for entry in entries], caption=caption)


def _row(entry: Entry) -> list[Value]:
    return [
        entry.label,
        entry.shape,
        f"{entry.output_throughput:,.2f}",
        f"{entry.ttft_ms:,.2f}",
        f"{entry.tpot_ms:,.2f}",
        None if entry.per_device is None else f"{entry.per_device:,.1f}",
        entry.notes or None,
    ]


def _status(summary: Summary, prefix: str) -> Section:
    rows: list[list[Value]] = [
        [lane.label, summary.statuses[lane.label], "no" if lane.refusals else "yes", lane.notes or None]
        for status in STATUSES
        for lane in summary.lanes
        if summary.statuses[lane.label] == status
    ]
    blocks: list[Block] = [Table(["set-up", "status", "compared", "notes"], rows)]
    blocks += [
        Notice(f"{label} is not compared: {'; '.join(reasons)}.", "warning")
        for label, reasons in summary.refusals.items()
    ]
    return Section(f"{prefix}Status", blocks)


def _side_by_side(summary: Summary, prefix: str) -> Section:
    columns = ["set-up", "shape", *(profile.name for profile in CONTRACT), "notes"]
    rows: list[list[Value]] = [
        [lane.label, lane.shape, *(_cell(lane, profile.name) for profile in CONTRACT), lane.notes or None]
        for lane in summary.ranked
    ]
    return Section(f"{prefix}Side by side", [Table(columns, rows, caption="tok/s / TTFT ms / TPOT ms")])


def _cell(lane: Lane, profile: str) -> str:
    entry = entry_of(lane, lane.by_profile[profile])
    return f"{entry.output_throughput:,.2f} / {entry.ttft_ms:,.2f} / {entry.tpot_ms:,.2f}"


def _scaling(summary: Summary, prefix: str) -> Section:
    columns = ["model", "devices", "load", "tok/s", "TTFT", "TPOT"]
    rows: list[list[Value]] = [
        [
            change.model,
            f"{change.devices[0]} → {change.devices[1]}",
            change.profile,
            signed(change.output_throughput),
            signed(change.ttft_ms),
            signed(change.tpot_ms),
        ]
        for change in summary.changes
    ]
    single = [lane.model for lane in summary.ranked if summary.statuses[lane.label] == "single-shape only"]
    sentences = list(on_sizes(summary.changes))
    if single:
        sentences.append(f"Measured at one size only, so part of none of this: {', '.join(dict.fromkeys(single))}.")
    return Section(
        f"{prefix}More devices", [Text("\n\n".join(sentences)), Table(columns, rows, caption="Change in percent")]
    )


def _model(summary: Summary, model: str, prefix: str) -> Section:
    lanes = [lane for lane in summary.lanes if lane.model == model and lane.by_profile]
    blocks: list[Block] = [
        _table([entry_of(lane, lane.by_profile[name]) for lane in lanes if name in lane.by_profile], name)
        for name in (profile.name for profile in CONTRACT)
        if any(name in lane.by_profile for lane in lanes)
    ]
    changes = [on_change(change) for change in summary.changes if change.model == model]
    if changes:
        blocks.insert(0, Text("\n\n".join(changes)))
    return Section(f"{prefix}{model}", blocks)


def _others(lanes: Sequence[Lane], prefix: str) -> Section:
    columns = ["set-up", "load", "tok/s", "TTFT ms", "TPOT ms", "failed"]
    rows: list[list[Value]] = []
    for lane in lanes:
        for result in lane.others:
            figures = [result.data[key] for key in ("output_throughput", "mean_ttft_ms", "mean_tpot_ms")]
            shown = [None if figure is None else f"{figure:,.2f}" for figure in figures]
            rows.append([lane.label, f"{result.profile.name} (scaled)", *shown, result.data.get("failed")])
    intro = "Loads beside the contract's. They are never compared with those."
    return Section(f"{prefix}Other loads", [Table(columns, rows)], intro)
