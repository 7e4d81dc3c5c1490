"""How commands print: JSON, tables and lines on standard output, errors on standard error."""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

RunsOption = Annotated[Path, typer.Option("--runs", help="the folder that holds run folders")]
JsonOption = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
RUNS = Path("runs")
PIPE_COLUMNS = 200


def group(**options: object) -> typer.Typer:
    """Return a group of commands in the house's way: plain help that needs no rich, no traceback dressing."""
    return typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, **options)  # type: ignore[arg-type]


def print_json(value: object) -> None:
    """Print a result as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on standard output, as wide as the terminal or, for a file, a program or a pipe, 200; nothing is cut."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(*(Column(name, overflow="fold") for name in columns), box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    width = max(shutil.get_terminal_size().columns, 80) if sys.stdout.isatty() else PIPE_COLUMNS
    Console(width=width, highlight=False, markup=False).print(table)


def say(text: str = "") -> None:
    """Print a line of result on standard output."""
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """Print a line for people on standard error, beside the result."""
    sys.stderr.write(text + "\n")


def figure(value: object) -> str:
    """Return a value as people read it: thousands separated, four digits of a float."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
