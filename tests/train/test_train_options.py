"""What a training table may ask of the loop, beyond learning."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import CPU, PLAN, documents, tiny_decoder, tiny_trainer, train

from caslon.errors import OutOfMemory, UserError
from caslon.model.decoder import Decoder
from caslon.observe.events import EventLog, metric_values, read_events
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.batches import Batch, PackedBatches
from caslon.train.loss_scale import LossScale
from caslon.train.objectives import LossSum, NextToken
from caslon.train.precision import Compute
from caslon.train.settings import UpkeepSettings

QUICK = replace(PLAN, steps=6, eval_every=3, schedule=replace(PLAN.schedule, steps=6))
FP16 = Compute(torch.device("cpu"), "fp16", "test")
NO_MEMORY = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"


def notes(folder: Path) -> list[str]:
    return [record["text"] for record in read_events(folder / "events.jsonl") if record["kind"] == "note"]


def state(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "checkpoints/last/trainer.json").read_text()))


@pytest.mark.promise("pretraining", "recomputed activations give bit-equal losses and gradients on a CPU")
@pytest.mark.parametrize("every", [1, 2])
def test_activation_checkpointing_changes_no_bit(tokens_folder: Path, tmp_path: Path, every: int) -> None:
    found = []
    for checkpoint_every in (0, every):
        with EventLog(None) as events:
            plan = replace(QUICK, checkpoint_every=checkpoint_every)
            trainer = tiny_trainer(tmp_path / str(checkpoint_every), tokens_folder, events, plan=plan)
        assert trainer.decoder.checkpoint_every == checkpoint_every
        trainer.decoder.train()
        loss, norm, *_ = trainer._loss_and_norm(trainer.batches.batch(0, PLAN.batch))  # with dropout
        found.append((loss, norm, [parameter.grad.clone() for parameter in trainer.decoder.parameters()]))
    assert found[0][:2] == found[1][:2]
    assert all(torch.equal(one, other) for one, other in zip(found[0][2], found[1][2], strict=True))


@pytest.mark.parametrize(("given", "every"), [("off", 0), ("every-block", 1), (3, 3)])
def test_activation_checkpointing_is_a_key(given: object, every: int) -> None:
    assert UpkeepSettings(activation_checkpointing=given).checkpoint_every == every  # type: ignore[arg-type]


@pytest.mark.promise("pretraining", "training in fp16 scales the loss, and resumes with its scale")
def test_fp16_learns_with_a_scaled_loss(tokens_folder: Path, tmp_path: Path) -> None:
    one = train(tmp_path / "fp16", tokens_folder, compute=FP16)
    other = train(tmp_path / "fp32", tokens_folder, compute=CPU)
    assert one.skipped == 0
    assert one.metrics["eval/val_loss"] == pytest.approx(other.metrics["eval/val_loss"], rel=0.02)
    assert state(tmp_path / "fp16")["loss_scale"] == [65536.0, 40]
    assert state(tmp_path / "fp32")["loss_scale"] is None


class Overflowing(NextToken):
    """Next-token training whose gradient overflows while the loss's factor is above a limit."""

    def loss(self, decoder: Decoder, batch: Batch) -> LossSum:
        part = super().loss(decoder, batch)
        if not decoder.training:
            return part
        total = part.sum.clone()
        total.register_hook(lambda gradient: gradient * math.inf if gradient > 1000 / batch.target_count else gradient)
        return LossSum(total, part.count, part.metrics)


def test_an_overflow_halves_the_scale_and_repeats_the_step(tokens_folder: Path, tmp_path: Path) -> None:
    plan = replace(QUICK, micro_batch=QUICK.batch)
    outcome = train(tmp_path, tokens_folder, compute=FP16, plan=plan, objective=Overflowing())
    assert outcome.skipped == 0
    assert state(tmp_path)["loss_scale"] == [512.0, 6]
    assert len(metric_values(tmp_path / "events.jsonl")["train/loss"]) == 6


def test_a_scale_that_held_long_is_doubled_and_never_falls_below_one() -> None:
    scale = LossScale(4.0)
    for _ in range(2000):
        scale.held()
    assert (scale.value, scale.steps) == (8.0, 0)
    assert [scale.overflowed() for _ in range(4)] == [True, True, True, False]
    assert scale.value == 1.0


@pytest.mark.promise("pretraining", "a run ends early after `patience` evaluations without improvement")
def test_patience_ends_a_run(tokens_folder: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, eval_every=2, patience=2, best_metric="eval/worse")
    outcome = train(tmp_path, tokens_folder, plan=plan, measure=lambda _, step: {"eval/worse": float(step)})
    assert (outcome.step, outcome.best_step) == (6, 2)
    assert "stopped early at step 6 of 40: no better eval/worse in 2 evaluations; the best was at step 2" in notes(
        tmp_path
    )
    assert (
        train(tmp_path, tokens_folder, plan=plan, measure=lambda _, step: {"eval/worse": 0.0}).step == 6
    )  # it is over


@pytest.mark.promise(
    "pretraining", "`best` is decided by the recipe's metric, milestones and the newest checkpoints are kept"
)
def test_the_best_by_a_measure_where_more_is_better(tokens_folder: Path, tmp_path: Path) -> None:
    plan = replace(PLAN, eval_every=4, keep=1, keep_every=12, best_metric="eval/word_accuracy")
    best_at = {8: 0.9}
    outcome = train(
        tmp_path, tokens_folder, plan=plan, measure=lambda _, step: {"eval/word_accuracy": best_at.get(step, 0.5)}
    )
    assert outcome.best_step == 8
    kept = sorted(int(path.name[5:]) for path in (tmp_path / "checkpoints").glob("step-*"))
    assert kept == [8, 12, 24, 36, 40]


def test_an_unknown_measure_names_the_known_ones(tokens_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="best_metric = 'eval/best' is no measure of this run") as raised:
        train(tmp_path, tokens_folder, plan=replace(QUICK, best_metric="eval/best"))
    assert "eval/val_loss" in str(raised.value)


@pytest.mark.promise(
    "pretraining", "evaluation measures fixed batches of both splits with dropout off and says how many tokens"
)
def test_evaluations_measure_both_splits_on_fixed_batches(tokens_folder: Path, tmp_path: Path) -> None:
    fixed = [PackedBatches(documents(tokens_folder, "train"), PLAN.context, 0).batch(0, 4)]
    plan = replace(QUICK, schedule=replace(QUICK.schedule, peak=1e-12, floor=1e-12), weight_decay=0.0)
    train(tmp_path, tokens_folder, plan=plan, training=fixed)
    series = metric_values(tmp_path / "events.jsonl")
    for split in ("train", "val"):
        first, second = (value for _, value in series[f"eval/{split}_loss"])
        assert first == pytest.approx(second, abs=1e-6)  # dropout would show
    assert series["eval/train_tokens"][0][1] == fixed[0].target_count


class HungryEvaluation(NextToken):
    """Next-token training with no memory for an evaluation of more than `rows` rows."""

    rows = 1

    def loss(self, decoder: Decoder, batch: Batch) -> LossSum:
        if not decoder.training and batch.ids.size(0) > self.rows:
            raise RuntimeError(NO_MEMORY)
        return super().loss(decoder, batch)


@pytest.mark.promise("pretraining", "evaluation and sampling go on with less when memory runs out")
def test_out_of_memory_in_an_evaluation_halves_its_rows(tokens_folder: Path, tmp_path: Path) -> None:
    plan = replace(QUICK, micro_batch=4)
    roomy = train(tmp_path / "roomy", tokens_folder, plan=plan).metrics
    tight = train(tmp_path / "tight", tokens_folder, plan=plan, objective=HungryEvaluation()).metrics
    assert tight["eval/val_loss"] == pytest.approx(roomy["eval/val_loss"], abs=1e-5)
    told = [text for text in notes(tmp_path / "tight") if "evaluation" in text]
    assert [text.rsplit("with ", 1)[1] for text in told] == ["2 rows at once", "1 rows at once"]


def test_no_memory_for_a_row_of_an_evaluation(tokens_folder: Path, tmp_path: Path) -> None:
    objective = HungryEvaluation()
    objective.__class__ = type("None", (HungryEvaluation,), {"rows": 0})
    with pytest.raises(OutOfMemory, match="one row of an evaluation"):
        train(tmp_path, tokens_folder, plan=QUICK, objective=objective)


def test_samples_that_do_not_fit_are_left_out(tokens_folder: Path, tmp_path: Path) -> None:
    def sample(model: Decoder, step: int) -> list[tuple[str, str]]:
        if step == 3:
            raise RuntimeError(NO_MEMORY)
        return [("a", "b")]

    train(tmp_path, tokens_folder, plan=QUICK, sample=sample)
    assert "no samples at step 3: out of memory" in notes(tmp_path)
    kept = [record["step"] for record in read_events(tmp_path / "events.jsonl") if record["kind"] == "sample"]
    assert kept == [6]


@pytest.mark.promise("pretraining", "when a row does not fit, the run stops with what it needs, part by part")
def test_out_of_memory_gives_the_planners_advice(tokens_folder: Path) -> None:
    from caslon.train.memory import memory_advice

    advice = memory_advice(tiny_decoder(Tokenizer.load(tokens_folder)).config, 16, "adamw")
    for word in ("one row of 16 tokens needs about", "weights", "optimiser", "activations", "smaller context"):
        assert word in advice


def in_background(plan_steps: int = 6) -> Callable[..., Any]:
    from caslon.train.saving import Saver

    def made(checkpoints: Any, save_model: Any, processes: Any, *, in_background: bool) -> Saver:
        return Saver(checkpoints, save_model, processes, in_background=True)

    return made


@pytest.mark.promise(
    "pretraining", "checkpoints written in the background are those that would have been written at once"
)
def test_saving_in_the_background(tokens_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "at once", tokens_folder, plan=QUICK)
    monkeypatch.setattr("caslon.train.trainer.Saver", in_background())
    train(tmp_path / "behind", tokens_folder, plan=QUICK)
    for step in (3, 6):
        one, other = (tmp_path / name / "checkpoints" / f"step-{step:06d}" for name in ("at once", "behind"))
        assert (one / "MANIFEST.json").read_bytes() == (other / "MANIFEST.json").read_bytes()
