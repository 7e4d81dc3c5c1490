"""What a report is made of: frozen building blocks that say what to show, not how it looks.

A `Page` has sections, a section has blocks. Values are plain Python numbers and texts; `numbers.py` writes them for people,
`charts.py` draws them and `page.py` puts them on one page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Text:
    """A paragraph of prose; blank lines part paragraphs."""

    text: str


@dataclass(frozen=True)
class Code:
    """Text shown as it is, in a fixed-width face: commands, configurations, source."""

    text: str
    caption: str = ""


@dataclass(frozen=True)
class Notice:
    """One line that must not be overlooked; `level` is `info` or `warning`."""

    text: str
    level: Literal["info", "warning"] = "info"


@dataclass(frozen=True)
class Fact:
    """One key figure: what it is, its value with unit, and a few words on where it comes from."""

    label: str
    value: Value
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Key figures side by side as cards."""

    facts: Sequence[Fact]


@dataclass(frozen=True)
class Table:
    """Rows under named columns. Columns of numbers are aligned right; `emphasis` names the rows to set in the accent."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    caption: str = ""
    emphasis: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Series:
    """One line, bar set, cloud or sample of a chart. For a histogram the values are `y` and `x` stays empty."""

    name: str
    y: Sequence[float | int | None]
    x: Sequence[Value] = ()
    unit: str = ""
    labels: Sequence[str] = ()  # one for each point, shown on hover
    dashed: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line across a chart: a baseline or a limit."""

    name: str
    value: float


@dataclass(frozen=True)
class Chart:
    """A picture of numbers. `description` is read to people who cannot see it; the numbers stand below it as a table."""

    title: str
    series: Sequence[Series]
    kind: Literal["line", "bar", "histogram", "scatter", "heatmap"] = "line"  # a series is a row of a heatmap
    x_label: str = ""
    y_label: str = ""
    x_log: bool = False
    y_log: bool = False
    levels: Sequence[Level] = ()
    bins: int = 40
    horizontal: bool = False  # bars lie, so that long names can be read
    stacked: bool = False
    caption: str = ""
    description: str = ""


@dataclass(frozen=True)
class Charts:
    """Small charts side by side where the screen is wide enough."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class SampleText:
    """Text a model wrote: at a step (or under a setting named by `label`), after a prompt."""

    label: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Samples:
    """Texts under one slider; all texts with the same label are shown together."""

    samples: Sequence[SampleText]
    slider_label: str = "step"
    shown: str = ""  # the label to begin with; the last one when empty


@dataclass(frozen=True)
class PathStep:
    """One box of the path: a name, counts with their names, and a line below."""

    name: str
    counts: Sequence[tuple[str, Value]] = ()
    note: str = ""
    missing: bool = False  # drawn pale: the step is part of the path but has not run


@dataclass(frozen=True)
class Path:
    """The way the data takes, as a row of boxes with what stands at each step."""

    steps: Sequence[PathStep]


@dataclass(frozen=True)
class Details:
    """Blocks folded away under one line until a reader opens them."""

    summary: str
    blocks: Sequence["Block"]


Block = Text | Code | Notice | Facts | Table | Chart | Charts | Samples | Path | Details


@dataclass(frozen=True)
class Section:
    """A heading with blocks below it."""

    title: str
    blocks: Sequence[Block]
    intro: str = ""


@dataclass(frozen=True)
class Page:
    """A whole report. `numbers`, when given, are written beside the page as JSON: every figure of the page in one place."""

    title: str
    subtitle: str
    sections: Sequence[Section]
    kicker: str = "caslon"  # the small line above the title
    footer: str = ""
    numbers: Mapping[str, Any] | None = None
