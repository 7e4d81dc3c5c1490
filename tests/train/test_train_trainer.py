import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import CPU_BF16, PLAN, documents, tiny_decoder, tiny_trainer, train
from torch import Tensor

from caslon.errors import Diverged, OutOfMemory, Stopped, StorageError, UserError
from caslon.folders import sha256_of_file
from caslon.model.decoder import Decoder
from caslon.observe.events import EventLog, metric_values, read_events
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.batches import Batch, PackedBatches
from caslon.train.checkpoint import refuse_changes
from caslon.train.objectives import LossSum, NextToken
from caslon.train.precision import choose_compute
from caslon.train.settings import DeviceSettings

QUICK = replace(PLAN, steps=6, eval_every=3, schedule=replace(PLAN.schedule, steps=6))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, tokens_folder: Path) -> Path:
    """A run of 40 steps that nothing interrupted."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    train(folder, tokens_folder)
    return folder


def digests(folder: Path, step: int) -> dict[str, str]:
    checkpoint = folder / "checkpoints" / f"step-{step:06d}"
    return {file.name: sha256_of_file(file) for file in sorted(checkpoint.iterdir())}


def repeated(folder: Path) -> list[tuple[str, Any]]:
    """Return what must be the same in every repetition of a run: metrics and samples, without times."""
    kept = [record for record in read_events(folder / "events.jsonl") if record["kind"] in ("metrics", "sample")]
    return [(record["kind"], {key: record[key] for key in record if key != "time"}) for record in kept]


def killed_run(folder: Path, tokens_folder: Path, *, at: int, mode: str, sent: str) -> int:
    script = Path(__file__).with_name("tiny_run.py")
    command = [sys.executable, str(script), str(folder), str(tokens_folder), str(at), mode, sent]
    return subprocess.run(command, check=False, capture_output=True).returncode


def test_a_run_learns_evaluates_samples_and_keeps_its_checkpoints(whole_run: Path) -> None:
    series = metric_values(whole_run / "events.jsonl")
    losses = [value for _, value in series["train/loss"]]
    assert len(losses) == PLAN.steps
    assert sum(losses[-5:]) / 5 < losses[0] - 1.0
    assert [step for step, _ in series["eval/val_loss"]] == [10, 20, 30, 40]
    for (_, loss), (_, perplexity) in zip(series["eval/val_loss"], series["eval/val_ppl"], strict=True):
        assert perplexity == pytest.approx(math.exp(loss))
    kept = sorted(path.name for path in (whole_run / "checkpoints").iterdir())
    best = min(series["eval/val_loss"], key=lambda pair: pair[1])[0]
    assert kept == sorted({"best", "last", "step-000030", "step-000040", f"step-{best:06d}"})
    assert (whole_run / "checkpoints" / "best").readlink() == Path(f"step-{best:06d}")
    assert (whole_run / "checkpoints" / "last").readlink() == Path("step-000040")


@pytest.mark.promise(
    "pretraining",
    "a run killed with -9 at step 17 and resumed ends in the same bytes: weights, optimiser, metrics, samples",
)
def test_a_run_killed_at_step_17_ends_in_the_same_bytes(whole_run: Path, tokens_folder: Path, tmp_path: Path) -> None:
    assert killed_run(tmp_path, tokens_folder, at=17, mode="packed", sent="SIGKILL") == -9
    train(tmp_path, tokens_folder)
    assert digests(tmp_path, 40) == digests(whole_run, 40)
    assert digests(tmp_path, 30) == digests(whole_run, 30)
    assert repeated(tmp_path) == repeated(whole_run)
    assert any(record["kind"] == "resumed" for record in read_events(tmp_path / "events.jsonl"))


def test_a_run_in_bf16_killed_at_step_17_ends_in_the_same_bytes(tokens_folder: Path, tmp_path: Path) -> None:
    native = choose_compute(DeviceSettings(device="cpu", threads=1))
    if native.precision != "bf16":
        pytest.skip(native.reason)
    train(tmp_path / "whole", tokens_folder, compute=CPU_BF16)
    assert killed_run(tmp_path / "killed", tokens_folder, at=17, mode="bf16", sent="SIGKILL") == -9
    train(tmp_path / "killed", tokens_folder, compute=CPU_BF16)
    assert digests(tmp_path / "killed", 40) == digests(tmp_path / "whole", 40)
    assert repeated(tmp_path / "killed") == repeated(tmp_path / "whole")


def test_a_stopped_run_saves_and_goes_on(tokens_folder: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, save_every=5)
    train(tmp_path / "whole", tokens_folder, plan=plan, windows=True)
    stopped = tmp_path / "stopped"
    assert killed_run(stopped, tokens_folder, at=13, mode="windows", sent="SIGTERM") == 1  # an exception, here uncaught
    assert (stopped / "checkpoints" / "step-000013").is_dir()
    train(stopped, tokens_folder, plan=plan, windows=True)
    assert digests(stopped, 40) == digests(tmp_path / "whole", 40)
    assert repeated(stopped) == repeated(tmp_path / "whole")
    names = [sorted(path.name for path in (tmp_path / run / "checkpoints").iterdir()) for run in ("whole", "stopped")]
    assert names[0] == names[1]


def test_stopping_raises_a_resumable_error(tokens_folder: Path, tmp_path: Path) -> None:
    with EventLog(None) as events:
        trainer = tiny_trainer(tmp_path, tokens_folder, events, plan=QUICK)
        trainer.stop.ask("SIGTERM")
        with pytest.raises(Stopped, match="after step 1 of 6"):
            trainer.run()
    assert trainer.checkpoints.all()[-1].step == 1


@pytest.mark.promise("pretraining", "on a CPU two runs of one recipe give the same bits")
def test_the_same_run_twice_is_the_same(tokens_folder: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        train(tmp_path / name, tokens_folder, plan=QUICK)
    assert digests(tmp_path / "one", 6) == digests(tmp_path / "other", 6)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_family_resumes_exactly(family: str, tokens_folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(tokens_folder)
    train(tmp_path / "whole", tokens_folder, plan=QUICK, decoder=tiny_decoder(tokenizer, family=family))
    half = tmp_path / "half"
    with EventLog(None) as events:
        trainer = tiny_trainer(half, tokens_folder, events, plan=QUICK, decoder=tiny_decoder(tokenizer, family=family))
        trainer.stop.ask("SIGTERM")
        with pytest.raises(Stopped):
            trainer.run()
    train(half, tokens_folder, plan=QUICK, decoder=tiny_decoder(tokenizer, family=family))
    assert digests(half, 6) == digests(tmp_path / "whole", 6)


def gradients(trainer: Any, batch: Batch, micro_batch: int) -> list[torch.Tensor]:
    trainer.progress.micro_batch = micro_batch
    trainer.decoder.zero_grad()
    trainer._gradients(batch)
    return [parameter.grad.clone() for parameter in trainer.decoder.parameters()]


@pytest.mark.promise("pretraining", "micro-batches with unequal padding give the gradient of the whole batch")
def test_accumulated_gradients_equal_the_whole_batch_with_unequal_padding(tokens_folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(tokens_folder)
    with EventLog(None) as events:
        trainer = tiny_trainer(tmp_path, tokens_folder, events, decoder=tiny_decoder(tokenizer, dropout=0.0))
    batch = PackedBatches(documents(tokens_folder, "train"), PLAN.context, 0).batch(0, 32)
    lengths = torch.randint(1, PLAN.context, (32, 1), generator=torch.Generator().manual_seed(0))
    batch = replace(batch, scored=torch.arange(PLAN.context)[None] < lengths)
    whole = gradients(trainer, batch, 32)
    for one, other in zip(whole, gradients(trainer, batch, 8), strict=True):
        assert (one - other).norm() <= 1e-6 * one.norm() + 1e-9


class Planted:
    """Next-token training whose loss is not a number in chosen steps (counted by calls of `count`)."""

    name = "lm"

    def __init__(self, *bad_steps: int) -> None:
        self.bad_steps, self.steps = bad_steps, 0

    def count(self, batch: Batch) -> int:
        self.steps += 1
        return batch.target_count

    def loss(self, decoder: Decoder, batch: Batch) -> LossSum:
        part = NextToken().loss(decoder, batch)
        factor = math.nan if decoder.training and self.steps in self.bad_steps else 1.0
        return LossSum(part.sum * factor, part.count, part.metrics)

    def measures(self, nats: float, count: int, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return {}


def warnings(folder: Path) -> list[str]:
    return [record["text"] for record in read_events(folder / "events.jsonl") if record["kind"] == "note"]


@pytest.mark.promise("pretraining", "a step that is not finite is skipped, counted and logged with its documents")
def test_one_step_that_is_not_finite_is_skipped(tokens_folder: Path, tmp_path: Path) -> None:
    outcome = train(tmp_path, tokens_folder, plan=QUICK, objective=Planted(2))
    assert outcome.skipped == 1
    assert "step 2" in warnings(tmp_path)[0] and "documents" in warnings(tmp_path)[0]
    assert [step for step, _ in metric_values(tmp_path / "events.jsonl")["train/loss"]] == [1, 3, 4, 5, 6]
    weights = Decoder.state_dict(tiny_decoder(Tokenizer.load(tokens_folder)))
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.promise("pretraining", "five such steps in a row go back to the last checkpoint with half the rate")
def test_five_in_a_row_go_back_with_half_the_rate(tokens_folder: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, steps=20)
    train(tmp_path, tokens_folder, plan=plan, objective=Planted(*range(12, 17)))
    rates = dict(metric_values(tmp_path / "events.jsonl")["train/lr"])
    assert len(rates) == 20
    assert rates[10] == plan.schedule.rate(9)
    assert rates[11] == plan.schedule.rate(10) / 2
    state = json.loads((tmp_path / "checkpoints/last/trainer.json").read_text())
    assert (state["rewinds"], state["rate_scale"]) == (1, 0.5)


@pytest.mark.promise("pretraining", "after two rewinds in vain the run stops as diverged")
def test_rewinding_twice_in_vain_is_divergence(tokens_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged):
        train(tmp_path, tokens_folder, objective=Planted(*range(12, 1000)))
    assert sum("went back" in text for text in warnings(tmp_path)) == 2


def test_on_nan_stop_stops_at_once(tokens_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="step 2"):
        train(tmp_path, tokens_folder, plan=replace(QUICK, on_nan="stop"), objective=Planted(2))


class Hungry(Planted):
    """Next-token training that has no memory for more than `rows` rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def loss(self, decoder: Decoder, batch: Batch) -> LossSum:
        if decoder.training and batch.ids.size(0) > self.rows:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return super().loss(decoder, batch)


@pytest.mark.promise("pretraining", "out of memory halves the micro-batch, and the losses stay what they were")
def test_out_of_memory_halves_the_micro_batch_and_changes_no_loss(tokens_folder: Path, tmp_path: Path) -> None:
    plan = replace(QUICK, micro_batch=4)
    for name, objective in (("roomy", NextToken()), ("tight", Hungry(1))):
        decoder = tiny_decoder(Tokenizer.load(tokens_folder), dropout=0.0)
        train(tmp_path / name, tokens_folder, plan=plan, objective=objective, decoder=decoder)
    told = warnings(tmp_path / "tight")
    assert [text.removeprefix("out of memory: going on with ") for text in told] == [
        "micro-batches of 2, 2 of them a step",
        "micro-batches of 1, 4 of them a step",
    ]
    roomy, tight = (
        [value for _, value in metric_values(tmp_path / name / "events.jsonl")["train/loss"]]
        for name in ("roomy", "tight")
    )
    assert tight == pytest.approx(roomy, abs=1e-5)


def test_no_memory_for_one_row_says_so(tokens_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory, match="one row"):
        train(tmp_path, tokens_folder, plan=QUICK, objective=Hungry(0))


def test_a_full_disk_warns_and_fails_only_at_the_last_save(tokens_folder: Path, tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as events:
        trainer = tiny_trainer(tmp_path, tokens_folder, events, plan=QUICK)
        trainer.checkpoints.free_bytes = lambda path: 1000
        with pytest.raises(StorageError, match="last checkpoint"):
            trainer.run()
    assert "no checkpoint written" in warnings(tmp_path)[0]
    assert trainer.progress.step == QUICK.steps


def test_a_changed_plan_is_refused_by_name(tokens_folder: Path, tmp_path: Path) -> None:
    train(tmp_path, tokens_folder, plan=QUICK)
    with pytest.raises(UserError, match=r"batch: 4 -> 8"):
        train(tmp_path, tokens_folder, plan=replace(QUICK, batch=8))


def test_equal_identities_pass() -> None:
    refuse_changes({"a": [1, 2]}, {"a": (1, 2)}, Path())
