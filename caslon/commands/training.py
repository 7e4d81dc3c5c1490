"""Commands about training: train, resume, rewind. All of them are the runner's work, and so go on where they were stopped."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caslon.commands.output import RUNS, JsonOption, RunsOption, group, tell
from caslon.commands.recipes import RecipeArgument, SetOption, carry_out, loaded_recipe, next_step_told
from caslon.errors import UserError
from caslon.folders import PARTIAL, discard, lock, reopen

if TYPE_CHECKING:
    from caslon.recipe import Recipe

app = group()

KIND = "pretrain"
FALLBACKS = ("fallback_to_cpu", "fallback_to_fp32")

RunArgument = Annotated[str, typer.Argument(help="the name or the folder of a run", metavar="RUN")]
FallbackOption = Annotated[
    bool, typer.Option("--allow-fallback", help="train on the CPU, or in fp32, where what is asked for is not there")
]


@app.command()
def train(
    recipe: RecipeArgument,
    set_: SetOption = [],  # noqa: B006  typer copies it
    allow_fallback: FallbackOption = False,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="set an earlier training of this name aside and begin anew")
    ] = False,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Do a recipe's stages up to its pretraining; goes on where it was stopped."""
    from caslon import runner

    loaded = loaded_recipe(recipe, set_)
    if allow_fallback:
        loaded = loaded_recipe(recipe, [*set_, *_fallbacks(loaded)])
    runner.check_extras(loaded)
    run_folder = runs / loaded.name
    with next_step_told(run_folder, recipe):
        if from_scratch:
            with lock(run_folder):
                discard(run_folder / KIND, run_folder / runner.SUPERSEDED)
        elif other := runner.other_work(loaded, runs, KIND):
            raise _occupied(other, run_folder)
        words = [str(recipe), *(part for text in set_ for part in ("--set", text))]
        command, rest = (shlex.join(["caslon", verb, *words]) for verb in ("train", "run"))
        carry_out(
            loaded,
            lambda **hooks: runner.run(loaded, runs, until=KIND, command=command, **hooks),
            rest=rest,
            as_json=as_json,
        )


@app.command()
def resume(
    run: RunArgument,
    set_: SetOption = [],  # noqa: B006
    allow_change: Annotated[
        bool, typer.Option("--allow-change", help="go on although --set changes the training, and note the change")
    ] = False,
    allow_fallback: FallbackOption = False,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that was stopped or killed, from its newest intact checkpoint, to where it was to end."""
    from caslon import runner
    from caslon.recipe import recipe_of_run

    folder = _run_folder(run, runs)
    loaded = recipe_of_run(folder)
    with next_step_told(folder, folder / "recipe.toml"):
        begun = runner.begun_stage(loaded, folder.parent)
        changes = [*set_, *(_fallbacks(loaded) if allow_fallback else [])]
        if changes:
            loaded = _changed(loaded, folder, begun, changes, allowed=allow_change or not set_)
        _go_on(loaded, folder, begun, allow_change=allow_change, as_json=as_json)


@app.command()
def rewind(
    run: RunArgument,
    steps: Annotated[int, typer.Option(min=1, help="how far to go back; to the nearest checkpoint that is kept")] = 100,
    lr_scale: Annotated[float, typer.Option(min=0, help="factor of the learning rate afterwards")] = 0.1,
    for_: Annotated[int, typer.Option("--for", min=0, help="steps at that rate; then the schedule holds again")] = 200,
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Go back to an earlier checkpoint and train on from there with a lower rate; the course so far is kept in lines/."""
    from caslon import runner
    from caslon.recipe import recipe_of_run
    from caslon.train.checkpoint import Checkpoints
    from caslon.train.lines import rewind as go_back
    from caslon.train.session import CHECKPOINTS_FOLDER

    folder = _run_folder(run, runs)
    loaded = recipe_of_run(folder)
    with next_step_told(folder, folder / "recipe.toml"):
        stage = runner.begun_stage(loaded, folder.parent) or KIND
        partial = folder / (stage + PARTIAL)
        with lock(folder):
            if not partial.is_dir():
                reopen(folder / stage)
            checkpoints = Checkpoints(partial / CHECKPOINTS_FOLDER, 1, tell)
            done = go_back(partial, checkpoints, steps=steps, lr_scale=lr_scale, for_steps=for_)
        what = done.describe(lr_scale, for_)
        tell(f"{what}; the course so far is in {done.line}")
        loaded = recipe_of_run(folder, [_history(loaded, stage, [what])])
        _go_on(loaded, folder, stage, allow_change=True, as_json=as_json)


def _go_on(loaded: "Recipe", folder: Path, begun: str | None, *, allow_change: bool, as_json: bool) -> None:
    from caslon import runner

    command = shlex.join(["caslon", "resume", str(folder)])

    def work(**hooks: Any) -> Path:
        if begun is not None:
            runner.go_on(loaded, folder.parent, begun, allow_change=allow_change, command=command, **hooks)
        if begun is not None and runner.recorded_end(folder) == begun:
            return folder
        return runner.run(loaded, folder.parent, until=runner.recorded_end(folder), command=command, **hooks)

    carry_out(loaded, work, rest=f"caslon run {folder / 'recipe.toml'}", as_json=as_json)


def _changed(loaded: "Recipe", folder: Path, begun: str | None, changes: Sequence[str], *, allowed: bool) -> "Recipe":
    """Return the recipe with changes, noted in the history of the stage that was begun; `UserError` when not allowed."""
    from caslon.recipe import recipe_of_run

    changed = recipe_of_run(folder, changes)
    if begun is None:
        return changed
    before, after = (recipe.stage(begun).settings.output_settings() for recipe in (loaded, changed))
    told = [
        f"{begun}.{key}: {_shown(before, key)} -> {_shown(after, key)}"
        for key in after
        if before.get(key) != after[key]
    ]
    if told and not allowed:
        raise UserError(
            f"the run was begun with other settings: {'; '.join(told)}",
            where=str(folder / (begun + PARTIAL)),
            fix="give --allow-change to go on with the new ones, or leave --set out",
        )
    return recipe_of_run(folder, [*changes, _history(loaded, begun, told)]) if told else changed


def _shown(values: Mapping[str, Any], key: str) -> str:
    return "derived" if values.get(key) is None else str(values[key])


def _history(recipe: "Recipe", stage: str, what: Sequence[str]) -> str:
    """Return the override that appends to the history of a stage."""
    kept = list(getattr(recipe.stage(stage).settings, "history", ()))
    return f"{stage}.history={json.dumps([*kept, *what])}"


def _fallbacks(recipe: "Recipe") -> list[str]:
    return [
        f"{table.name}.{key}=true"
        for table in recipe.stages
        for key in FALLBACKS
        if key in type(table.settings).model_fields
    ]


def _run_folder(run: str, runs: Path) -> Path:
    return runs / run if (runs / run).is_dir() else Path(run)


def _occupied(other: Path, run_folder: Path) -> UserError:
    state = "begun" if other.name.endswith(PARTIAL) else "finished"
    return UserError(
        f"this run folder holds a {state} training with other settings or data",
        where=str(other),
        fix=f"go on with that one: caslon resume {run_folder}; or give this one a name: --set name=...; "
        "or begin anew: --from-scratch",
    )
