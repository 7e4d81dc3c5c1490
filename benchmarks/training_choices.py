"""Measures what a choice of training costs or gains in loss: bf16 beside fp32, Muon beside AdamW, moments of 8 bits.

The `nano` shape reads the bytes of a text (9/10 to learn from, the rest to measure). For Muon the share of AdamW's steps is given
after which its validation loss is as low as AdamW's at the end.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.observe.events import EventLog, metric_values
from caslon.train.batches import Documents, PackedBatches, WindowBatches
from caslon.train.checkpoint import Checkpoints
from caslon.train.extras import Extras
from caslon.train.objectives import NextToken
from caslon.train.plan import TABLE_RATE_RATIO, TrainPlan
from caslon.train.precision import choose_compute
from caslon.train.schedule import Schedule
from caslon.train.settings import DeviceSettings
from caslon.train.trainer import Trainer
from caslon.train.validation import fixed_batches

CONTEXT = 128
EVALUATIONS = 50
RATES = {"muon": 3e-3, "adamw": 3e-3}
CHOICES = {
    "muon, fp32": ("muon", "fp32", "fp32"),
    "muon, bf16": ("muon", "fp32", "bf16"),
    "adamw, fp32": ("adamw", "fp32", "fp32"),
    "adamw, fp32, moments of 8 bits": ("adamw", "int8", "fp32"),
}


def plan_of(choice: str, steps: int, batch: int, seed: int) -> TrainPlan:
    optimizer, state, _ = CHOICES[choice]
    peak = RATES[optimizer]
    return TrainPlan(
        steps=steps,
        batch=batch,
        micro_batch=batch,
        context=CONTEXT,
        schedule=Schedule("cosine", peak, steps, min(100, steps // 10), 0.1 * peak),
        optimizer=optimizer,  # type: ignore[arg-type]
        optimizer_state=state,  # type: ignore[arg-type]
        table_rate_ratio=TABLE_RATE_RATIO[optimizer],
        head_rate_ratio=TABLE_RATE_RATIO[optimizer],
        momentum=0.95,
        beta1=0.9,
        weight_decay=0.1,
        clip=1.0,
        seed=seed,
        eval_every=max(1, steps // EVALUATIONS),
        eval_batches=20,
        save_every=None,
        keep=1,
    )


def documents(data: bytes) -> Documents:
    ids = np.frombuffer(data, dtype=np.uint8).astype(np.int64)
    return Documents(ids, np.array([0, len(ids)]), end_id=0)


def losses(text: bytes, choice: str, steps: int, batch: int, seed: int) -> list[tuple[int, float]]:
    """Return the validation losses of one run by step."""
    plan = plan_of(choice, steps, batch, seed)
    compute = choose_compute(DeviceSettings(device="cpu", precision=CHOICES[choice][2]))
    decoder = Decoder(replace(DecoderConfig.preset("nano", vocab_size=256), max_position_embeddings=CONTEXT))
    decoder.initialise(seed)
    cut = len(text) * 9 // 10
    training = WindowBatches(documents(text[:cut]), CONTEXT, seed)
    held_out = PackedBatches(documents(text[cut:]), CONTEXT, seed, False)
    with tempfile.TemporaryDirectory() as name, EventLog(Path(name) / "events.jsonl") as events:
        Trainer(
            plan,
            decoder,
            NextToken(),
            training,
            checkpoints=Checkpoints(Path(name) / "checkpoints", 1, print),
            events=events,
            compute=compute,
            save_model=lambda _model, _folder, _facts: None,
            extras=Extras(validation=fixed_batches(held_out, batch, plan.eval_batches)),
        ).run()
        return metric_values(Path(name) / "events.jsonl")["eval/val_loss"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/training_choices.json"))
    given = parser.parse_args()
    text = given.text.read_bytes()
    found = {
        choice: [losses(text, choice, given.steps, given.batch, seed) for seed in range(1, given.seeds + 1)]
        for choice in CHOICES
    }
    base = {"muon": "muon, fp32", "adamw": "adamw, fp32"}
    print(f"nano, {given.steps} steps of {given.batch} x {CONTEXT} bytes, {given.seeds} seeds")
    print("\n| choice | validation loss | change |\n|---|---:|---:|")
    for choice, runs in found.items():
        loss = statistics.mean(run[-1][1] for run in runs)
        beside = statistics.mean(run[-1][1] for run in found[base[CHOICES[choice][0]]])
        print(f"| {choice} | {loss:.4f} | {loss / beside - 1:+.2%} |")
    shares = []
    for ours, theirs in zip(found["muon, fp32"], found["adamw, fp32"], strict=True):
        reached = [step for step, loss in ours if loss <= theirs[-1][1]]
        shares.append((reached[0] if reached else float("inf")) / given.steps)
    print(f"\nMuon is as low as AdamW at its end after {statistics.mean(shares):.0%} of the steps")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps({**vars(given), "text": given.text.name, "output": "", "losses": found}) + "\n")


if __name__ == "__main__":
    main()
