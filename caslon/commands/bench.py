"""Commands that measure this machine, and make a model to measure with."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from caslon.commands.output import JsonOption, group, print_json, print_table, say, tell

app = group(no_args_is_help=True, help="Measure services, engines and what options are worth.")


@app.callback()
def _measure() -> None:
    """Measure services, engines and what options are worth."""


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
    preset: Annotated[str | None, typer.Option(help="another shape, such as slm-qwen3")] = None,
    dtype: Annotated[Literal["float32", "bfloat16"], typer.Option(help="number format of the weights")] = "float32",
) -> None:
    """Write a model with random weights for load tests: a Llama of 4 layers, 256 wide, or a preset; 8,704 positions."""
    from caslon.model.load_test_model import write_load_test_model

    say(str(write_load_test_model(folder, seed, preset=preset, dtype=dtype)))


@app.command()
def engine(
    model: Annotated[Path, typer.Argument(help="a model, stage or run folder", metavar="MODEL")],
    beside: Annotated[
        list[str],
        typer.Option("--beside", help="programs to compare with (repeatable); default: all that are installed"),
    ] = [],  # noqa: B006  typer copies it
    options: Annotated[str, typer.Option(help="settings of caslon's engine, such as weights=int8,kernels=torch")] = "",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each program; default: all cores")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda, for all programs")] = "cpu",
    dtype: Annotated[str, typer.Option(help="number format, for all programs")] = "float32",
    rounds: Annotated[int, typer.Option(min=1, help="timed rounds of each load, in turns")] = 3,
    answer_tokens: Annotated[int, typer.Option(min=8, help="tokens of an answer in the decode loads")] = 128,
    output: Annotated[Path | None, typer.Option(help="write the figures as JSON here")] = None,
    as_json: JsonOption = False,
) -> None:
    """Set the engine beside other programs: prefill, first token, decoding in batches, mixed requests, memory, load time."""
    import json
    import os

    from caslon.commands.bench_engine import print_comparison
    from caslon.folders import write_atomic
    from caslon.model.folder import ModelFolder
    from caslon.model.size import parameter_counts
    from caslon.peers.ceilings import measured_ceilings, read_bytes, shares
    from caslon.peers.compare import Measured, compare
    from caslon.peers.loads import fitting, loads
    from caslon.peers.peer import PEERS, Setting, is_installed, parsed_spec
    from caslon.run_list import model_folder_of

    folder = model_folder_of(model)
    config = ModelFolder.open(folder).config
    others = beside or [name for name in PEERS if name != "caslon" and is_installed(name)]
    specs = [parsed_spec(text) for text in [f"caslon:{options}" if options else "caslon", *others]]
    setting = Setting(folder, threads or os.cpu_count() or 1, device, dtype, {})
    context = config.max_position_embeddings
    chosen, too_long = fitting(loads(config.vocab_size, context, answer_tokens=answer_tokens), context)
    programs: list[Measured] = []
    ceilings = measured_ceilings(dtype, setting.threads) if device == "cpu" else None
    for load, programs in compare(specs, setting, chosen, rounds):  # noqa: B007  the last has everything
        tell(f"measured: {load.name}")
    if ceilings is not None:
        ceilings = ceilings.or_more(measured_ceilings(dtype, setting.threads))
    parameters = parameter_counts(config).trained
    reached = (
        []
        if ceilings is None
        else list(shares(config, read_bytes(config, options, dtype), programs[0].figures, ceilings))
    )
    record = {
        "model": str(folder),
        "parameters": parameters,
        "threads": setting.threads,
        "device": device,
        "rounds": rounds,
        "ceilings": None if ceilings is None else {"flops": ceilings.flops, "bytes": ceilings.bytes},
        "shares_of_ceilings": {load: share for load, share, _ in reached},
    }
    figures = {**record, "programs": [program.to_json() for program in programs], "not_fitting": too_long}
    if output is not None:
        write_atomic(output, json.dumps(figures, indent=2) + "\n")
    print_json(figures) if as_json else print_comparison(chosen, programs, too_long, parameters, ceilings, reached)
