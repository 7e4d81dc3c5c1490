"""Commands about scaling laws: fit one to own runs, predict a loss, find the best size for a budget."""

from pathlib import Path
from typing import Annotated

import typer

from caslon.commands.output import RUNS, JsonOption, RunsOption, figure, group, print_json, print_table, say

app = group(no_args_is_help=True, help="Fit a scaling law to own runs, and foretell larger ones.")

CONSTANTS = ("E", "A", "B", "a", "b")


@app.command()
def fit(
    folders: Annotated[list[Path], typer.Argument(help="run folders, or folders that hold runs", metavar="RUNS...")],
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Fit loss = E + A/N^a + B/D^b to finished runs, with 95 % intervals, and keep the law below the runs folder."""
    from caslon.train import scaling

    found = scaling.fit(scaling.points_of_runs(folders))
    path = runs / scaling.FILE
    runs.mkdir(parents=True, exist_ok=True)
    scaling.save(found, path)
    if as_json:
        values = {name: {"value": getattr(found.law, name), "interval": found.interval(name)} for name in CONSTANTS}
        print_json({"law": values, "runs": [point.__dict__ for point in found.points], "file": str(path)})
        return
    rows = [(point.name, point.parameters, point.tokens, point.loss) for point in found.points]
    print_table(
        ("run", "parameters N", "tokens D", "loss", "law"),
        [(*map(figure, row), figure(found.law.loss(row[1], row[2]))) for row in rows],
    )
    say("loss = E + A/N^a + B/D^b")
    for name in CONSTANTS:
        low, high = found.interval(name)
        say(f"{name} = {figure(getattr(found.law, name))}   95 % interval {figure(low)} to {figure(high)}")
    say(f"\npredict  caslon scale predict PARAMETERS TOKENS\nbudget   caslon scale optimal FLOPS\nkept in  {path}")


@app.command()
def predict(
    parameters: Annotated[float, typer.Argument(min=1, help="trained parameters, as in 1e8")],
    tokens: Annotated[float, typer.Argument(min=1, help="tokens seen, as in 2e9")],
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Foretell the validation loss of a run from the law that was fitted."""
    from caslon.train import scaling

    found = scaling.load(runs / scaling.FILE)
    loss, (low, high) = found.predict(parameters, tokens)
    far = found.extrapolates(parameters, tokens)
    if as_json:
        print_json({"loss": loss, "interval": [low, high], "extrapolation": far})
        return
    say(f"loss {loss:.4f} nats a token, 95 % interval {low:.4f} to {high:.4f}")
    if far:
        say(
            "extrapolation: more than ten times outside the runs the law was fitted to; the interval does not cover that"
        )


@app.command()
def optimal(
    flops: Annotated[float, typer.Argument(min=1, help="the work that may be spent, as in 1e18", metavar="FLOPS")],
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Say which size and length a budget suits: by 20 tokens for a parameter, and by the law that was fitted."""
    from caslon.train import scaling

    parameters, tokens = scaling.compute_optimal(flops)
    found = scaling.load(runs / scaling.FILE) if (runs / scaling.FILE).is_file() else None
    own = found.optimal(flops) if found and found.law.A > 0 and found.law.B > 0 else None
    far = bool(found and own and found.extrapolates(*own))
    if as_json:
        law = {"parameters": own[0], "tokens": own[1], "extrapolation": far} if own else None
        print_json({"rule_of_20": {"parameters": parameters, "tokens": tokens}, "law": law})
        return
    say(f"by 20 tokens for a parameter: {parameters / 1e6:.1f} M parameters, {tokens / 1e9:.3f} B tokens")
    if own:
        note = "   extrapolation: more than ten times outside the runs" if far else ""
        say(f"by the law of your own runs:  {own[0] / 1e6:.1f} M parameters, {own[1] / 1e9:.3f} B tokens{note}")
    elif found is None:
        say("a law of your own: caslon scale fit RUNS")
