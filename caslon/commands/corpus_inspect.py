"""The command `caslon corpus inspect`: one file, step by step, in the terminal or as a page."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from caslon.commands.output import JsonOption, print_json
from caslon.commands.recipes import SetOption

if TYPE_CHECKING:
    from rich.console import Console

    from caslon.corpus.inspect import InspectedDocument, Inspection
    from caslon.corpus.registry_entry import SourceEntry
    from caslon.corpus.settings import CorpusSettings

SHOWN_SEGMENTS = 10
SHOWN_FILES = 10
STYLES = {"changed": "yellow", "rejected": "red", "unchanged": "green"}
LINE_STYLES = {"-": "red", "+": "green", "@": "cyan"}


def inspect(
    file: Annotated[Path, typer.Argument(help="a raw file or archive", metavar="FILE")],
    recipe: Annotated[
        Path | None, typer.Option(help="a recipe, for its settings and what its sources say of the file")
    ] = None,
    set_: SetOption = [],  # noqa: B006  typer copies it
    tier: Annotated[str, typer.Option(help="general, gutenberg, historical, web or code")] = "",
    documents: Annotated[int, typer.Option(min=0, help="of the file to look at; 0: all", metavar="N")] = 3,
    html: Annotated[Path | None, typer.Option(help="write a page instead", metavar="PAGE")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a build makes of one file: type, every step before and after, scores beside thresholds, the verdict."""
    from caslon.corpus.inspect import inspect as inspected

    settings, entries = _settings_and_entries(recipe, set_)
    found = inspected(file, settings, Path.cwd(), entries, tier=tier, documents=documents)
    if html is not None:
        from caslon.corpus.inspect_page import page_of
        from caslon.report.page import write_page

        write_page(html, page_of(found))
    if as_json:
        print_json(found.to_json())
    elif html is not None:
        typer.echo(str(html))
    else:
        _print(found)


def _settings_and_entries(
    recipe: Path | None, overrides: list[str]
) -> "tuple[CorpusSettings, tuple[SourceEntry, ...]]":
    """Return a recipe's corpus settings and sources; the defaults and none without a recipe."""
    from caslon.corpus.settings import CorpusSettings
    from caslon.recipe import load_recipe
    from caslon.stages.corpus import load_entries

    with TemporaryDirectory() as folder:
        if recipe is None:
            path = Path(folder) / "defaults.toml"
            path.write_text('name = "inspect"\n[corpus]\n', encoding="utf-8")
        else:
            path = recipe
        stage = load_recipe(path, overrides).stage("corpus")
    settings = CorpusSettings.model_validate(stage.settings.model_dump())
    return settings, load_entries(settings, Path.cwd()) if recipe else ()


def _print(found: "Inspection") -> None:
    from rich.console import Console

    width = max(shutil.get_terminal_size((120, 24)).columns, 80)
    console = Console(width=width, highlight=False, markup=False, soft_wrap=True)
    for file in found.files[:SHOWN_FILES]:
        encoding = f", {file.encoding}" if file.encoding else ""
        language = f", {file.language}" if file.language else ""
        console.print(
            f"{file.address}: {file.kind}{language}{encoding}, {file.bytes:,} bytes, sha-256 {file.sha256[:16]}"
        )
        for warning in file.warnings:
            console.print(f"  warning: {warning}", style="yellow")
    if len(found.files) > SHOWN_FILES:
        console.print(f"... and {len(found.files) - SHOWN_FILES:,} more files")
    if not found.registered:
        console.print("no source of a recipe holds this file: default facts are used")
    for document in found.documents:
        _print_document(console, document)
    if not found.complete:
        console.print("\nthe file holds more documents; look at them with --documents N, or 0 for all")


def _print_document(console: "Console", document: "InspectedDocument") -> None:
    year = f", {document.year}" if document.year else ""
    console.print(
        f"\n{document.id}  {document.title or 'no title'}{year}, tier {document.tier or 'unknown'}", style="bold"
    )
    console.print(f"from {document.address}")
    for stage in document.stages:
        size = f"{stage.characters_before:,} -> {stage.characters_after:,} characters" if stage.characters_after else ""
        said = "  ".join(part for part in (size, stage.note) if part)
        console.print(f"{stage.name:<18}{stage.outcome:<13}{said}", style=STYLES.get(stage.outcome, "dim"))
        for line in stage.differences.lines:
            console.print(f"    {line}", style=LINE_STYLES.get(line[:1]))
        if stage.differences.left_out:
            console.print(f"    ... and {stage.differences.left_out:,} more lines")
    _print_scores(console, document)
    for piece in document.segments[:SHOWN_SEGMENTS]:
        console.print(f"{piece.id or piece.code:<24}{piece.characters:>6,} characters  {piece.begins}")
    if len(document.segments) > SHOWN_SEGMENTS:
        console.print(f"... and {len(document.segments) - SHOWN_SEGMENTS:,} more segments")
    style = "bold green" if document.verdict == "kept" else "bold red"
    console.print(f"verdict: {document.verdict}" + (f": {document.reason}" if document.reason else ""), style=style)


def _print_scores(console: "Console", document: "InspectedDocument") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    if not document.scores:
        return
    table = Table("score", "value", "limit", "", "", box=SIMPLE_HEAD, pad_edge=False)
    for score in document.scores:
        word = {True: "ok", False: f"outside: {score.code}", None: ""}[score.passed]
        table.add_row(score.name, f"{score.value:g}", score.limits, word, score.note)
    console.print(table)
