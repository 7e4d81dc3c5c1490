"""How fast caslon trains, beside transformers' eager models trained the way nanoGPT trains: same shape, batch, context, machine.

    python benchmarks/training.py [--rounds 7] [--steps 4] [--threads 0] [--depth 4] [--precision fp32] [--output FILE]

Trainers take turns, a few steps each, so that a noisy machine is noisy for all; the figure is the median over the rounds. Both
families are measured. "caslon, same work" does what the peer does: AdamW, attention across documents. "caslon, as it trains" is
what a recipe does by default: Muon, attention that stops at the borders of documents. On a CPU; in bf16 the
peer runs under torch's autocast, as nanoGPT does.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from caslon.model.config import DecoderConfig, Family
from caslon.model.decoder import Decoder
from caslon.observe.events import EventLog
from caslon.train.batches import Documents, PackedBatches
from caslon.train.checkpoint import Checkpoints
from caslon.train.objectives import NextToken
from caslon.train.optimizer import OptimizerName
from caslon.train.plan import TrainPlan
from caslon.train.precision import Compute, choose_compute
from caslon.train.schedule import Schedule
from caslon.train.settings import DeviceSettings
from caslon.train.trainer import Trainer

VOCAB_SIZE = 4_096
CONTEXT = 256
BATCH = 8
DOCUMENT_TOKENS = 700
SEED = 1

Step = Callable[[], None]


@dataclass(frozen=True)
class Contender:
    """A way to train, as a function that takes one step."""

    family: str
    name: str
    step: Step


def documents(count: int = 400) -> Documents:
    """Return documents of random ids: what is in them does not change the speed."""
    random = np.random.default_rng(SEED)
    ids = random.integers(1, VOCAB_SIZE, size=count * DOCUMENT_TOKENS).astype(np.uint16)
    ids[DOCUMENT_TOKENS - 1 :: DOCUMENT_TOKENS] = 0
    return Documents(ids, np.arange(count + 1, dtype=np.int64) * DOCUMENT_TOKENS, end_id=0)


def shape(family: Family, depth: int) -> DecoderConfig:
    """Return the shape that all contenders of a family share."""
    return DecoderConfig.from_depth(depth, family=family, vocab_size=VOCAB_SIZE, context=CONTEXT)


def caslon_step(config: DecoderConfig, optimizer: OptimizerName, *, mask: bool, compute: Compute, folder: Path) -> Step:
    """Return one step of caslon's trainer: batch, loss, gradients, clipping, update, log."""
    plan = TrainPlan(
        steps=1_000_000, batch=BATCH, micro_batch=BATCH, context=CONTEXT,
        schedule=Schedule("constant", 1e-3, 1_000_000), optimizer=optimizer, table_rate_ratio=1.0, head_rate_ratio=1.0,
        momentum=0.95, beta1=0.9, weight_decay=0.1, clip=1.0, seed=SEED, eval_every=1_000_000, eval_batches=1, save_every=None,
        keep=1,
    )  # fmt: skip
    decoder = Decoder(config)
    decoder.initialise(SEED)
    trainer = Trainer(
        plan,
        decoder.train(),
        NextToken(),
        PackedBatches(documents(), CONTEXT, SEED, mask),
        checkpoints=Checkpoints(folder, keep=1, warn=print),
        events=EventLog(None),
        compute=compute,
        save_model=lambda _model, _folder, _facts: None,
    )
    return lambda: _taken(trainer)


def _taken(trainer: Trainer) -> None:
    assert trainer._step(), "a benchmark step was skipped"


def transformers_step(config: DecoderConfig, compute: Compute) -> Step:
    """Return one step of nanoGPT's loop around a transformers model with eager attention and torch's AdamW."""
    from transformers import AutoConfig, AutoModelForCausalLM

    values = config.to_json()
    peer = AutoConfig.for_model(values.pop("model_type"), **values)
    model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        peer, attn_implementation="eager", dtype=torch.float32
    ).train()
    model.config.use_cache = False
    decayed = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))
    batches = PackedBatches(documents(), CONTEXT, SEED, mask_documents=False)
    done = 0

    def step() -> None:
        nonlocal done
        batch = batches.batch(done, BATCH)
        with compute.autocast():
            logits = model(input_ids=batch.ids).logits
            loss = torch.nn.functional.cross_entropy(logits.view(-1, logits.size(-1)), batch.targets.view(-1))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done += 1

    return step


@contextmanager
def contenders(depth: int, compute: Compute) -> Iterator[list[Contender]]:
    """Build everything that is measured."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for family in ("gpt2", "qwen3"):
            config = shape(family, depth)
            place = Path(folder) / family
            found += [
                Contender(family, "transformers, eager", transformers_step(config, compute)),
                Contender(
                    family,
                    "caslon, same work",
                    caslon_step(config, "adamw", mask=False, compute=compute, folder=place / "same"),
                ),
                Contender(
                    family,
                    "caslon, as it trains",
                    caslon_step(config, "muon", mask=True, compute=compute, folder=place / "default"),
                ),
            ]
        yield found


def measure(found: list[Contender], rounds: int, steps: int) -> dict[tuple[str, str], list[float]]:
    """Return tokens per second of each round, taken in turns after one round to warm up."""
    speeds: dict[tuple[str, str], list[float]] = {(one.family, one.name): [] for one in found}
    for number in range(rounds + 1):
        for one in found:
            began = time.perf_counter()
            for _ in range(steps):
                one.step()
            seconds = time.perf_counter() - began
            if number:
                speeds[one.family, one.name].append(steps * BATCH * CONTEXT / seconds)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="steps of each contender in a round")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/training.json"))
    given = parser.parse_args()

    import transformers

    compute = choose_compute(DeviceSettings(device="cpu", precision=given.precision, threads=given.threads))
    with contenders(given.depth, compute) as found:
        speeds = measure(found, given.rounds, given.steps)
    rows = []
    for (family, name), values in speeds.items():
        median = statistics.median(values)
        peer = statistics.median(speeds[family, "transformers, eager"])
        spread = [min(values), max(values)]
        row = {
            "family": family,
            "trainer": name,
            "tokens_per_second": median,
            "range": spread,
            "times_peer": median / peer,
        }
        rows.append(row)
    print(f"depth {given.depth}, vocabulary {VOCAB_SIZE:,}, batch {BATCH} x {CONTEXT} tokens, {compute.precision}, "
          f"{torch.get_num_threads()} threads; medians of {given.rounds} rounds of {given.steps} steps in turns")  # fmt: skip
    print("\n| family | trainer | tokens/s | range | times the peer |\n|---|---|---:|---|---:|")
    for row in rows:
        low, high = cast(tuple[float, float], row["range"])
        print(
            f"| {row['family']} | {row['trainer']} | {row['tokens_per_second']:,.0f} | {low:,.0f} to {high:,.0f} "
            f"| {row['times_peer']:.2f} |"
        )
    result = {
        "depth": given.depth, "vocab_size": VOCAB_SIZE, "batch": BATCH, "context_tokens": CONTEXT, "precision": compute.precision,
        "threads": torch.get_num_threads(), "machine": platform.machine(), "rounds": given.rounds, "steps": given.steps,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__}, "rows": rows,
    }  # fmt: skip
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {given.output}")


if __name__ == "__main__":
    main()
