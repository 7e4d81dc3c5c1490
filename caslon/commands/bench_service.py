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


@app.command()
def monitor(
    url: Annotated[str | None, typer.Option("--url", help="read the metrics of this service")] = None,
    log: Annotated[Path | None, typer.Option("--log", help="follow this log file instead")] = None,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two samples")] = 2.0,
    count: Annotated[int | None, typer.Option(min=1, help="stop after so many samples; default: at Ctrl-C")] = None,
    save: Annotated[Path | None, typer.Option("--save", help="append each sample to this file (JSON lines)")] = None,
    api_key: KeyOption = None,
) -> None:
    """Watch a service: throughput, cache, queue, requests, with alarms when it stands still or its cache is full."""
    import contextlib
    import itertools
    import sys

    import httpx

    from caslon.bench.monitor import Alarms, LogReader, MetricsReader, opened_log, samples
    from caslon.client import is_loopback
    from caslon.commands.bench_monitor import HEADER, MonitorLines
    from caslon.errors import UserError

    if (url is None) == (log is None):
        raise UserError("watch one thing: --url or --log")
    with contextlib.ExitStack() as stack:
        if log is not None:
            reader: LogReader | MetricsReader = LogReader(stack.enter_context(opened_log(log)))
        else:
            assert url is not None
            headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
            http = stack.enter_context(httpx.Client(headers=headers, trust_env=not is_loopback(url)))
            reader = MetricsReader(url.rstrip("/").removesuffix("/v1"), http)
        kept = stack.enter_context(save.open("a", encoding="utf-8")) if save else None
        lines, alarms = MonitorLines(), Alarms()
        say(HEADER)
        for sample in itertools.islice(samples(reader, every), count):
            say(lines.of(sample))
            for alarm in alarms.of(sample):
                say(f"ALARM: {alarm}")
            sys.stdout.flush()
            if kept:
                kept.write(sample.to_json() + "\n")
                kept.flush()


@app.command()
def knee(
    stats: Annotated[Path, typer.Argument(help="stats.csv of benchmarks/locustfile.py")] = Path("stats.csv"),
    peak_qps: Annotated[float | None, typer.Option(min=0, help="requests per second at the busiest hour")] = None,
    window: Annotated[float, typer.Option(min=0.1, help="seconds that are taken together")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Find how many users a service carries before more bring nothing, and how many replicas a peak needs."""
    from dataclasses import asdict

    from caslon.bench.knee import knee_of, read_requests

    found = knee_of(read_requests(stats), window)
    replicas = None if peak_qps is None else found.replicas(peak_qps)
    if as_json:
        print_json({"levels": [asdict(one) for one in found.levels], "knee": asdict(found.peak), "replicas": replicas})
        return
    columns = ("users", "requests/s", "tok/s", "p50 s", "p95 s", "p50 TTFT s", "failed")
    print_table(columns, [[_cell(value) for value in asdict(level).values()] for level in found.levels])
    peak = found.peak
    say(
        f"knee at {peak.users} users of {max(level.users for level in found.levels)}: {peak.requests_per_second:.2f} requests/s, "
        f"{peak.tokens_per_second:,.1f} tok/s, p50 {peak.latency_p50:.2f} s, p95 {peak.latency_p95:.2f} s"
    )
    if replicas is not None:
        say(f"replicas for {peak_qps:g} requests/s: {replicas}")


@app.command()
def cost(
    folder: Annotated[Path, typer.Argument(help="folder of results")],
    prices: Annotated[Path, typer.Option("--prices", help="file (TOML) with a table [[price]] for each hardware")],
    as_json: JsonOption = False,
) -> None:
    """Say what 1,000 tokens cost on each hardware, by your own prices and their dates."""
    from dataclasses import asdict

    from caslon.bench.cost import costs, read_prices
    from caslon.bench.lanes import lanes_of
    from caslon.bench.results import read_folder

    found = list(costs(lanes_of(read_folder(folder)), read_prices(prices)))
    if as_json:
        print_json([{**asdict(one), "per_thousand_tokens": one.per_thousand_tokens} for one in found])
        return
    columns = ("set-up", "hardware", "load", "tok/s", "TTFT ms", "per hour", "per 1,000 tokens", "price of")
    rows = [
        (
            one.label, one.hardware, one.profile, f"{one.output_throughput:,.2f}", f"{one.ttft_ms:,.2f}",
            f"{one.per_hour:,.2f} {one.currency}", f"{one.per_thousand_tokens:.6f} {one.currency}", one.date,
        )
        for one in found
    ]  # fmt: skip
    print_table(columns, rows)
