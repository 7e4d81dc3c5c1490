"""An event log's repeatable metrics to `metrics.jsonl`: one object a step, `{"step": 10, "train/loss": 3.2, ...}`.

The event log is written at once; this file is a view of it, brought up to date whenever a checkpoint is saved and at the
end, so that it costs a step next to nothing. It says nothing of machine or moment: a resumed run ends with the same bytes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from caslon.errors import StorageError
from caslon.folders import write_atomic
from caslon.observe.events import Event, Metrics, Resumed, Timing, read_events

NAME = "metrics.jsonl"
SAVED = "save/seconds"  # the timing a trainer logs after each checkpoint


class MetricsFile:
    """A listener that keeps the view beside its log. Use as a context manager inside the log's own."""

    def __init__(self, log: Path) -> None:
        self.log, self.path = log, log.with_name(NAME)
        self._pending: dict[int, dict[str, float]] = {}
        self._last_step = -1
        self._stale = log.is_file() and log.stat().st_size > 0  # an earlier call was ended: what it left may be torn

    def __call__(self, event: Event) -> None:
        """Take note of one event."""
        match event:
            case Metrics():
                self._pending.setdefault(event.step, {}).update(event.values)
            case Resumed():
                self._stale = True
            case Timing() if SAVED in event.values:
                self._write_if_there_is_room()

    def write(self) -> None:
        """Bring the file up to date."""
        if self._stale or min(self._pending, default=self._last_step + 1) <= self._last_step:
            lines = steps_of(self.log)
            if lines or self.path.is_file():
                write_atomic(self.path, _text(lines))
            self._stale = False
        else:
            lines = self._pending
            if lines:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(_text(lines))
        self._last_step = max(lines, default=self._last_step)
        self._pending = {}

    def _write_if_there_is_room(self) -> None:
        try:
            self.write()
        except (OSError, StorageError):  # a full disk, which the trainer tells of: what is there may be torn
            self._stale = True

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pending or self._stale:
            self._write_if_there_is_room() if kind else self.write()


def steps_of(log: Path) -> dict[int, dict[str, float]]:
    """Return all metrics of a log by step."""
    found: dict[int, dict[str, float]] = {}
    for record in read_events(log):
        if record["kind"] == Metrics.kind:
            found.setdefault(record["step"], {}).update(record["values"])
    return found


def _text(steps: Mapping[int, Mapping[str, float]]) -> str:
    return "".join(json.dumps({"step": step, **values}) + "\n" for step, values in steps.items())
