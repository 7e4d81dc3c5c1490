"""How fast caslon trains on a CPU beside nanoGPT, nanochat, litgpt, transformers' Trainer and helloLondon, in their own loops.

    git clone https://github.com/karpathy/nanoGPT && git clone https://github.com/karpathy/nanochat
    git clone https://github.com/bahree/helloLondon
    python -m venv peers && peers/bin/pip install -e . transformers accelerate litgpt tensorboard wandb rustbpe tiktoken
    python benchmarks/training_peers.py --python peers/bin/python --nanogpt nanoGPT --nanochat nanochat \\
        --hellolondon helloLondon [--shape tiny] [--precision fp32] [--rounds 5] [--steps N] [--only NAME] [--skip NAME]

Every trainer is a process of its own that takes a few steps when it is its turn; only one computes at a time. A set is two ways
of caslon and up to three peers (`--at-once`; memory must hold them all), and what is compared is compared within a set, round by
round. "caslon, same work" does what the peers do: AdamW, attention across documents; "caslon, as it trains" is what a recipe does
by default. Peers train as their authors do on a CPU; where that is not bf16, or costs them speed, a second row says what was
changed. The ceiling is the rate of a product of two 1,536 x 1,536 matrices, measured before every round; a trainer's share of it
counts the products of the shape (6 operations a weight, causal attention at half). What is not there is skipped, and said.
"""

import argparse
import json
import pickle
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.trainers import DOCUMENT_TOKENS, SEED
from peers.turns import Job, Worker, WorkerFailed, in_turns

from caslon.model.config import DecoderConfig
from caslon.model.size import flop_per_token, parameter_counts
from caslon.train.precision import Compute, available_cores, matmul_flops_per_second

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "layers": 6, "width": 384, "heads": 6, "vocabulary": 8_192, "context": 256, "batch": 8, "bias": True,
    },
    "slm": {
        "layers": 12, "width": 768, "heads": 12, "vocabulary": 30_000, "context": 512, "batch": 4, "bias": False,
    },
}  # fmt: skip
STEPS = {"tiny": 6, "slm": 2}
WARM_UP = 3
DOCUMENTS = 2_000
OURS = "caslon, same work"


@dataclass(frozen=True)
class Contender:
    """A way to train: which trainer with which options, and what it is called."""

    name: str
    trainer: str
    options: dict[str, Any] = field(default_factory=dict)
    only_in: str = ""  # a precision


CASLON = (
    Contender(OURS, "caslon", {"optimizer": "adamw", "doc_mask": False}),
    Contender("caslon, same work, compiled", "caslon", {"optimizer": "adamw", "doc_mask": False, "compilation": "on"}),
    Contender("caslon, as it trains", "caslon"),
)
PEERS = (
    Contender("nanoGPT, as its README runs it on a CPU", "nanogpt", {"compile": False}, "fp32"),
    Contender("nanoGPT, compiled", "nanogpt", {"compile": True}, "fp32"),
    Contender("nanoGPT under autocast, which it has on GPUs only", "nanogpt", {"compile": False}, "bf16"),
    Contender("nanoGPT under autocast, compiled", "nanogpt", {"compile": True}, "bf16"),
    Contender("litgpt, compiled", "litgpt"),
    Contender("transformers Trainer", "transformers"),
    Contender("nanochat, compiled", "nanochat"),
    Contender("helloLondon, without its dropout of 0.1", "hellolondon", {"dropout": 0.0}, "fp32"),
    Contender("helloLondon", "hellolondon", {}, "fp32"),
    Contender("helloLondon, bf16 for the fp16 it takes", "hellolondon", {"dropout": 0.0, "dtype": "bfloat16"}, "bf16"),
    Contender("helloLondon, in fp16", "hellolondon", {}, "bf16"),
    Contender("litgpt, compiled, bf16 weights too", "litgpt", {"precision": "bf16-true"}, "bf16"),
)


@dataclass
class Figures:
    """What was measured of one contender in one set."""

    contender: Contender
    seconds: list[float] = field(default_factory=list)  # of a round
    start_seconds: float = 0.0  # from the command to the end of the first step
    facts: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def config_of(shape: dict[str, Any]) -> DecoderConfig:
    """Return a shape as caslon's GPT-2."""
    return DecoderConfig(
        family="gpt2", vocab_size=shape["vocabulary"], hidden_size=shape["width"], num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"], max_position_embeddings=shape["context"], bias=shape["bias"],
    )  # fmt: skip


def write_tokens(folder: Path, shape: dict[str, Any]) -> None:
    """Write random ids as nanoGPT and helloLondon read them: what they are does not change the speed."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(SEED)
    ids = random.integers(1, shape["vocabulary"], DOCUMENTS * DOCUMENT_TOKENS).astype(np.uint16)
    ids[DOCUMENT_TOKENS - 1 :: DOCUMENT_TOKENS] = 0
    ids.tofile(folder / "train.bin")
    ids[: 100 * DOCUMENT_TOKENS].tofile(folder / "val.bin")
    meta = {
        "vocab_size": shape["vocabulary"],
        "block_size": shape["context"],
        "train_tokens": ids.size,
        "val_tokens": 0,
    }
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def sets_of(peers: Sequence[Contender], at_once: int) -> list[list[Contender]]:
    """Return the contenders in sets that are alive together, each with both ways of caslon."""
    groups = [list(peers[start : start + at_once]) for start in range(0, len(peers), at_once)] or [[]]
    return [[*CASLON, *group] for group in groups]


def measure(
    contenders: Sequence[Contender], job: Job, given: argparse.Namespace, steps: int, ceilings: dict[str, list[float]]
) -> list[Figures]:
    """Return what the contenders of one set did in rounds of `steps` steps, and add the ceilings before each round."""
    found = {
        Worker(own_job(job, one, given, number), sys.executable if one in CASLON else given.python): Figures(one)
        for number, one in enumerate(contenders)
    }
    try:
        for worker, figures in found.items():
            figures.start_seconds = taken(worker, figures, 1)
            taken(worker, figures, given.warm_up)
            if not figures.problem:
                print(f"ready: {figures.contender.name}: first step after {figures.start_seconds:.1f} s", flush=True)
        for number in range(given.rounds):
            for precision, rates in ceilings.items():
                rates.append(ceiling(precision))
            for worker in in_turns([one for one, figures in found.items() if not figures.problem], number):
                found[worker].seconds.append(taken(worker, found[worker], steps))
    finally:
        for worker in found:
            worker.close()
    return list(found.values())


def own_job(job: Job, contender: Contender, given: argparse.Namespace, number: int) -> Job:
    """Return the job of a contender, in a folder of its own."""
    source = getattr(given, contender.trainer, None)
    return replace(
        job,
        trainer=contender.trainer,
        work=f"{job.work}/{number}",
        source=str(source.resolve()) if source else "",
        options=contender.options,
    )


def taken(worker: Worker, figures: Figures, steps: int) -> float:
    """Return the seconds of some steps; a worker that fails is noted and asked no more."""
    if figures.problem:
        return 0.0
    try:
        answer = worker.take(steps)
    except WorkerFailed as failure:
        figures.problem = str(failure)
        print(f"skipped: {figures.contender.name}: {failure}", flush=True)
        return 0.0
    seconds = float(answer.pop("seconds"))
    figures.facts = answer
    return seconds


def ceiling(precision: str) -> float:
    """Return the rate of large matrix products now, in FLOP/s."""
    number_format: Any = precision
    return matmul_flops_per_second(Compute(torch.device("cpu"), number_format, "the ceiling"))


def cell(shape_name: str, precision: str, given: argparse.Namespace) -> dict[str, Any]:
    """Measure all contenders at one shape and precision, print the table and return it."""
    shape = SHAPES[shape_name]
    steps = given.steps or STEPS[shape_name]
    chosen = [one for one in PEERS if one.only_in in ("", precision) and is_wanted(one.name.lower(), given)]
    absent = [one for one in chosen if getattr(given, one.trainer, "") is None]
    for one in absent:
        print(f"skipped: {one.name}: no --{one.trainer} DIR")
    ceilings: dict[str, list[float]] = {"fp32": [], "bf16": []}
    rows = []
    with tempfile.TemporaryDirectory() as place:
        write_tokens(Path(place) / "tokenized_data", shape)
        for number, group in enumerate(sets_of([one for one in chosen if one not in absent], given.at_once)):
            job = Job("", f"{place}/{number}", f"{place}/tokenized_data", given.threads, precision, shape=shape)
            figures = measure(group, job, given, steps, ceilings)
            rows += [row(one, figures, number, steps, shape) for one in figures if one.seconds and not one.problem]
    best = {name: max(values) for name, values in ceilings.items()}
    flop = flop_per_token(config_of(shape), shape["context"])
    for found in rows:
        found["share_of_ceiling"] = found["tokens_per_second"] * flop / best[precision]
    print_table(shape_name, precision, shape, rows, best, given, steps)
    return {
        "shape": {"name": shape_name, **shape}, "precision": precision, "steps_of_a_round": steps,
        "flop_per_token": flop, "ceilings_flop_per_second": ceilings, "rows": rows,
    }  # fmt: skip


def is_wanted(name: str, given: argparse.Namespace) -> bool:
    """Return whether --only and --skip let a peer in."""
    return (given.only or "").lower() in name and not any(part.lower() in name for part in given.skip)


def row(one: Figures, all_of_set: Sequence[Figures], number: int, steps: int, shape: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one contender, beside caslon's same work in the same rounds of its set."""
    tokens = steps * shape["batch"] * shape["context"]
    ours = next(other for other in all_of_set if other.contender.name == OURS)
    ratios = [theirs / our for theirs, our in zip(one.seconds, ours.seconds, strict=False)]
    return {
        "trainer": one.contender.name,
        "set": number,
        "tokens_per_second": tokens / statistics.median(one.seconds),
        "range": [tokens / max(one.seconds), tokens / min(one.seconds)],
        "caslon_times_faster": statistics.median(ratios) if ratios else None,
        "start_seconds": one.start_seconds,
        "seconds_of_rounds": one.seconds,
        **one.facts,
    }


def print_table(
    shape_name: str, precision: str, shape: dict[str, Any], rows: list[dict[str, Any]], best: dict[str, float],
    given: argparse.Namespace, steps: int,
) -> None:  # fmt: skip
    print(
        f"\n{shape_name} in {precision}: {parameter_counts(config_of(shape)).trained:,} parameters, "
        f"batch {shape['batch']} x {shape['context']} tokens, {given.threads} threads; "
        f"medians of {given.rounds} rounds of {steps} steps in turns"
    )
    print("ceilings: " + ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in best.items()))
    print(
        "\n| set | trainer | parameters | tokens/s | range | of the ceiling | caslon, same work, is | first step after |"
    )
    print("|---:|---|---:|---:|---|---:|---:|---:|")
    for one in rows:
        low, high = one["range"]
        times = f"{one['caslon_times_faster']:.2f} x" if one["caslon_times_faster"] else ""
        print(
            f"| {one['set'] + 1} | {one['trainer']} | {one['parameters']:,} | {one['tokens_per_second']:,.0f} "
            f"| {low:,.0f} to {high:,.0f} | {one['share_of_ceiling']:.0%} | {times} | {one['start_seconds']:.0f} s |",
            flush=True,
        )


def processor() -> str:
    """Return the name of the processor where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, metavar="DIR", help="a clone of karpathy/nanoGPT")
    parser.add_argument("--nanochat", type=Path, metavar="DIR", help="a clone of karpathy/nanochat")
    parser.add_argument("--hellolondon", type=Path, metavar="DIR", help="a clone of bahree/helloLondon")
    parser.add_argument(
        "--python", default=sys.executable, help="the Python in which the peers' libraries are installed"
    )
    parser.add_argument("--shape", choices=tuple(SHAPES), help="default: both")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: both")
    parser.add_argument("--only", help="only peers whose name holds this")
    parser.add_argument("--skip", action="append", default=[], help="no peers whose name holds this; may be repeated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help="steps of each trainer in a round; 0: 6 at tiny, 2 at slm")
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="steps of each after its first, before the rounds")
    parser.add_argument("--at-once", type=int, default=3, help="peers alive at a time; each holds about 2 GB at slm")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/training_peers.json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    report = {
        "processor": processor(), "threads": given.threads, "rounds": given.rounds, "torch": torch.__version__, "cells": []
    }  # fmt: skip
    for shape in [given.shape] if given.shape else SHAPES:
        for precision in [given.precision] if given.precision else ("fp32", "bf16"):
            report["cells"].append(cell(shape, precision, given))
            given.output.parent.mkdir(parents=True, exist_ok=True)
            given.output.write_text(
                json.dumps(report, indent=2) + "\n", encoding="utf-8"
            )  # after each, hours may follow
    print(f"\nwritten to {given.output}")


if __name__ == "__main__":
    main()
