import math

import pytest

from caslon.observe.events import EventLog, Metrics, Timing
from caslon.report.summary import SPARKS, sparkline, training_summary


def test_a_sparkline_goes_from_the_lowest_to_the_highest():
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == SPARKS
    assert sparkline([3, 3, 3]) == SPARKS[0] * 3
    assert sparkline([1, math.nan, 2]) == f"{SPARKS[0]} {SPARKS[-1]}"
    long = sparkline(list(range(1000)))
    assert (len(long), long[0], long[-1], sorted(long)) == (24, SPARKS[0], SPARKS[-1], list(long))
    assert sparkline([]) == ""


def log(path, steps: int = 40):
    with EventLog(path) as events:
        for step in range(1, steps + 1):
            events.emit(Metrics(step, {"train/iter": step, "train/loss": 8.0 / step, "train/lr": 1e-3}))
            timing = {"train/dt_ms": 100.0, "train/data_ms": 25.0, "train/tokens_per_s": 1000.0, "train/mem_gb": 0.5}
            events.emit(Timing(step, timing))
            if step % 10 == 0:
                events.emit(Metrics(step, {"eval/iter": step, "eval/val_loss": abs(step - 30) + 1.0}))
                events.emit(Timing(step, {"eval/seconds": 0.5}))
                events.emit(Timing(step, {"save/seconds": 0.25}))
    return path


@pytest.mark.promise(
    "pretraining", "A training ends with first, last and best values, sparklines and where the time went"
)
def test_the_summary_of_a_training(tmp_path):
    found = training_summary(log(tmp_path / "events.jsonl"))
    assert found is not None
    assert found.seconds == pytest.approx(
        {"compute": 3.0, "data": 1.0, "evaluation": 2.0, "saving": 1.0, "compiling": 0}
    )
    assert found.best_step == 30
    assert found.peak_memory_gb == 0.5
    assert found.cost(36.0) == pytest.approx(0.07)
    curves = {curve.name: curve for curve in found.curves}
    assert set(curves) == {"train/loss", "train/lr", "eval/val_loss", "train/tokens_per_s"}
    assert (curves["train/loss"].first, curves["train/loss"].last) == (8.0, 0.2)
    text = "\n".join(found.lines(36.0))
    assert "time 7.0 s: compute 43%, data 14%, evaluation 29%, saving 14%" in text
    assert "best step 30 | peak memory 0.5 GB | cost 0.07 at 36 an hour" in text
    assert all(len(line) < 90 for line in text.splitlines())


def test_a_log_without_training_has_no_summary(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as events:
        events.note("nothing")
    assert training_summary(tmp_path / "events.jsonl") is None
