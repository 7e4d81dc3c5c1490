"""A climbed ladder to one page: the chart of all rungs, the table, what it shows, and what each rung writes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caslon.report.page import Chart, Code, Details, Page, Section, Series, Table, Text, readable_seconds, write_page

COLUMNS = ("rung", "bits per byte", "bytes back", "syntax", "long range", "holds", "training", "scoring")

Json = Mapping[str, Any]


def write_ladder_page(path: Path, numbers: Json) -> None:
    """Write the page to `path`, and its numbers as JSON beside it."""
    about, rungs = numbers["text"], numbers["rungs"]
    subtitle = (
        f"Every rung learnt from the same {about['train_bytes']:,} bytes and is judged by the same "
        f"{about['validation_bytes']:,} bytes: {about['split']}."
    )
    table = Table(list(COLUMNS), [row(rung) for rung in rungs])
    sections = [
        Section("What a byte costs", [_chart(rungs), *(Text(line) for line in numbers["conclusions"]), *_note(rungs)]),
        Section("The rungs", [table]),
        Section("What they write", [Details(_summary(rung), [Code(rung["sample"])]) for rung in rungs]),
    ]
    footer = f"{about['source']}, SHA-256 of both parts {about['sha256'][:16]}."
    write_page(path, Page("The ladder", subtitle, sections, footer=footer, numbers=numbers))


def row(rung: Json) -> list[str | int | float]:
    """Return a rung as a row of the table, in the order of `COLUMNS`."""
    holds = f"{rung['numbers']:,} {rung['holds']}"
    seconds = (readable_seconds(rung["train_seconds"]), readable_seconds(rung["score_seconds"]))
    return [
        rung["rung"],
        rung["bits_per_byte"],
        rung["bytes_back"],
        rung["syntax"],
        rung["long_range"],
        holds,
        *seconds,
    ]


def _chart(rungs: Sequence[Json]) -> Chart:
    ordered = sorted(rungs, key=lambda rung: -rung["bits_per_byte"])
    names, values = [rung["rung"] for rung in ordered], [rung["bits_per_byte"] for rung in ordered]
    series = [Series("validation", values, names, unit="bits per byte")]
    caption = "Lower is better. A byte without any model costs 8 bits."
    return Chart("Bits per byte", series, kind="bar", horizontal=True, y_label="bits per byte", caption=caption)


def _note(rungs: Sequence[Json]) -> list[Text]:
    """Return what a network has to reach before it is worth more than counting, in the unit its loss is printed in."""
    grams = [rung for rung in rungs if rung["rung"].startswith(("witten-bell", "kneser-ney"))]
    if not grams:
        return []
    best = min(grams, key=lambda rung: rung["bits_per_byte"])
    nats = best["bits_per_byte"] * math.log(2)
    return [
        Text(
            f"A network is worth its training from {nats:.3f} nats per byte on: that is {best['rung']}, which counts for "
            f"{readable_seconds(best['train_seconds'])}. One that stops at 1.88 nats per character (2.71 bits) of English is "
            "still worse than a 5-gram model."
        )
    ]


def _summary(rung: Json) -> str:
    return f"{rung['rung']} · {rung['bits_per_byte']:.4f} bits per byte"
