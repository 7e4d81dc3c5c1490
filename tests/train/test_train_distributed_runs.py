"""Whole runs of several processes against runs of one: losses, evaluations, files, decisions, another number of processes."""

import math
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from several_processes import in_processes
from tiny_run import PLAN, tiny_decoder, tiny_trainer

from caslon.errors import OutOfMemory, Stopped
from caslon.model.decoder import Decoder
from caslon.observe.events import EventLog, metric_values, read_events
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.batches import Batch
from caslon.train.checkpoint import Checkpoints
from caslon.train.distributed import ALONE, Processes
from caslon.train.objectives import LossSum, NextToken
from caslon.train.plan import TrainPlan
from caslon.train.trainer import Trainer

STEPS = 20
TWENTY = replace(PLAN, steps=STEPS, schedule=replace(PLAN.schedule, steps=STEPS), keep=5)
FOUR = replace(TWENTY, steps=4, eval_every=2, eval_batches=1)


def trained(
    processes: Processes,
    folder: Path,
    tokens_folder: Path,
    parallel: Any,
    plan: TrainPlan = TWENTY,
    trouble: tuple[str, int] = ("none", 0),
) -> str:
    """Train without dropout, as several processes do, and return how it ended."""
    events_file = folder / "events.jsonl" if processes.is_first else None
    whole = tiny_decoder(Tokenizer.load(tokens_folder), dropout=0.0)
    seconds = 8 if trouble[0] == "hangs" else 50
    collectives = processes.collectives("run", parallel=parallel, cpu_offload=False, timeout_seconds=seconds)
    try:
        with EventLog(events_file) as events, collectives as several:
            decoder = several.build(lambda: whole, whole.config)
            trainer = tiny_trainer(folder, tokens_folder, events, plan=plan, decoder=decoder, processes=several)
            if processes.rank == 1:
                trainer.objective = Troubled(trainer, *trouble)
            outcome = trainer.run()
    except (Stopped, OutOfMemory) as error:
        return f"{type(error).__name__}: {error}"
    return f"step {outcome.step}, best {outcome.best_step}"


class Troubled(NextToken):
    """Next-token training that meets trouble in its process alone, at a step or from it on."""

    def __init__(self, trainer: Trainer, kind: str, step: int) -> None:
        super().__init__()
        for name, value in {"trainer": trainer, "kind": kind, "step": step}.items():
            object.__setattr__(self, name, value)  # a frozen dataclass is what it stands for

    def loss(self, decoder: Decoder, batch: Batch) -> LossSum:
        part, now = super().loss(decoder, batch), self.trainer.progress.step + 1  # type: ignore[attr-defined]
        if not decoder.training or now < self.step:  # type: ignore[attr-defined]
            return part
        match self.kind:  # type: ignore[attr-defined]
            case "memory" if batch.ids.size(0) > 1:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            case "nan" if now == self.step:  # type: ignore[attr-defined]
                return LossSum(part.sum * math.nan, part.count, part.metrics)
            case "signal":
                self.trainer.stop.ask("SIGTERM")  # type: ignore[attr-defined]
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hangs":
                time.sleep(60)
        return part


def series(folder: Path, name: str) -> list[float]:
    return [value for _, value in metric_values(folder / "events.jsonl")[name]]


def checkpoint(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:06d}"


def in_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.promise("pretraining", "two processes lose what one loses over 20 steps, as DDP and as FSDP, to 1e-5")
@pytest.mark.promise("pretraining", "one process evaluates with the others, and it alone writes the joint files")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_losses_and_evaluations_are_those_of_one_process(
    tokens_folder: Path, tmp_path: Path, parallel: str, optimizer: Any
) -> None:
    plan = replace(TWENTY, optimizer=optimizer, micro_batch=1)
    one, two = in_folder(tmp_path / "one"), in_folder(tmp_path / "two")
    assert (
        in_processes(2, trained, two, tokens_folder, parallel, plan)
        == [trained(ALONE, one, tokens_folder, parallel, plan)] * 2
    )
    for name in ("train/loss", "train/grad_norm", "eval/val_loss", "eval/val_accuracy", "eval/train_loss"):
        assert series(two, name) == pytest.approx(series(one, name), abs=1e-5), name
    assert series(two, "eval/val_tokens") == series(one, "eval/val_tokens")
    kept = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (one, two)]
    assert kept[0] == kept[1]
    weights = [load_file(checkpoint(folder, STEPS) / "model.safetensors") for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 1e-4
    samples = [record for record in read_events(two / "events.jsonl") if record["kind"] == "sample"]
    assert [record["step"] for record in samples] == [10, 20]
    states = sorted(path.name for path in checkpoint(two, STEPS).glob("optim*"))
    parts = ["optim-00001-of-00002.safetensors", "optim-00002-of-00002.safetensors"]
    assert states == (parts if parallel == "fsdp" else ["optim.safetensors"])


def next_loss(processes: Processes, folder: Path, tokens_folder: Path, parallel: Any) -> float:
    """Go on from the newest checkpoint below `folder` for one step; the first process returns its loss."""
    trained(processes, folder, tokens_folder, parallel, FOUR)
    return series(folder, "train/loss")[2] if processes.is_first else math.nan


@pytest.mark.promise("pretraining", "what two FSDP processes saved goes on in one and in four with the same next loss")
def test_a_run_goes_on_with_another_number_of_processes(tokens_folder: Path, tmp_path: Path) -> None:
    first = in_folder(tmp_path / "two")
    in_processes(2, trained, first, tokens_folder, "fsdp", FOUR)
    shutil.rmtree(checkpoint(first, 4))
    expected = series(first, "train/loss")[2]
    for world, parallel in ((1, "ddp"), (4, "fsdp")):
        folder = tmp_path / f"{world}"
        shutil.copytree(first, folder, symlinks=True)
        arguments = (folder, tokens_folder, parallel)
        found = next_loss(ALONE, *arguments) if world == 1 else in_processes(world, next_loss, *arguments)[0]
        assert any(record["kind"] == "resumed" for record in read_events(folder / "events.jsonl"))
        assert found == pytest.approx(expected, abs=1e-5), world


@pytest.mark.promise("pretraining", "processes skip a step, stop, and take a smaller micro-batch together")
def test_trouble_of_one_process_is_everybodys(tokens_folder: Path, tmp_path: Path) -> None:
    plan = replace(FOUR, eval_every=4, micro_batch=4)
    folders = {kind: in_folder(tmp_path / kind) for kind in ("none", "memory", "nan", "signal")}
    ends = {
        kind: in_processes(2, trained, folder, tokens_folder, "ddp", plan, (kind, 2))
        for kind, folder in folders.items()
    }
    assert ends["none"] == ends["memory"] == ["step 4, best 4"] * 2
    assert series(folders["memory"], "train/loss") == pytest.approx(series(folders["none"], "train/loss"), abs=1e-5)
    notes = [record["text"] for record in read_events(folders["memory"] / "events.jsonl") if record["kind"] == "note"]
    assert notes == ["out of memory: going on with micro-batches of 1, 2 of them a step"]
    steps = [step for step, _ in metric_values(folders["nan"] / "events.jsonl")["train/loss"]]
    assert steps == [1, 3, 4]
    assert all(text.startswith("Stopped: stopped by") and "after step 2 of 4" in text for text in ends["signal"])
    assert checkpoint(folders["signal"], 2).is_dir()


@pytest.mark.promise(
    "pretraining", "no memory within a step of fsdp ends the run with advice, as it cannot be repeated"
)
def test_fsdp_ends_with_advice_when_memory_runs_out(tokens_folder: Path, tmp_path: Path) -> None:
    ends = in_processes(
        2, trained, tmp_path, tokens_folder, "fsdp", replace(TWENTY, steps=2, micro_batch=2), ("memory", 1), ended=1
    )
    assert "OutOfMemory: out of memory within a step" in ends[1]
    assert "set micro_batch = 1" in ends[1]


@pytest.mark.promise(
    "pretraining", "a process that is killed ends the others within 60 s, and the last checkpoint stays whole"
)
@pytest.mark.parametrize("trouble", ["killed", "hangs"])
def test_a_dead_process_ends_the_others(tokens_folder: Path, tmp_path: Path, trouble: str) -> None:
    plan = replace(TWENTY, steps=8, save_every=2, eval_every=8)
    began = time.monotonic()
    first, _ = in_processes(2, trained, tmp_path, tokens_folder, "ddp", plan, (trouble, 6), ended=0)
    assert "RuntimeError" in first
    assert time.monotonic() - began < 60
    found = Checkpoints(tmp_path / "checkpoints", 3, lambda _: None).newest_intact()
    assert found is not None and found.step == 4
