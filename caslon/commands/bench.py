"""Commands that measure this machine, and make a model to measure with."""

from pathlib import Path
from typing import Annotated

import typer

from caslon.commands.output import JsonOption, group, print_json, print_table, say

app = group(no_args_is_help=True, help="Measure what options are worth on this machine.")


@app.callback()
def _measure() -> None:
    """Measure what options are worth on this machine."""


@app.command()
def train(
    preset: Annotated[str, typer.Option(help="the shape of the model")] = "nano",
    batch: Annotated[int, typer.Option(min=4, help="rows of a step; a multiple of 4")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="timed steps of each option")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Take steps with one option at a time, and say of each published claim whether it holds here."""
    from caslon.errors import UserError
    from caslon.model.config import DecoderConfig
    from caslon.observe.console import size
    from caslon.train.bench import measure_all, verdicts

    if batch % 4:
        raise UserError(
            f"batch {batch} is not a multiple of 4", fix=f"use {batch - batch % 4} or {batch + 4 - batch % 4}"
        )
    measured = list(measure_all(DecoderConfig.preset(preset), batch, steps))
    claims = verdicts(measured)
    if as_json:
        print_json(
            [
                {
                    "option": one.variant.name,
                    "steps_per_second": one.steps_per_second,
                    "peak_bytes": one.peak_bytes,
                    "failure": one.failure,
                    "published": claims.get(one.variant.name, ("", ""))[0],
                    "verdict": claims.get(one.variant.name, ("", ""))[1],
                }
                for one in measured
            ]
        )
        return
    plain = measured[0]
    print_table(
        ("option", "steps/s", "times plain", "peak memory", "published", "on this machine"),
        [
            (one.variant.name, one.failure, "", "", *claims.get(one.variant.name, ("", "")))
            if one.failure
            else (
                one.variant.name,
                f"{one.steps_per_second:.2f}",
                f"{one.steps_per_second / plain.steps_per_second:.2f}",
                size(one.peak_bytes),
                *claims.get(one.variant.name, ("", "")),
            )
            for one in measured
        ],
    )


@app.command()
def model(
    folder: Annotated[Path, typer.Argument(help="where to write it")],
    seed: Annotated[int, typer.Option(help="same seed, same weights")] = 1,
) -> None:
    """Write a small model with random weights (Llama, 4 layers, 256 wide, 8,704 positions) for load tests."""
    from caslon.model.load_test_model import write_load_test_model

    say(str(write_load_test_model(folder, seed)))
