"""Events of a run to a tracker: MLflow (a folder or a server) or Weights & Biases (offline unless asked), beside the local files.

A tracker gets the very values the event log holds. It must never stop a training: the first error is told once, and the tracker
is left alone from then on. Which of its runs belongs to a stage stands in `tracking.json`, so that a resumed stage goes on in it.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from caslon.folders import write_atomic
from caslon.observe.events import Event, EventLog, Metrics, Timing

TrackerName = Literal["none", "mlflow", "wandb"]
RECORD = "tracking.json"
PROJECT = "caslon"
ONLINE = "online"
MLFLOW_FOLDER = "mlruns"
MLFLOW_BATCH = 1000  # the most values MLflow takes at once


class Tracker(Protocol):
    """A place outside the run folder that keeps curves."""

    run_id: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep values of a step."""
        ...

    def finish(self, *, failed: bool) -> None:
        """Send what is left and close the run."""
        ...


class MlflowTracker:
    """A run in an MLflow store. Values go there in batches, at least at every evaluation."""

    def __init__(self, where: str, name: str, settings: Mapping[str, Any], run_id: str | None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no call to anywhere but `where`
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        self._client = MlflowClient(tracking_uri=where)
        found = self._client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)
        if run_id is None:
            run_id = self._client.create_run(experiment, run_name=name).info.run_id
            self._client.log_batch(run_id, params=[Param(key, str(value)) for key, value in settings.items()])
        self.run_id = str(run_id)
        self._waiting: list[Any] = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep values of a step, and send them when an evaluation is among them or enough have come together."""
        now = int(time.time() * 1000)
        self._waiting += [self._metric(name, value, now, step) for name, value in values.items()]
        if len(self._waiting) > MLFLOW_BATCH // 2 or any(name.startswith("eval/") for name in values):
            self._send()

    def finish(self, *, failed: bool) -> None:
        """Send what is left and close the run."""
        self._send()
        self._client.set_terminated(self.run_id, status="FAILED" if failed else "FINISHED")

    def _send(self) -> None:
        while self._waiting:
            self._client.log_batch(self.run_id, metrics=self._waiting[:MLFLOW_BATCH])
            self._waiting = self._waiting[MLFLOW_BATCH:]


class WandbTracker:
    """A run of Weights & Biases, in a local folder for `wandb sync` unless `where` is `online`."""

    def __init__(self, where: str, name: str, settings: Mapping[str, Any], run_id: str | None, folder: Path) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no call to anywhere unless asked
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        mode: Literal["online", "offline"] = "online" if where == ONLINE else "offline"
        self._run = wandb.init(
            project=PROJECT, name=name, id=run_id, resume="allow", dir=str(folder), mode=mode, config=dict(settings)
        )
        self.run_id = str(self._run.id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep values of a step; those of one step are put together."""
        self._run.log(dict(values), step=step)

    def finish(self, *, failed: bool) -> None:
        """Write what is left and close the run."""
        self._run.finish(exit_code=int(failed))


@contextmanager
def tracked(
    kind: TrackerName, where: str, *, folder: Path, base: Path, settings: Mapping[str, Any], events: EventLog
) -> Iterator[None]:
    """Mirror the metrics of a stage, whose work goes to `folder`, to a tracker while the block runs.

    `where` is a folder (`mlruns` below `base` when empty) or a server's address for MLflow, and `online` or empty for Weights &
    Biases. A tracker that is not installed is an error at once; all that goes wrong with it later is told once.
    """
    if kind == "none":
        yield
        return
    mirror = _Mirror(events, folder, lambda run_id: _opened(kind, where, folder, base, settings, run_id))
    events.listen(mirror)
    try:
        yield
    except BaseException:
        mirror.finish(failed=True)
        raise
    mirror.finish(failed=False)


def _opened(
    kind: TrackerName, where: str, folder: Path, base: Path, settings: Mapping[str, Any], run_id: str | None
) -> Tracker:
    name = f"{folder.parent.name}/{folder.stem}"
    if kind == "mlflow":
        return MlflowTracker(where if "://" in where else str(base / (where or MLFLOW_FOLDER)), name, settings, run_id)
    return WandbTracker(where, name, settings, run_id, folder.parent)


class _Mirror:
    """A listener that hands metrics to a tracker until the first error."""

    def __init__(self, events: EventLog, folder: Path, open_tracker: Any) -> None:
        self._events = events
        self._tracker: Tracker | None = None
        record = folder / RECORD
        known = json.loads(record.read_text(encoding="utf-8"))["run_id"] if record.is_file() else None
        try:
            self._tracker = open_tracker(known)
            write_atomic(record, json.dumps({"run_id": self._tracker.run_id}) + "\n")
        except ModuleNotFoundError:
            raise
        except Exception as error:
            self._give_up(error)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Metrics | Timing) and self._tracker is not None:
            try:
                self._tracker.log(event.step, event.values)
            except Exception as error:
                self._give_up(error)

    def finish(self, *, failed: bool) -> None:
        if self._tracker is not None:
            try:
                self._tracker.finish(failed=failed)
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._tracker = None
        self._events.warn(f"the tracker failed and is left alone from here; training goes on: {error}")
