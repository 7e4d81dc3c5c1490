"""Commands about scaling out."""

from pathlib import Path
from typing import Annotated

import typer

from caslon.commands.output import JsonOption, group, print_json, print_table

app = group(no_args_is_help=True, help="Scale a service out.")


@app.callback()
def _deploy() -> None:
    """Scale a service out."""


@app.command()
def simulate(
    arrivals: Annotated[Path, typer.Argument(help="CSV with a column time_seconds, a line for each request")],
    knee_users: Annotated[float, typer.Option(help="requests at once at a replica's knee (caslon bench knee)")],
    answer_seconds: Annotated[float, typer.Option(min=0.1, help="how long an answer takes")],
    slo_wait_seconds: Annotated[float, typer.Option(min=0, help="longest wait that is fine")] = 5.0,
    load: Annotated[str, typer.Option(help="bursty (aims at half of the knee) or steady (80 %)")] = "bursty",
    boot_seconds: Annotated[float, typer.Option(min=0, help="from the decision to a replica's first answer")] = 60.0,
    min_replicas: Annotated[int, typer.Option(min=0, help="never fewer")] = 1,
    max_replicas: Annotated[int, typer.Option(min=1, help="never more")] = 10,
    metric_window_seconds: Annotated[float, typer.Option(min=1, help="time the metric is averaged over")] = 300.0,
    down_window_seconds: Annotated[
        float | None, typer.Option(min=0, help="default: 300 s, or boot time and a minute")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a scaling policy makes of a trace of arrivals: waits beyond the limit, flaps, replica-hours."""
    from dataclasses import asdict

    from caslon.deploy.autoscale import Policy
    from caslon.deploy.simulate import read_arrivals, simulated
    from caslon.settings import checked

    policy = checked(
        Policy, knee_users=knee_users, load=load, boot_seconds=boot_seconds, min_replicas=min_replicas,
        max_replicas=max_replicas, metric_window_seconds=metric_window_seconds, down_window_seconds=down_window_seconds,
    )  # fmt: skip
    outcome = simulated(
        read_arrivals(arrivals), policy, answer_seconds=answer_seconds, slo_wait_seconds=slo_wait_seconds
    )
    if as_json:
        print_json(asdict(outcome))
        return
    rows = [
        ("requests", f"{outcome.requests:,}"),
        (f"waited over {slo_wait_seconds:g} s", f"{outcome.misses:,} ({outcome.misses / outcome.requests:.1%})"),
        ("longest wait", f"{outcome.longest_wait_seconds:.0f} s"),
        ("flaps", outcome.flaps),
        ("most replicas", outcome.most_replicas),
        ("replica-hours", f"{outcome.replica_hours:.2f}"),
    ]
    print_table(("", "with this policy"), rows)
