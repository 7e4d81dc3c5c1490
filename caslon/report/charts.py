"""A `Chart` as the data and layout plotly.js draws. Colours are left to the page, which knows light from dark.

The JSON is written here directly, without plotly's figure classes: it is small, loads fast and is the same on every run.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from caslon.report.blocks import Chart, Series, Table, Value
from caslon.report.numbers import readable

MAX_TABLE_ROWS = 200
MAX_LINE_POINTS = 2000


def figure(chart: Chart) -> dict[str, Any]:
    """Return `{"data": [...], "layout": {...}}` for Plotly.newPlot, with a series' colour as its number."""
    if chart.kind == "histogram":
        traces = [_histogram_trace(chart, series) for series in chart.series]
    elif chart.kind == "heatmap":
        traces = [_heatmap_trace(chart)]
    else:
        traces = [_trace(chart, series) for series in chart.series]
    for number, trace in enumerate(traces):
        trace["meta"] = {"colour": number}
    return {"data": traces, "layout": _layout(chart)}


def _trace(chart: Chart, series: Series) -> dict[str, Any]:
    x, y = _thinned(list(series.x) or list(range(len(series.y))), list(series.y), chart.kind)
    trace: dict[str, Any] = {
        "name": _plain(series.name),
        "x": [_plain(value) if isinstance(value, str) else _finite(value) for value in x],
        "y": [_finite(value) for value in y],
    }
    if series.labels:
        trace["text"] = [_plain(label) for label in series.labels]
    unit = f" {_plain(series.unit)}" if series.unit else ""
    label = "%{text}<br>" if series.labels else ""
    across, up = ("%{y}", "%{x:,.4~g}") if chart.horizontal else ("%{x}", "%{y:,.4~g}")
    trace["hovertemplate"] = f"{label}{across}: <b>{up}</b>{unit}<extra>%{{fullData.name}}</extra>"
    if chart.kind == "bar":
        trace |= {"type": "bar", "textposition": "none", "marker": {"line": {"width": 0}}}
        if chart.horizontal:
            trace |= {"orientation": "h", "x": trace["y"], "y": trace["x"]}
        return trace
    if chart.kind == "scatter":
        return trace | {"type": "scatter", "mode": "markers", "marker": {"size": 7, "opacity": 0.75}}
    mode = "lines" if len(trace["x"]) > 30 else "lines+markers"
    line = {"width": 2, "dash": "dash" if series.dashed else "solid"}
    return trace | {"type": "scatter", "mode": mode, "line": line, "marker": {"size": 5}}


def _thinned(x: list[Any], y: list[Any], kind: str) -> tuple[list[Any], list[Any]]:
    """Keep every n-th point of a very long line, and always its last one: a screen has about 2,000 columns."""
    if kind != "line" or len(x) <= MAX_LINE_POINTS:
        return x, y
    every = math.ceil(len(x) / MAX_LINE_POINTS)
    kept = [*range(0, len(x) - 1, every), len(x) - 1]
    return [x[index] for index in kept], [y[index] for index in kept]


def _histogram_trace(chart: Chart, series: Series) -> dict[str, Any]:
    edges, counts = histogram([value for value in series.y if value is not None], chart.bins, log=chart.x_log)
    # A log histogram is drawn over exponents on a linear axis, where bars of equal width are what they should be.
    places = [math.log10(edge) for edge in edges] if chart.x_log else edges
    middles = [(low + high) / 2 for low, high in pairwise(places)]
    spans = [f"{readable(low)} to {readable(high)}" for low, high in pairwise(edges)]
    unit = f" {_plain(series.unit)}" if series.unit else ""
    trace = {"type": "bar", "name": _plain(series.name), "x": middles, "y": counts, "text": spans}
    style = {"textposition": "none", "opacity": 1 if len(chart.series) == 1 else 0.6, "marker": {"line": {"width": 0}}}
    hover = f"%{{text}}{unit}: <b>%{{y:,}}</b><extra>%{{fullData.name}}</extra>"
    return trace | style | {"hovertemplate": hover}


def _heatmap_trace(chart: Chart) -> dict[str, Any]:
    """Return the rows as one field of colours, from nothing at 0 to the strongest at 1."""
    return {
        "type": "heatmap",
        "x": [_plain(value) if isinstance(value, str) else _finite(value) for value in chart.series[0].x],
        "y": [_plain(series.name) for series in chart.series],
        "z": [[_finite(value) for value in series.y] for series in chart.series],
        "zmin": 0,
        "zmax": 1,
        "colorscale": "Viridis",
        "hovertemplate": "%{x}, %{y}: <b>%{z:.3f}</b><extra></extra>",
    }


def _decade_ticks(chart: Chart) -> dict[str, Any]:
    values = [value for series in chart.series for value in series.y if value is not None and value > 0]
    if not values:
        return {}
    exponents = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    return {"tickvals": list(exponents), "ticktext": [readable(10**e if e >= 0 else 10.0**e) for e in exponents]}


def histogram(values: Sequence[float | int], bins: int, *, log: bool = False) -> tuple[list[float], list[int]]:
    """Return the edges of `bins` equal intervals (equal in logarithm when `log`) and the count in each.

    With `log`, values that are not positive have no place on the axis and are left out.
    """
    numbers = [float(value) for value in values if math.isfinite(value) and (value > 0 or not log)]
    if not numbers:
        return [], []
    low, high = min(numbers), max(numbers)
    if low == high:
        low, high = (low / 1.5, high * 1.5) if log else (low - 0.5, high + 0.5)
    start, stop = (math.log(low), math.log(high)) if log else (low, high)
    step = (stop - start) / bins
    counts = [0] * bins
    for value in numbers:
        place = ((math.log(value) if log else value) - start) / step
        counts[min(int(place), bins - 1)] += 1
    edges = [start + step * index for index in range(bins)] + [stop]
    return [math.exp(edge) if log else edge for edge in edges], counts


def _layout(chart: Chart) -> dict[str, Any]:
    x_label, y_label = (chart.y_label, chart.x_label) if chart.horizontal else (chart.x_label, chart.y_label)
    counted = chart.kind in ("bar", "histogram")
    x_axis: dict[str, Any] = {"title": {"text": _plain(x_label)}, "automargin": True}
    y_axis: dict[str, Any] = {"title": {"text": _plain(y_label)}, "automargin": True}
    if chart.x_log and chart.kind == "histogram":
        x_axis |= _decade_ticks(chart)
    elif chart.x_log:
        x_axis["type"] = "log"
    if chart.y_log:
        (x_axis if chart.horizontal else y_axis)["type"] = "log"
    elif counted:
        (x_axis if chart.horizontal else y_axis)["rangemode"] = "tozero"
    if chart.kind == "bar":
        (y_axis if chart.horizontal else x_axis)["type"] = "category"
    if chart.kind == "heatmap":
        x_axis["type"] = y_axis["type"] = "category"
    if chart.horizontal:
        y_axis["autorange"] = "reversed"
    layout = {
        "xaxis": x_axis,
        "yaxis": y_axis,
        "barmode": _bar_mode(chart),
        "bargap": 0.04 if chart.kind == "histogram" else 0.3,
        "showlegend": len(chart.series) > 1 and chart.kind != "heatmap",
        "meta": {"levels": [{"name": _plain(level.name), "value": _finite(level.value)} for level in chart.levels]},
    }
    if chart.levels and not chart.y_log:
        y_axis["range"] = _room_for_levels(chart)
    if chart.horizontal:
        layout["height"] = max(160, 64 + 26 * max((len(series.y) for series in chart.series), default=0))
    return layout


def _room_for_levels(chart: Chart) -> list[float]:
    """Return a range of the vertical axis that keeps lines and their names clear of its ends."""
    drawn = (_finite(value) for series in chart.series for value in series.y)
    values = [float(value) for value in drawn if value is not None]
    values += [level.value for level in chart.levels]
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.5
    return [low - margin, high + margin]


def _bar_mode(chart: Chart) -> str:
    if chart.kind == "histogram":
        return "overlay"
    return "stack" if chart.stacked else "group"


def as_table(chart: Chart) -> Table:
    """Return the numbers of a chart as a table, for people who read rather than see; long series are thinned."""
    if chart.kind == "histogram":
        return _histogram_table(chart)
    header = chart.x_label or "x"
    columns = [header, *(f"{series.name} ({series.unit})" if series.unit else series.name for series in chart.series)]
    values: dict[Value, list[Value]] = {}
    for column, series in enumerate(chart.series):
        for x, y in zip(list(series.x) or range(len(series.y)), series.y, strict=True):
            values.setdefault(x, [None] * len(chart.series))[column] = y
    rows = [[x, *row] for x, row in values.items()]
    every = math.ceil(len(rows) / MAX_TABLE_ROWS) or 1
    levels = [[level.name, level.value, *[None] * (len(chart.series) - 1)] for level in chart.levels]
    return Table(columns, [*rows[::every], *levels])


def _histogram_table(chart: Chart) -> Table:
    rows: list[list[Value]] = []
    for series in chart.series:
        edges, counts = histogram([value for value in series.y if value is not None], chart.bins, log=chart.x_log)
        rows += [
            [series.name, low, high, count] for (low, high), count in zip(pairwise(edges), counts, strict=True) if count
        ]
    return Table(["series", f"{chart.x_label or 'value'} from", "to", "count"], rows)


def described(chart: Chart) -> str:
    """Return the chart in one sentence, for a screen reader."""
    if chart.description:
        return chart.description
    names = ", ".join(series.name for series in chart.series)
    axes = f", {chart.y_label} over {chart.x_label}" if chart.x_label and chart.y_label else ""
    return f"{chart.kind.capitalize()} chart: {chart.title}{axes}. Series: {names}."


def _plain(text: str) -> str:
    """Escape text for plotly, which reads some tags and `%{...}` in labels."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _finite(value: Any) -> Any:
    """JSON knows no infinity; a gap in the line says the same."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
