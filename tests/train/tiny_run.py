"""A training run small enough to be killed and repeated in a test; also a program, which kills itself at a step."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.observe.events import Event, EventLog, Metrics
from caslon.tokenizer.encode import TokenSplit
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.batches import Documents, PackedBatches, WindowBatches
from caslon.train.checkpoint import Checkpoints
from caslon.train.distributed import ALONE, Processes
from caslon.train.extras import Extras, Outcome
from caslon.train.objectives import NextToken, Objective
from caslon.train.plan import TrainPlan
from caslon.train.precision import Compute
from caslon.train.schedule import Schedule
from caslon.train.trainer import Trainer
from caslon.train.validation import fixed_batches

PLAN = TrainPlan(
    steps=40,
    batch=4,
    micro_batch=2,
    context=16,
    schedule=Schedule("cosine", 0.01, 40, 4, 0.001),
    optimizer="muon",
    table_rate_ratio=2.0,
    head_rate_ratio=2.0,
    momentum=0.95,
    beta1=0.9,
    weight_decay=0.1,
    clip=1.0,
    seed=7,
    eval_every=10,
    eval_batches=3,
    save_every=None,
    keep=2,
)
CPU = Compute(torch.device("cpu"), "fp32", "test")
CPU_BF16 = Compute(torch.device("cpu"), "bf16", "test")


def tiny_decoder(tokenizer: Tokenizer, **changes: Any) -> Decoder:
    """Return a fresh decoder of two layers and width 16, with dropout, so that a resumed run must restore it too."""
    fields: dict[str, Any] = {"family": "qwen3", "hidden_size": 16, "num_attention_heads": 2, "dropout": 0.1, **changes}
    decoder = Decoder(DecoderConfig.from_depth(2, vocab_size=tokenizer.vocab_size, context=PLAN.context, **fields))
    decoder.initialise(PLAN.seed)
    return decoder


def documents(tokens_folder: Path, split: str) -> Documents:
    """Return a split as documents."""
    found = TokenSplit.open(tokens_folder / "tokens", split)
    return Documents(found.ids, found.document_starts, found.end_of_text_id)


def tiny_trainer(
    folder: Path,
    tokens_folder: Path,
    events: EventLog,
    *,
    plan: TrainPlan = PLAN,
    objective: Objective | None = None,
    windows: bool = False,
    decoder: Decoder | None = None,
    compute: Compute = CPU,
    processes: Processes = ALONE,
    **extras: Any,
) -> Trainer:
    """Return a trainer whose checkpoints lie below `folder`."""
    tokenizer = Tokenizer.load(tokens_folder)
    decoder = decoder or tiny_decoder(tokenizer)
    checkpoints = folder / "checkpoints"
    kind = WindowBatches if windows else PackedBatches
    held_out = PackedBatches(documents(tokens_folder, "validation"), plan.context, plan.seed)
    usual: dict[str, Any] = {
        "validation": fixed_batches(held_out, plan.batch, plan.eval_batches),
        "sample": lambda model, step: [
            ("a prompt", f"{float(model.logits(model(torch.tensor([[1, 40]], device=model.device))).sum()):.9g}")
        ],
    }
    return Trainer(
        plan,
        decoder,
        objective or NextToken(),
        kind(documents(tokens_folder, "train"), plan.context, plan.seed),
        checkpoints=Checkpoints(checkpoints, plan.keep, events.warn, plan.keep_every, owns=processes.is_first),
        events=events,
        compute=compute,
        save_model=lambda model, path, facts: save_model_folder(path, model, tokenizer, sidecar=facts),
        extras=Extras(**{**usual, **extras}),
        processes=processes,
    )


def train(folder: Path, tokens_folder: Path, **changes: Any) -> Outcome:
    """Run a tiny training to its end, from its last checkpoint if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    with EventLog(folder / "events.jsonl") as events:
        return tiny_trainer(folder, tokens_folder, events, **changes).run()


def _main(folder: Path, tokens_folder: Path, kill_at: int, mode: str, sent: str) -> None:
    torch.set_num_threads(1)

    def end(event: Event) -> None:
        if isinstance(event, Metrics) and event.step == kill_at and "train/loss" in event.values:
            os.kill(os.getpid(), signal.Signals[sent])

    folder.mkdir(parents=True, exist_ok=True)
    with EventLog(folder / "events.jsonl", (end,)) as events:
        plan = replace(PLAN, save_every=5) if mode == "windows" else PLAN
        compute = CPU_BF16 if mode == "bf16" else CPU
        tiny_trainer(folder, tokens_folder, events, plan=plan, windows=mode == "windows", compute=compute).run()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
