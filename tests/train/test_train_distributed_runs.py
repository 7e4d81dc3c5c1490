"""Whole runs of several processes against runs of one: losses, evaluations, files, decisions, another number of processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from several_processes import in_processes
from tiny_run import PLAN, tiny_decoder, tiny_trainer

from caslon.errors import OutOfMemory, Stopped
from caslon.observe.events import EventLog, metric_values, read_events
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.batches import Batch
from caslon.train.distributed import ALONE, Processes
from caslon.train.objectives import NextToken, Objective
from caslon.train.plan import TrainPlan

STEPS = 20
TWENTY = replace(PLAN, steps=STEPS, schedule=replace(PLAN.schedule, steps=STEPS), keep=5)


def trained(
    processes: Processes,
    folder: Path,
    tokens_folder: Path,
    parallel: Any,
    plan: TrainPlan = TWENTY,
    objective: Objective | None = None,
    stop_at: int | None = None,
) -> str:
    """Train without dropout, as several processes do, and return how it ended."""
    events_file = folder / "events.jsonl" if processes.is_first else None
    whole = tiny_decoder(Tokenizer.load(tokens_folder), dropout=0.0)
    with (
        EventLog(events_file) as events,
        processes.collectives("run", parallel=parallel, cpu_offload=False, timeout_seconds=20) as several,
    ):
        decoder = several.build(lambda: whole, whole.config)
        trainer = tiny_trainer(
            folder, tokens_folder, events, plan=plan, decoder=decoder, processes=several, objective=objective
        )
        if stop_at is not None and processes.rank == processes.world - 1:
            trainer.objective = StopsAt(trainer, stop_at)
        try:
            outcome = trainer.run()
        except (Stopped, OutOfMemory) as error:
            return f"{type(error).__name__}: {error}"
    return f"step {outcome.step}, best {outcome.best_step}"


class StopsAt(NextToken):
    """Next-token training whose process is asked to stop at a step."""

    def __init__(self, trainer: Any, step: int) -> None:
        super().__init__()
        object.__setattr__(self, "trainer", trainer)
        object.__setattr__(self, "step", step)

    def count(self, batch: Batch) -> int:
        if self.trainer.progress.step + 1 == self.step:  # type: ignore[attr-defined]
            self.trainer.stop.ask("SIGTERM")  # type: ignore[attr-defined]
        return super().count(batch)


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
