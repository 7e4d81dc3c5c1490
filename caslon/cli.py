"""The command line. It parses, calls one function of the library, and prints; heavy libraries load inside the commands.

Exit codes: 0 done, 1 failed, 2 the user's mistake, 3 stopped and resumable, 4 storage, 5 diverged, 6 out of memory, 130 Ctrl-C.
"""

import json
import shutil
import signal
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from caslon import __version__
from caslon.errors import CaslonError, Stopped, UserError

if TYPE_CHECKING:
    from caslon.recipe import Recipe, StageTable
    from caslon.runner import PlannedStage

app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Own your language model: from raw text to a served, observed assistant.",
    epilog="First steps: caslon run recipes/quickstart.toml",
)
tokenizer_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look at a tokenizer and use it.")
app.add_typer(tokenizer_app, name="tokenizer")

RecipeArgument = Annotated[Path, typer.Argument(help="a recipe (.toml)", metavar="RECIPE")]
SetOption = Annotated[
    list[str], typer.Option("--set", help="change one setting: table.key=value (repeatable)", metavar="KEY=VALUE")
]
RunsOption = Annotated[Path, typer.Option("--runs", help="the folder that holds run folders")]
JsonOption = Annotated[bool, typer.Option("--json", help="print the result as JSON")]
ModelArgument = Annotated[str, typer.Argument(help="a model folder, a run folder or a server's URL", metavar="MODEL")]
RUNS = Path("runs")


def main() -> None:
    """Entry point of the `caslon` command."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = app(standalone_mode=False) or 0
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = 2
    except CaslonError as error:
        print_error(error)
        code = error.exit_code
    except ModuleNotFoundError as error:
        print_error(missing_library(error))
        code = 2
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on from here\n")
        code = 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe went away, as `head` does; nothing is wrong
        code = 0
    sys.exit(code)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise Stopped("stopped by a signal", fix="the same command goes on from here")


def print_error(error: CaslonError) -> None:
    """Print an error for people on standard error."""
    sys.stderr.write(f"caslon: {error}\n")


def missing_library(error: ModuleNotFoundError) -> CaslonError:
    """Return the error for a library that is not installed, naming the extra of caslon that brings it."""
    library = (error.name or "").partition(".")[0]
    for requirement in metadata.requires("caslon") or []:
        name, _, extra = requirement.partition("extra ==")
        if name.replace("-", "_").lower().startswith(library.lower()) and extra:
            name = extra.strip().strip("\"'")
            return UserError(
                f"this needs the library '{library}', which is not installed", fix=f'pip install "caslon[{name}]"'
            )
    raise error


def print_json(value: object) -> None:
    """Print a result as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on standard output."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    width = shutil.get_terminal_size((160, 24)).columns
    Console(width=max(width, 80), highlight=False, markup=False).print(table)


def say(text: str = "") -> None:
    """Print a line of result on standard output."""
    sys.stdout.write(text + "\n")


def _version(value: bool) -> None:
    if value:
        say(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    del version


@app.command()
def run(
    recipe: RecipeArgument,
    set_: SetOption = [],  # noqa: B006  typer copies it
    until: Annotated[str | None, typer.Option(help="stop after this stage", metavar="STAGE")] = None,
    only: Annotated[
        str | None, typer.Option(help="do this stage alone; its inputs must be there", metavar="STAGE")
    ] = None,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Do all stages of a recipe that are not done yet, and write the report."""
    from caslon import runner
    from caslon.observe.console import ConsoleDisplay
    from caslon.run_report import write_run_report

    loaded = _loaded(recipe, set_)
    runner.check_extras(loaded)
    with ConsoleDisplay() as display:

        def on_stage(table: "StageTable", state: str) -> None:
            text = f"[{table.name}]" + (" done before, nothing to do" if state == "cached" else "")
            display.console.print(text, style="bold", markup=False)

        folder = runner.run(
            loaded,
            runs,
            until=until,
            only=only,
            command=_command(recipe, set_),
            listeners=(display,),
            on_stage=on_stage,
        )
        report = write_run_report(folder)
    summary = _summary(folder, loaded)
    if as_json:
        print_json({"run": str(folder), "report": str(report), "stages": summary})
    else:
        _print_summary(folder, report, summary)


@app.command()
def train(recipe: RecipeArgument, set_: SetOption = [], runs: RunsOption = RUNS) -> None:  # noqa: B006
    """Do a recipe's stages up to its (first) pretraining: short for run --until pretrain."""
    run(recipe, set_, until="pretrain", only=None, runs=runs, as_json=False)


@app.command()
def plan(recipe: RecipeArgument, set_: SetOption = [], runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:  # noqa: B006
    """Say what a run will do, need and cost, without doing it."""
    from caslon import runner

    planned = runner.plan(_loaded(recipe, set_), runs)
    if as_json:
        print_json([_planned_json(stage) for stage in planned])
        return
    for stage in planned:
        inputs = ", ".join(f"{thing} from {name}" for thing, name in stage.table.inputs.items())
        say(f"[{stage.table.name}] {stage.state}" + (f" | {inputs}" if inputs else ""))
        if stage.rows:
            print_table(
                ("value", "", "unit", "origin"), [(r.name, _figure(r.value), r.unit, r.origin) for r in stage.rows]
            )
    if any(stage.state != "done" for stage in planned):
        say(f"start it: {_command(recipe, set_)}")


@app.command()
def check(recipe: RecipeArgument, set_: SetOption = []) -> None:  # noqa: B006
    """Check a recipe and the libraries it needs; exit 2 with every mistake when something is wrong."""
    from caslon import runner

    loaded = _loaded(recipe, set_)
    runner.check_extras(loaded)
    say(f"{recipe} is in order: {' -> '.join(table.name for table in loaded.stages)}")


@app.command()
def show(recipe: RecipeArgument, set_: SetOption = [], as_json: JsonOption = False) -> None:  # noqa: B006
    """Show every setting of a recipe, defaults included."""
    loaded = _loaded(recipe, set_)
    settings = {table.name: table.settings.model_dump(mode="json") for table in loaded.stages}
    if as_json:
        print_json({"name": loaded.name, "seed": loaded.seed, **settings})
        return
    say(f'name = "{loaded.name}"\nseed = {loaded.seed}')
    for table in loaded.stages:
        say(f"\n[{table.name}]")
        for key, value in settings[table.name].items():
            mark = "" if key in table.settings.model_fields_set else "  # default"
            say(f"{key} = {json.dumps(value, ensure_ascii=False)}{mark}")


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors that complete and check TOML."""
    from caslon.recipe import recipe_schema

    print_json(recipe_schema())


@app.command()
def explain(
    what: Annotated[
        str, typer.Argument(help="a stage folder, a file of a run, or a segment or document id", metavar="WHAT")
    ],
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Trace a model, a file or a training segment back to the raw files it was made from."""
    if Path(what).exists():
        _explain_path(Path(what), as_json)
        return
    from caslon.corpus import lineage

    found = lineage.explain(what, _corpus_holding(what, runs, lineage.knows_segment))
    print_json(found) if as_json else say(lineage.explanation_text(found))


@app.command()
def why(
    document: Annotated[str, typer.Argument(help="a document id", metavar="ID")],
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Say why a document was dropped: the step, the reason and its whole text."""
    from caslon.corpus import lineage

    found = lineage.why(document, _corpus_holding(document, runs, lineage.knows_reject))
    print_json(found) if as_json else say(lineage.why_text(found))


@app.command(name="runs")
def list_runs(runs: RunsOption = RUNS, as_json: JsonOption = False) -> None:
    """List runs with their status, sizes and key figures."""
    from caslon.observe.console import size
    from caslon.run_list import run_rows

    rows = run_rows(runs)
    if as_json:
        print_json([row.__dict__ for row in rows])
        return
    if not rows:
        say(f"no runs in {runs}; start one: caslon run recipes/quickstart.toml")
        return
    print_table(
        ("run", "status", "stages", "size", "validation bits per byte", "last change"),
        [
            (row.name, row.status, " ".join(row.stages), size(row.bytes), _figure(row.val_bpb), row.changed)
            for row in rows
        ],
    )


@app.command()
def report(
    what: Annotated[Path, typer.Argument(help="a run folder, or its name below runs/", metavar="RUN")],
    runs: RunsOption = RUNS,
) -> None:
    """Write a run's HTML report anew and print where it is."""
    from caslon.run_report import write_run_report

    folder = what if what.is_dir() else runs / what
    if not folder.is_dir():
        raise UserError(f"no run at {folder}", fix="see what there is: caslon runs")
    say(str(write_run_report(folder)))


@app.command()
def gc(
    runs: RunsOption = RUNS,
    yes: Annotated[bool, typer.Option("--yes", help="delete; without it only list")] = False,
    as_json: JsonOption = False,
) -> None:
    """Free the disk from results that were set aside and from unfinished stages of runs that are not at work."""
    from caslon.observe.console import size
    from caslon.run_list import collect_garbage

    freed = collect_garbage(runs, delete=yes)
    if as_json:
        print_json([{"folder": str(path), "bytes": count} for path, count in freed])
        return
    for path, count in freed:
        say(f"{'deleted' if yes else 'would delete'} {path} ({size(count)})")
    if freed and not yes:
        say("delete them: caslon gc --yes")
    elif not freed:
        say("nothing to delete")


def _loaded(recipe: Path, overrides: Sequence[str]) -> "Recipe":
    from caslon.recipe import load_recipe

    return load_recipe(recipe, overrides)


def _command(recipe: Path, overrides: Sequence[str]) -> str:
    import shlex

    return shlex.join(["caslon", "run", str(recipe), *(part for text in overrides for part in ("--set", text))])


def _figure(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _planned_json(stage: "PlannedStage") -> dict[str, Any]:
    return {
        "stage": stage.table.name,
        "state": stage.state,
        "key": stage.key,
        "inputs": dict(stage.table.inputs),
        "values": [row.__dict__ for row in stage.rows],
    }


def _summary(folder: Path, recipe: "Recipe") -> list[dict[str, Any]]:
    from caslon.folders import MANIFEST, StageFolder

    opened = [StageFolder.open(folder / t.name) for t in recipe.stages if (folder / t.name / MANIFEST).is_file()]
    return [
        {
            "stage": stage.manifest.stage,
            "folder": str(stage.path),
            "seconds": stage.manifest.seconds,
            "digest": stage.digest,
            "totals": stage.manifest.totals,
        }
        for stage in opened
    ]


def _print_summary(folder: Path, report: Path, summary: list[dict[str, Any]]) -> None:
    from caslon.observe.console import duration
    from caslon.run_list import key_figures

    say()
    for stage in summary:
        say(f"{stage['stage']:<14} {duration(stage['seconds']):>12}   {key_figures(stage['totals'])}")
    models = [Path(stage["folder"]) / "model" for stage in summary if (Path(stage["folder"]) / "model").is_dir()]
    say(f"\nreport   {report}")
    if not models:
        return
    say(f"model    {models[-1]}")
    say(f"\nchat     caslon chat {models[-1]}")
    say(f"serve    caslon serve {models[-1]}")
    say(f"retrain  caslon run {folder / 'recipe.toml'} --set pretrain.steps=...")


def _explain_path(path: Path, as_json: bool) -> None:
    from caslon.lineage import ancestors, file_entry

    entry = file_entry(path)
    chain = ancestors(path)
    if as_json:
        print_json(
            {"file": entry, "stages": [{"read_as": a.read_as, **_manifest_json(a.folder.manifest)} for a in chain]}
        )
        return
    if entry:
        state = "unchanged since it was written" if entry["intact"] else "CHANGED since it was written"
        say(f"{entry['file']}  sha256 {entry['sha256']}  {state}")
    for ancestor in chain:
        manifest = ancestor.folder.manifest
        say(f"{'  ' * ancestor.depth}{ancestor.folder.path}  digest {manifest.digest[:16]}  made {manifest.started}")
        for source, digest in manifest.sources.items():
            say(f"{'  ' * (ancestor.depth + 1)}{source}  sha256 {digest[:16]}")


def _manifest_json(manifest: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(manifest.to_json())
    return loaded


def _corpus_holding(identity: str, runs: Path, knows: Any) -> Path:
    """Return the corpus folder that knows an id; newest run first."""
    folders = sorted(runs.glob("*/corpus"), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in folders:
        if knows(identity, folder):
            return folder
    searched = ", ".join(str(folder) for folder in folders) or f"no corpus below {runs}"
    raise UserError(
        f"no id '{identity}'", where=searched, fix="ids stand in the report and in corpus/rejects/*.parquet"
    )
