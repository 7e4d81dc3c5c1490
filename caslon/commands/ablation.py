"""The command that trains a recipe under a list of changes."""

from typing import Annotated

import typer

from caslon.commands.output import RUNS, JsonOption, RunsOption, group, print_json, say
from caslon.commands.recipes import RecipeArgument, SetOption
from caslon.errors import UserError

app = group()


@app.command()
def ablate(
    recipe: RecipeArgument,
    changes: Annotated[
        list[str],
        typer.Option(
            "--change", help="a change to try (repeatable); nine usual ones by default", metavar='"NAME: key=value"'
        ),
    ] = [],  # noqa: B006  typer copies it
    seeds: Annotated[str, typer.Option(help="every change is trained with each of them", metavar="1,2,3")] = "1,2",
    set_: SetOption = [],  # noqa: B006
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe under changes, with equal seeds and steps, and write one table of what each is worth."""
    from caslon import ablate as trial
    from caslon.observe.console import ConsoleDisplay
    from caslon.recipe import load_recipe

    if not all(seed.strip().isdigit() for seed in seeds.split(",")):
        raise UserError(f"--seeds {seeds} is not a list of numbers", fix="write them as in --seeds 1,2,3")
    given = [trial.parsed_change(text) for text in changes] or trial.standard_changes(recipe, set_)
    with ConsoleDisplay() as display:
        rows = trial.ablate(
            recipe,
            given,
            [int(seed) for seed in seeds.split(",")],
            runs,
            overrides=set_,
            listeners=(display,),
            on_run=lambda name: display.console.print(name, style="bold", markup=False),
        )
    path = runs / f"{load_recipe(recipe, set_).name}-ablation.md"
    trial.write_table(rows, path)
    if as_json:
        print_json([row.to_json() for row in rows])
        return
    say(trial.table(rows))
    say(f"kept in {path}")
