"""Commands about recipes: run, plan, check, show, schema."""

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caslon.commands.memory import memory
from caslon.commands.output import RUNS, JsonOption, RunsOption, figure, group, print_json, print_table, say
from caslon.commands.processes import started_processes
from caslon.errors import CaslonError, Diverged, OutOfMemory, UserError

if TYPE_CHECKING:
    from caslon.recipe import Recipe, StageTable
    from caslon.runner import PlannedStage
    from caslon.settings import Settings

app = group()
TRAINING_KINDS = ("pretrain", "finetune")
ADVICE = "advice"  # the origin of rows that are sentences; they stand behind the others

RecipeArgument = Annotated[Path, typer.Argument(help="a recipe (.toml)", metavar="RECIPE")]
SetOption = Annotated[
    list[str], typer.Option("--set", help="change one setting: table.key=value (repeatable)", metavar="KEY=VALUE")
]


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

    loaded = loaded_recipe(recipe, set_)
    runner.check_extras(loaded)
    with next_step_told(runs / loaded.name, recipe):
        carry_out(
            loaded,
            lambda **hooks: runner.run(loaded, runs, until=until, only=only, command=_command(recipe, set_), **hooks),
            rest=_command(recipe, set_),
            as_json=as_json,
        )


def carry_out(loaded: "Recipe", work: Callable[..., Path], *, rest: str, as_json: bool) -> None:
    """Do work on a run with its progress in the terminal, write the report, and print what there is and what comes next.

    `work` takes the runner's `listeners`, `on_stage` and `processes`, and returns the run folder; `rest` is the command for
    what it leaves.
    """
    from caslon.observe.console import ConsoleDisplay
    from caslon.run_report import write_run_report

    done_now: list[str] = []
    with ConsoleDisplay() as display:

        def on_stage(table: "StageTable", state: str) -> None:
            done_now.extend([] if state == "cached" else [table.name])
            text = f"[{table.name}]" + (" done before, nothing to do" if state == "cached" else "")
            display.console.print(text, style="bold", markup=False)

        folder = work(listeners=(display,), on_stage=on_stage, processes=started_processes())
        report = write_run_report(folder)
    summary = _summary(folder, loaded)
    if as_json:
        print_json({"run": str(folder), "report": str(report), "stages": summary})
    else:
        for name in done_now:
            _print_training(folder / name, loaded.stage(name).settings)
        _print_summary(folder, report, summary, _to_do(rest, loaded, summary))


@contextmanager
def next_step_told(run_folder: Path, recipe: Path) -> Iterator[None]:
    """Let the last line of whatever goes wrong say which command to run next."""
    commands = {
        UserError.exit_code: f"caslon check {recipe}",
        Diverged.exit_code: f"caslon rewind {run_folder} --steps 100 --lr-scale 0.1 --for 200",
        OutOfMemory.exit_code: f"caslon plan {recipe}",
    }
    try:
        yield
    except CaslonError as error:
        error.next = error.next or commands.get(error.exit_code, f"caslon resume {run_folder}")
        raise
    except Exception as error:
        error.add_note(f"next: caslon resume {run_folder}")
        raise


class _PlanCommands(typer.core.TyperGroup):
    """`caslon plan` with a first word that is none of its commands is about a recipe, as `caslon run` is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["recipe", *args]
        return super().parse_args(ctx, args)


plan_app = group(
    cls=_PlanCommands, no_args_is_help=True, help="Say what work will do, need and cost, without doing it."
)
plan_app.command()(memory)
app.add_typer(plan_app, name="plan")


@plan_app.command("recipe")
def plan(
    words: Annotated[
        list[str],
        typer.Argument(help="a recipe (.toml); after the word train only its training", metavar="[train] RECIPE"),
    ],
    device: Annotated[str, typer.Option(help="this, or A30, A100, H100, H200", metavar="NAME")] = "this",
    price: Annotated[float | None, typer.Option(min=0, help="of an hour of the device", metavar="PER_HOUR")] = None,
    set_: SetOption = [],  # noqa: B006
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Say what a run will do, need and cost, without doing it: caslon plan RECIPE."""
    from caslon import runner

    recipe, only_training = _planned_recipe(words)
    planned = runner.plan(loaded_recipe(recipe, set_), runs, device=device, price_per_hour=price)
    if only_training:
        planned = [stage for stage in planned if stage.table.kind in TRAINING_KINDS]
    if as_json:
        print_json([_planned_json(stage) for stage in planned])
        return
    for stage in planned:
        inputs = ", ".join(f"{thing} from {name}" for thing, name in stage.table.inputs.items())
        say(f"[{stage.table.name}] {stage.state}" + (f" | {inputs}" if inputs else ""))
        rows = [row for row in stage.rows if row.origin != ADVICE]
        if rows:
            print_table(("value", "", "unit", "origin"), [(r.name, *_shown(r.value, r.unit), r.origin) for r in rows])
        for row in stage.rows:
            if row.origin == ADVICE:
                say(f"{row.name.rstrip(' 0123456789')}: {row.value}")
    if any(stage.state != "done" for stage in planned):
        say(f"\nstart it: {_command(recipe, set_)}")


def _shown(value: Any, unit: str) -> tuple[str, str]:
    """Return a planned value and its unit as people read them: `8.5 GB` for bytes, `36 min 0 s` for seconds."""
    from caslon.observe.console import duration, size

    if unit == "bytes":
        return size(value), ""
    if unit == "s":
        return duration(value), ""
    return (f"{value:.4g}" if unit == "FLOP" else figure(value)), unit


def _planned_recipe(words: Sequence[str]) -> tuple[Path, bool]:
    if len(words) == 1:
        return Path(words[0]), False
    if len(words) == 2 and words[0] == "train":
        return Path(words[1]), True
    raise UserError(f"cannot plan '{' '.join(words)}'", fix="caslon plan RECIPE, or caslon plan train RECIPE")


@app.command()
def check(recipe: RecipeArgument, set_: SetOption = [], as_json: JsonOption = False) -> None:  # noqa: B006
    """Check a recipe and the libraries it needs; exit 2 with every mistake when something is wrong."""
    from caslon import runner

    loaded = loaded_recipe(recipe, set_)
    runner.check_extras(loaded)
    stages = [table.name for table in loaded.stages]
    print_json({"recipe": str(recipe), "stages": stages}) if as_json else say(
        f"{recipe} is in order: {' -> '.join(stages)}"
    )


@app.command()
def show(recipe: RecipeArgument, set_: SetOption = [], as_json: JsonOption = False) -> None:  # noqa: B006
    """Show every setting of a recipe, defaults included."""
    loaded = loaded_recipe(recipe, set_)
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


def loaded_recipe(recipe: Path, overrides: Sequence[str]) -> "Recipe":
    """Return a checked recipe."""
    from caslon.recipe import load_recipe

    try:
        return load_recipe(recipe, overrides)
    except UserError as error:
        error.next = f"caslon check {recipe}"
        raise


def _command(recipe: Path, overrides: Sequence[str]) -> str:
    return shlex.join(["caslon", "run", str(recipe), *(part for text in overrides for part in ("--set", text))])


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


def _print_training(stage: Path, settings: "Settings") -> None:
    """Print what came of a stage that trained something."""
    from caslon.report.summary import training_summary

    found = training_summary(stage / "events.jsonl")
    if found:
        say(f"\n{stage.name}")
        for line in found.lines(getattr(settings, "price_per_hour", None)):
            say(f"  {line}")


def _to_do(command: str, loaded: "Recipe", summary: list[dict[str, Any]]) -> str:
    """Return the command for the stages which are left, with their names; empty when none is."""
    left = [table.name for table in loaded.stages if table.name not in {stage["stage"] for stage in summary}]
    return f"{command}   ({', '.join(left)})" if left else ""


def _print_summary(folder: Path, report: Path, summary: list[dict[str, Any]], to_do: str) -> None:
    from caslon.observe.console import duration
    from caslon.run_list import key_figures

    say()
    for stage in summary:
        say(f"{stage['stage']:<14} {duration(stage['seconds']):>12}   {key_figures(stage['totals'])}")
    models = [Path(stage["folder"]) / "model" for stage in summary if (Path(stage["folder"]) / "model").is_dir()]
    say(f"\nreport   {report}")
    if not models:
        say(f"next     {to_do or 'caslon runs'}")
        return
    say(f"model    {models[-1]}\n")
    say(f"retrain  caslon run {folder / 'recipe.toml'} --set pretrain.steps=...")
    say(f"serve    caslon serve {models[-1]}")
    say(f'generate caslon generate {models[-1]} --prompt "The "')
    say(f"next     {to_do or f'caslon chat {models[-1]}'}")
