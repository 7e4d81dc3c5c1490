"""How well caslon and nanoGPT model a small text after how many seconds of training on a CPU, each by its own recipe.

    git clone https://github.com/karpathy/nanoGPT
    python benchmarks/time_to_quality.py tiny-shakespeare.txt --nanogpt nanoGPT [--recipe recipes/nano.toml] [--output FILE]

nanoGPT runs its `train.py` with the flags that its README gives for a CPU; every `--recipe` of caslon is one more contender. They
learn from the first nine tenths of the text and take turns, a part of their steps each. After each part all are scored by the
same code on the same bytes: bits per byte of the last tenth, in windows of the model's own context that move by half of it.
Seconds are those of training, without these measurements; what comes before the first step stands beside them. Without a text or
without nanoGPT, what can be measured is.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peers.turns import Job, Worker, WorkerFailed, in_turns

from caslon.train.precision import available_cores


@dataclass
class Curve:
    """What one recipe reached: points of steps, seconds and bits per byte."""

    name: str
    start_seconds: float
    facts: dict[str, Any]
    points: list[dict[str, float]] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Steps of the whole recipe."""
        return int(self.facts["steps"])

    def seconds_to(self, bits_per_byte: float) -> float | None:
        """Return the seconds after which a measurement was as low as that, between two on a straight line."""
        before: dict[str, float] | None = None
        for point in self.points:
            if point["bits_per_byte"] <= bits_per_byte:
                if before is None:
                    return point["seconds"]
                fall = before["bits_per_byte"] - point["bits_per_byte"]
                share = (before["bits_per_byte"] - bits_per_byte) / fall
                return before["seconds"] + share * (point["seconds"] - before["seconds"])
            before = point
        return None


def jobs(given: argparse.Namespace, place: str) -> dict[str, Job]:
    """Return the recipes that can be trained, by name."""
    text = str(given.text.resolve())
    found = {}
    for number, recipe in enumerate(given.recipe or [Path("recipes/nano.toml")]):
        options = {"recipe": str(recipe.resolve()), "set": given.set}
        job = Job("caslon_recipe", f"{place}/caslon{number}", text, given.threads, options=options)
        found[f"caslon, {recipe.name}"] = job
    if given.nanogpt is None:
        print("skipped: nanoGPT: no --nanogpt DIR")
        return found
    source = str(given.nanogpt.resolve())
    flags = dict(flag.split("=", 1) for flag in given.nanogpt_flag)
    nanogpt = Job("nanogpt_recipe", f"{place}/nanogpt", text, given.threads, source=source, options=numbers(flags))
    name = "nanoGPT, README's CPU recipe" + "".join(f", {flag}" for flag in given.nanogpt_flag)
    return {**found, name: nanogpt}


def numbers(flags: dict[str, str]) -> dict[str, Any]:
    """Return flags with their values read as numbers and truth values."""
    return {name: json.loads(value.lower()) for name, value in flags.items()}


def train(workers: dict[Worker, Curve], parts: int, share: float) -> None:
    """Take every recipe's steps in so many parts, in turns, up to a share of all, and add a point after each part."""
    for part in range(parts):
        for worker in in_turns(list(workers), part):
            curve = workers[worker]
            done = curve.points[-1] if curve.points else {"step": 1, "seconds": 0.0}
            goal = max(int(done["step"]) + 1, round(share * curve.steps * (part + 1) / parts))
            answer = worker.take(goal - int(done["step"]), measure=True)
            point = {"step": goal, "seconds": done["seconds"] + answer["seconds"], "bits_per_byte": answer["value"]}
            curve.points.append(point)
            print(
                f"{curve.name}: step {goal:,} of {curve.steps:,}, {point['seconds']:.1f} s, "
                f"{point['bits_per_byte']:.4f} bits per byte",
                flush=True,
            )


def print_table(curves: list[Curve]) -> None:
    print(
        "\n| recipe | parameters | steps | before the first | seconds | bits per byte |\n|---|---:|---:|---:|---:|---:|"
    )
    for curve in curves:
        for point in curve.points:
            print(
                f"| {curve.name} | {curve.facts['parameters']:,} | {point['step']:,} | {curve.start_seconds:.1f} s "
                f"| {point['seconds']:.1f} | {point['bits_per_byte']:.4f} |"
            )
    for goal in curves:
        last = goal.points[-1]
        for curve in curves:
            seconds = curve.seconds_to(last["bits_per_byte"])
            if curve is goal or seconds is None:
                continue
            print(
                f"\n{curve.name} is at the {last['bits_per_byte']:.4f} bits per byte of {goal.name} after {seconds:.1f} s, "
                f"{last['seconds'] / seconds:.2f} times as fast"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="?", default=Path("tiny-shakespeare.txt"))
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a clone of karpathy/nanoGPT")
    parser.add_argument("--nanogpt-flag", action="append", default=[], metavar="NAME=VALUE", help="instead of README's")
    parser.add_argument("--recipe", type=Path, action="append", help="of caslon; default recipes/nano.toml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `caslon run`")
    parser.add_argument("--python", default=sys.executable, help="the Python that runs nanoGPT")
    parser.add_argument("--parts", type=int, default=20, help="measurements of each")
    parser.add_argument("--share", type=float, default=1.0, help="of each recipe's steps; less for a trial")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/time_to_quality.json"))
    given = parser.parse_args()
    if not given.text.is_file():
        print(f"no text at {given.text}: nothing measured")
        return
    workers: dict[Worker, Curve] = {}
    with tempfile.TemporaryDirectory() as place:
        try:
            for name, job in jobs(given, place).items():
                worker = Worker(job, given.python if job.source else sys.executable)
                try:
                    facts = worker.take(1)
                except WorkerFailed as failure:
                    print(f"skipped: {name}: {failure}")
                    continue
                workers[worker] = Curve(name, facts.pop("seconds"), facts)
            if not workers:
                return
            sizes = {curve.facts["bytes"] for curve in workers.values()}
            assert len(sizes) == 1, f"not the same bytes are scored: {sizes}"
            train(workers, given.parts, given.share)
        finally:
            for worker in workers:
                worker.close()
    curves = list(workers.values())
    print_table(curves)
    report = {
        "text_bytes": given.text.stat().st_size, "scored_bytes": sizes.pop(), "threads": given.threads,
        "torch": torch.__version__, "curves": [vars(curve) for curve in curves],
    }  # fmt: skip
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {given.output}")


if __name__ == "__main__":
    main()
