"""What the planner says of shapes and devices whose true figures are known."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.stages import pretrain
from caslon.stages.stage import PlanContext, PlanRow
from caslon.train import peak
from caslon.train.devices import KNOWN_DEVICES, device_named, device_of
from caslon.train.forecast import Forecast, Rate, advice, assumed_rate, make_forecast
from caslon.train.plan import TrainPlan
from caslon.train.precision import Compute
from caslon.train.schedule import Schedule
from tests.train.tiny_run import PLAN

RECIPES = Path(__file__).parents[2] / "recipes"
LLAMA_70B = {
    "family": "llama", "depth": 80, "hidden_size": 8192, "num_attention_heads": 64, "num_key_value_heads": 8,
    "intermediate_size": 28_672, "tie_word_embeddings": False, "context": 4096, "batch": 1024, "steps": 1000,
}  # fmt: skip


def plan_of(steps: int, batch: int, context: int, micro_batch: int | None = None) -> TrainPlan:
    return replace(
        PLAN, steps=steps, batch=batch, micro_batch=micro_batch or batch, context=context, optimizer="adamw",
        schedule=Schedule("cosine", 3e-4, steps), eval_every=1000, eval_batches=100,
    )  # fmt: skip


def forecast(preset: str, plan: TrainPlan, **changes: Any) -> Forecast:
    given: dict[str, Any] = {
        "precision": "bf16", "document_masking": False, "available_bytes": KNOWN_DEVICES["H200"].usable_bytes,
        "rate": assumed_rate(KNOWN_DEVICES["H200"], "bf16", 0.35), **changes,
    }  # fmt: skip
    return make_forecast(DecoderConfig.preset(preset), plan, **given)


@pytest.mark.promise("pretraining", "The planner tells the work and time of published runs from their settings")
def test_published_runs():
    slm = forecast("slm", plan_of(60_000, 36, 512), data_tokens=62_800_000)
    regular = forecast("regular", plan_of(60_000, 24, 1024), data_tokens=63_000_000)
    assert slm.flop == pytest.approx(7.478e17, rel=1e-4)
    assert regular.flop == pytest.approx(3.166e18, rel=1e-3)
    assert slm.training_seconds / 60 == pytest.approx(36, abs=0.5)
    assert regular.training_seconds / 60 == pytest.approx(152, abs=0.5)
    assert slm.epochs == pytest.approx(17.6, abs=0.05)
    assert regular.epochs == pytest.approx(23.4, abs=0.05)


@pytest.mark.promise("pretraining", "The planner warns above four epochs and far below 20 tokens for a parameter")
def test_advice():
    many = forecast("slm", plan_of(60_000, 36, 512), data_tokens=62_800_000)
    assert any(text.startswith("17.6 epochs are more than 4") for text in advice(many))
    enough = forecast("slm", plan_of(130_000, 36, 512), data_tokens=10**9)
    assert advice(enough) == []
    few = forecast("slm", plan_of(1000, 36, 512), data_tokens=10**9)
    assert any("smaller model trained longer" in text for text in advice(few))


@pytest.mark.promise("pretraining", "What does not fit comes with the smallest change that does")
def test_the_smallest_change_that_fits():
    plan = plan_of(60_000, 36, 512)
    whole = forecast("slm", plan)
    assert whole.fits
    assert whole.remedy is None
    smaller = forecast("slm", plan, available_bytes=5 * 10**9)
    assert smaller.remedy is not None
    assert smaller.remedy.startswith("micro_batch = ")
    assert "every-block" not in smaller.remedy
    state = whole.memory.state
    recomputed = forecast("slm", plan, available_bytes=state + 200_000_000)
    assert recomputed.remedy is not None
    assert "every-block" in recomputed.remedy
    divided = forecast("slm", plan, available_bytes=state)
    assert divided.remedy is not None
    assert "over 2 devices (FSDP)" in divided.remedy
    assert forecast("slm", plan, available_bytes=10**6).remedy is None


def test_price_and_rate():
    run = forecast("slm", plan_of(60_000, 36, 512), price_per_hour=3.0)
    assert run.cost == pytest.approx(3.0 * run.seconds / 3600)
    assert run.evaluation_seconds == pytest.approx(run.training_seconds * 60 * 100 / 60_000 / 3)
    timed = forecast("slm", plan_of(60_000, 36, 512), rate=Rate(1e12, "3 timed steps"))
    assert timed.training_seconds == pytest.approx(7.478e5, rel=1e-4)


@pytest.mark.promise(
    "pretraining", "Shares of the peak are of the makers' dense rates: A30 165, A100 312, H100 and H200 989"
)
def test_devices():
    peaks = {name: device.peak("bf16") / 1e12 for name, device in KNOWN_DEVICES.items()}
    assert peaks == {"A30": 165, "A100": 312, "H100": 989, "H200": 989}
    assert device_of("NVIDIA H100 80GB HBM3") is KNOWN_DEVICES["H100"]
    assert device_of("NVIDIA A100-SXM4-80GB") is KNOWN_DEVICES["A100"]
    assert device_of("NVIDIA GeForce RTX 4090") is None
    with pytest.raises(UserError, match="unknown device 'H20'"):
        device_named("H20")


@pytest.mark.promise("pretraining", "A shape of 70 billion parameters is planned in seconds and without weights")
def test_a_large_shape_takes_no_time_and_no_memory():
    began = time.perf_counter()
    rows = planned(LLAMA_70B, vocab_size=128_256, device="H200", price_per_hour=4.0)
    assert time.perf_counter() - began < 5
    assert rows["parameters"].value == 70_553_706_496
    assert rows["memory: weights"].value == 4 * 70_553_706_496
    assert rows["fits"].value.startswith(
        "no; micro_batch = 1 with activation_checkpointing = 'every-block' and the state divided over"
    )
    assert rows["cost"].value > 1000


def planned(table: dict[str, Any], *, vocab_size: int, **context: Any) -> dict[str, PlanRow]:
    from caslon.stages import tokenizer

    tables = {"tokenizer": tokenizer.Settings(vocab_size=vocab_size)}
    given = PlanContext("pretrain", pretrain.Settings(**table), 1, {}, tables, Path(), **context)
    return {row.name: row for row in pretrain.plan(given)}


def test_the_best_peak_measured_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(peak, "matmul_flops_per_second", lambda compute: 2.5e11)
    compute = Compute(torch.device("cpu"), "fp32", "test")
    found = peak.peak_of(compute)
    assert found.flops_per_second == 2.5e11
    assert found.describe() == "0.25 TFLOP/s (CPU fp32, measured)"
    monkeypatch.setattr(peak, "matmul_flops_per_second", lambda compute: 1.0)
    assert peak.peak_of(compute) == found
    assert peak.peak_of(Compute(torch.device("cpu"), "bf16", "test")).flops_per_second == 1.0
    assert len(json.loads((tmp_path / "caslon" / "peaks.json").read_text())) == 2
    monkeypatch.setattr(peak, "matmul_flops_per_second", lambda compute: 3e11)
    assert peak.peak_of(compute).flops_per_second == 3e11  # the first was taken on a busy machine


def test_a_home_that_cannot_be_written_costs_the_memory_only(tmp_path, monkeypatch):
    (tmp_path / "caslon").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(peak, "matmul_flops_per_second", lambda compute: 2.5e11)
    assert peak.peak_of(Compute(torch.device("cpu"), "fp32", "test")).flops_per_second == 2.5e11
