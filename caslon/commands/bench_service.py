"""Commands that measure a service and read what was measured."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caslon.commands.bench import app
from caslon.commands.output import JsonOption, print_json, print_table, say, tell

if TYPE_CHECKING:
    from caslon.bench.matrix import Plan
    from caslon.bench.profiles import Profile
    from caslon.bench.results import Result

UrlOption = Annotated[str, typer.Option("--url", help="the service, such as http://127.0.0.1:8000")]
ModelOption = Annotated[str, typer.Option("--model", help="which of its models; needed when it has several")]
KeyOption = Annotated[str | None, typer.Option("--api-key", envvar="CASLON_API_KEY", help="key of the service")]
OutOption = Annotated[Path, typer.Option("--output", help="folder of results")]
TagOption = Annotated[str, typer.Option("--tag", help="name of this run; its results go to a folder of that name")]
HardwareOption = Annotated[
    str | None,
    typer.Option(
        help="descriptor of the machines: a file or a shipped name; default: this machine, for a loopback URL"
    ),
]
DeploymentOption = Annotated[
    Path | None, typer.Option(help="file (TOML) of the operator: launch command, image, status, caveat")
]
VocabOption = Annotated[int | None, typer.Option(help="entries of the vocabulary, where the service does not tell")]
SeedOption = Annotated[int, typer.Option(help="same seed, same prompts")]
WarmupOption = Annotated[int, typer.Option(min=0, help="requests before each load that are not counted")]
DetailedOption = Annotated[bool, typer.Option("--save-detailed", help="keep the time of every piece (itls)")]


@app.command()
def serve(
    url: UrlOption,
    profile: Annotated[str, typer.Option("--profile", help="the load, such as latency-1024x256-c1")],
    model: ModelOption = "",
    output: OutOption = Path("bench"),
    tag: TagOption = "",
    hardware: HardwareOption = None,
    deployment: DeploymentOption = None,
    vocab_size: VocabOption = None,
    seed: SeedOption = 0,
    warmup: WarmupOption = 1,
    save_detailed: DetailedOption = False,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a service with one load; writes a result file and the traces of its requests."""
    from caslon.bench.profiles import profile_named

    plan = _plan(url, model, api_key, vocab_size, hardware, deployment, output, tag, seed, warmup, save_detailed)
    _measured(plan, [profile_named(profile)], as_json)


@app.command()
def matrix(
    url: UrlOption,
    model: ModelOption = "",
    profile: Annotated[list[str], typer.Option("--profile", help="other loads than the contract's (repeatable)")] = [],  # noqa: B006
    scaled: Annotated[bool, typer.Option("--scaled", help="three small loads, for a small machine")] = False,
    output: OutOption = Path("bench"),
    tag: TagOption = "",
    hardware: HardwareOption = None,
    deployment: DeploymentOption = None,
    vocab_size: VocabOption = None,
    seed: SeedOption = 0,
    warmup: WarmupOption = 1,
    save_detailed: DetailedOption = False,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a service with the three loads of the contract; the first is its check of health. Says whether it compares."""
    from caslon.bench.gate import reasons_against
    from caslon.bench.profiles import SCALED, matrix_of

    profiles = matrix_of([*profile, *(SCALED if scaled else ())])
    plan = _plan(url, model, api_key, vocab_size, hardware, deployment, output, tag, seed, warmup, save_detailed)
    results = _measured(plan, profiles, as_json)
    if not as_json:
        reasons = reasons_against(results)
        say("comparable" if not reasons else "not comparable:\n" + "\n".join(f"  {reason}" for reason in reasons))


def _plan(
    url: str,
    model: str,
    api_key: str | None,
    vocab_size: int | None,
    hardware: str | None,
    deployment: Path | None,
    output: Path,
    tag: str,
    seed: int,
    warmup: int,
    with_gaps: bool,
) -> "Plan":
    from dataclasses import replace

    from caslon.bench.deployment import known, read_deployment, told_by
    from caslon.bench.hardware import described_hardware, this_machine
    from caslon.bench.load import Service
    from caslon.bench.matrix import Plan
    from caslon.client import is_loopback
    from caslon.errors import UserError

    service = Service(url.rstrip("/").removesuffix("/v1"), model, vocab_size or 0, api_key)
    machines = described_hardware(hardware) if hardware else this_machine() if is_loopback(url) else None
    told = asyncio.run(told_by(service))
    entries = vocab_size or told["vocab_size"]
    if entries is None:
        raise UserError(
            "the service does not tell the size of its vocabulary", where=url, fix="give it: --vocab-size 32000"
        )
    facts = known(told, read_deployment(deployment), machines)
    service = replace(service, model=told["served_model_name"], vocab_size=entries)
    name = tag or datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return Plan(service, facts, output, name, seed, warmup, with_gaps)


def _measured(plan: "Plan", profiles: "Sequence[Profile]", as_json: bool) -> "list[Result]":
    from caslon.bench.matrix import measure_matrix

    for profile in profiles:
        tell(
            f"{profile.name}: {profile.prompts} prompts of {profile.input_tokens} tokens, {profile.concurrency} at once"
        )
    results = asyncio.run(measure_matrix(plan, profiles, lambda result: tell(f"wrote {result.path}")))
    if as_json:
        print_json([_row(result) for result in results])
    else:
        rows = [_row(result) for result in results]
        print_table(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])
    return results


def _row(result: "Result") -> dict[str, Any]:
    data = result.data
    return {
        "profile": result.profile.name,
        "completed": data["completed"],
        "failed": data["failed"],
        "tok/s": data["output_throughput"],
        "mean TTFT ms": data["mean_ttft_ms"],
        "p99 TTFT ms": data["p99_ttft_ms"],
        "mean TPOT ms": data["mean_tpot_ms"],
        "p99 ITL ms": data["p99_itl_ms"],
        "law": result.law[0] if result.law else None,
    }


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


@app.command()
def report(
    folder: Annotated[Path | None, typer.Argument(help="folder of results; none: the published results alone")] = None,
    output: Annotated[Path | None, typer.Option(help="where to write; default: the folder itself, or bench")] = None,
    published: Annotated[bool, typer.Option("--published", help="show the published results too, apart")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write report.html, .md and .json of the results in a folder: who leads, what scales, what was refused and why."""
    from caslon.bench.report import write_report
    from caslon.bench.results import read_folder
    from caslon.bench.sentences import on_leaders

    results = read_folder(folder) if folder else []
    where = output or folder or Path("bench")
    summary = write_report(where, results, with_published=published)
    if as_json:
        print_json(summary.to_json())
        return
    for sentence in on_leaders(summary):
        say(sentence)
    for label, reasons in summary.refusals.items():
        say(f"{label} is not compared: {'; '.join(reasons)}")
    say(f"report     {where / 'report.html'}")
