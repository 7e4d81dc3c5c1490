"""Metrics beside the event log: the file with one object a step, and trackers, real ones where they are installed."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from caslon.observe.events import EventLog, Metrics, Note, Resumed, Timing
from caslon.observe.metrics_file import MetricsFile
from caslon.observe.tracking import RECORD, tracked


def train(folder: Path, first: int, last: int, *, loss: float = 8.0, resumed: bool = False) -> None:
    """Log like a trainer: a line a step, an evaluation and a checkpoint every five steps."""
    log = folder / "events.jsonl"
    with MetricsFile(log) as metrics, EventLog(log, (metrics,)) as events:
        if resumed:
            events.emit(Resumed(first - 1))
        log_steps(events, first, last, loss)


def log_steps(events: EventLog, first: int, last: int, loss: float = 8.0) -> None:
    for step in range(first, last + 1):
        events.emit(Metrics(step, {"train/iter": float(step), "train/loss": loss / step}))
        events.emit(Timing(step, {"train/dt_ms": 12.5}))
        if step % 5 == 0:
            events.emit(Metrics(step, {"eval/val_loss": loss / step + 1}))
            events.emit(Timing(step, {"save/seconds": 0.1}))


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.promise("pretraining", "metrics.jsonl holds one object a step, the same bytes in a run in pieces")
@pytest.mark.parametrize("pieces", [[(1, 20)], [(1, 13), (11, 20)], [(1, 3), (1, 20)], [(1, 15), (11, 12), (11, 20)]])
def test_one_object_a_step_whatever_the_pieces(tmp_path, pieces):
    (tmp_path / "whole").mkdir()
    (tmp_path / "pieces").mkdir()
    train(tmp_path / "whole", 1, 20)
    for number, (first, last) in enumerate(pieces):
        train(tmp_path / "pieces", first, last, resumed=number > 0 and first > 1)
    assert (tmp_path / "pieces/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
    assert [line["step"] for line in lines(tmp_path / "whole")] == list(range(1, 21))
    assert lines(tmp_path / "whole")[9] == {"step": 10, "train/iter": 10.0, "train/loss": 0.8, "eval/val_loss": 1.8}


def test_a_rewind_leaves_the_later_steps_out(tmp_path):
    log = tmp_path / "events.jsonl"
    with MetricsFile(log) as metrics, EventLog(log, (metrics,)) as events:
        log_steps(events, 1, 14)
        events.emit(Resumed(10))
        log_steps(events, 11, 12, loss=4.0)
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))
    assert lines(tmp_path)[-1]["train/loss"] == 4.0 / 12


def test_a_stage_without_metrics_has_no_file(tmp_path):
    for _ in range(2):
        with (
            MetricsFile(tmp_path / "events.jsonl") as metrics,
            EventLog(tmp_path / "events.jsonl", (metrics,)) as events,
        ):
            events.note("nothing to learn")
    assert not (tmp_path / "metrics.jsonl").exists()


def mirrored(folder: Path, kind: str, where: str = "", *, steps: int = 12) -> list[str]:
    """Train under a tracker and return the warnings."""
    stage = folder / "run" / "pretrain.partial"
    stage.mkdir(parents=True, exist_ok=True)
    told: list[str] = []
    log = stage / "events.jsonl"
    listen = lambda event: told.append(event.text) if isinstance(event, Note) else None  # noqa: E731
    with MetricsFile(log) as metrics, EventLog(log, (metrics, listen)) as events:
        settings = {"depth": 2}
        with tracked(kind, where, folder=stage, base=folder, settings=settings, events=events):  # type: ignore[arg-type]
            log_steps(events, 1, steps)
    return told


class FakeMlflow:
    """What the tracker uses of MLflow's client, kept in memory; `broken` fails at a call of that name."""

    def __init__(self, broken: str = "") -> None:
        self.broken, self.runs, self.values, self.status = broken, 0, dict[str, float](), ""

    def install(self, patch: pytest.MonkeyPatch) -> None:
        package, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
        package.MlflowClient = lambda tracking_uri: self  # type: ignore[attr-defined]
        entities.Metric = lambda *fields: fields  # type: ignore[attr-defined]
        entities.Param = lambda *fields: fields  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "mlflow", package)
        patch.setitem(sys.modules, "mlflow.entities", entities)

    def get_experiment_by_name(self, name: str) -> Any:
        self._fail("get_experiment_by_name")
        return None

    def create_experiment(self, name: str) -> str:
        return "1"

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.runs += 1
        return SimpleNamespace(info=SimpleNamespace(run_id=f"run-{self.runs}"))

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        self._fail("log_batch")
        self.values |= {name: value for name, value, _, _ in metrics}

    def set_terminated(self, run_id: str, status: str) -> None:
        self._fail("set_terminated")
        self.status = status

    def _fail(self, name: str) -> None:
        if name == self.broken:
            raise PermissionError(f"{name} is not allowed")


def test_a_tracker_gets_the_values_of_the_log_and_a_resumed_stage_its_run(tmp_path, monkeypatch):
    fake = FakeMlflow()
    fake.install(monkeypatch)
    assert mirrored(tmp_path, "mlflow") == []
    last = lines(tmp_path / "run/pretrain.partial")[-1]
    assert fake.values["train/loss"] == last["train/loss"]
    assert fake.values["train/dt_ms"] == 12.5
    assert fake.status == "FINISHED"
    mirrored(tmp_path, "mlflow")
    assert fake.runs == 1
    assert json.loads((tmp_path / "run/pretrain.partial" / RECORD).read_text()) == {"run_id": "run-1"}


@pytest.mark.promise("pretraining", "A tracker that fails is told of once and never stops training")
@pytest.mark.parametrize("broken", ["get_experiment_by_name", "log_batch", "set_terminated"])
def test_a_failing_tracker_stops_nothing(tmp_path, monkeypatch, broken):
    FakeMlflow(broken).install(monkeypatch)
    told = mirrored(tmp_path, "mlflow")
    assert len(told) == 1
    assert "training goes on" in told[0]
    assert len(lines(tmp_path / "run/pretrain.partial")) == 12


def test_a_tracker_that_is_not_installed_is_an_error_at_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError):
        mirrored(tmp_path, "wandb")
    assert not (tmp_path / "run/pretrain.partial/metrics.jsonl").exists()


@pytest.mark.promise("pretraining", "An MLflow store holds the same last loss as metrics.jsonl")
def test_mlflow_holds_the_same_last_loss(tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'caslon[mlflow]'")
    assert mirrored(tmp_path, "mlflow") == []
    client = mlflow.MlflowClient(tracking_uri=str(tmp_path / "mlruns"))
    run_id = json.loads((tmp_path / "run/pretrain.partial" / RECORD).read_text())["run_id"]
    found = client.get_metric_history(run_id, "train/loss")[-1]
    last = lines(tmp_path / "run/pretrain.partial")[-1]
    assert (found.value, found.step) == (last["train/loss"], last["step"])


@pytest.mark.promise("pretraining", "A Weights & Biases folder, offline, holds the same last loss as metrics.jsonl")
def test_wandb_holds_the_same_last_loss(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'caslon[wandb]'")
    assert mirrored(tmp_path, "wandb") == []
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    store, losses = DataStore(), []
    store.open_for_scan(str(next((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))))
    while data := store.scan_data():
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.history.item:
            if "train/loss" in (item.key, "/".join(item.nested_key)):
                losses.append(json.loads(item.value_json))
    assert losses[-1] == lines(tmp_path / "run/pretrain.partial")[-1]["train/loss"]


@pytest.mark.promise("pretraining", "A tracker whose folder cannot be written does not end the training")
def test_a_folder_that_cannot_be_written(tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'caslon[mlflow]'")
    (tmp_path / "mlruns").write_text("a file where the folder should be")
    assert "training goes on" in mirrored(tmp_path, "mlflow")[0]
    assert len(lines(tmp_path / "run/pretrain.partial")) == 12
