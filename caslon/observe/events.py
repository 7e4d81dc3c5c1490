"""One append-only log of typed events per stage (`events.jsonl`), which the console, reports and trackers read.

A resumed stage appends a `Resumed` event; readers then drop the values of later steps written before it, so that the log of
a run in pieces reads like the log of a run in one.
"""

import errno
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, ClassVar

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Event:
    """Anything worth keeping. Subclasses name their fields with units."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Started(Event):
    """The stage (or one phase of it) began."""

    kind = "started"
    stage: str


@dataclass(frozen=True)
class Progress(Event):
    """`done` of `total` units of a phase; `total` 0 when it is not known. `detail` is shown beside the bar."""

    kind = "progress"
    phase: str
    done: int
    total: int
    unit: str
    detail: str = ""


@dataclass(frozen=True)
class Metrics(Event):
    """Values at a training step that repeat exactly when the run is repeated (`train/loss`, `eval/val_bpb`, ...)."""

    kind = "metrics"
    step: int
    values: dict[str, float]


@dataclass(frozen=True)
class Timing(Event):
    """Values at a training step that depend on the machine and the moment (`train/tokens_per_s`, `train/dt_ms`, ...)."""

    kind = "timing"
    step: int
    values: dict[str, float]


@dataclass(frozen=True)
class Line(Event):
    """The state of a phase in one line for the terminal, at `done` of `total` steps. It is not kept: its values are."""

    kind = "line"
    phase: str
    done: int
    total: int
    text: str


@dataclass(frozen=True)
class Sample(Event):
    """Text the model wrote at a step for a fixed prompt and seed."""

    kind = "sample"
    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class ExpertMap(Event):
    """The router's probabilities in a mixture of experts, of each layer, expert and token of a fixed text."""

    kind = "experts"
    step: int
    tokens: list[str]
    layers: list[list[list[float]]]


@dataclass(frozen=True)
class Note(Event):
    """Something a person should read; `level` is `info` or `warning`."""

    kind = "note"
    level: str
    text: str


@dataclass(frozen=True)
class Resumed(Event):
    """The stage goes on from `step`; later steps logged before this event were lost and are repeated."""

    kind = "resumed"
    step: int


@dataclass(frozen=True)
class Finished(Event):
    """The stage ended well after `seconds`."""

    kind = "finished"
    seconds: float


Listener = Callable[[Event], None]


@dataclass
class EventLog:
    """The open log of a stage. `emit` writes one line at once and hands the event to the listeners; threads may share it.

    While the disk is full the lines wait in memory.
    """

    path: Path | None
    listeners: tuple[Listener, ...] = ()
    _last_progress_seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._file = self.path.open("ab", buffering=0) if self.path else None
        self._unwritten = b""
        self._lock = Lock()

    def emit(self, event: Event) -> None:
        """Append an event. Progress is written to the file at most once a second for each phase."""
        with self._lock:
            if self._file and self._worth_a_line(event):
                record = {"time": round(time.time(), 3), "kind": event.kind, **asdict(event)}
                self._unwritten += (json.dumps(record, ensure_ascii=False) + "\n").encode()
                self._write(self._file)
        for listener in self.listeners:
            listener(event)

    def _write(self, file: FileIO) -> None:
        try:
            self._unwritten = self._unwritten[file.write(self._unwritten) :]
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise

    def listen(self, listener: Listener) -> None:
        """Hand every event from now on to a listener too."""
        self.listeners = (*self.listeners, listener)

    def progress(self, phase: str, done: int, total: int, unit: str, detail: str = "") -> None:
        """Report `done` of `total` units of a phase."""
        self.emit(Progress(phase, done, total, unit, detail))

    def note(self, text: str, level: str = "info") -> None:
        """Tell the user something in one line."""
        self.emit(Note(level, text))

    def warn(self, text: str) -> None:
        """Warn the user in one line."""
        self.note(text, level="warning")

    def _worth_a_line(self, event: Event) -> bool:
        if isinstance(event, Line):
            return False
        if not isinstance(event, Progress) or event.done >= event.total > 0:
            return True
        now = time.monotonic()
        if now - self._last_progress_seconds.get(event.phase, -1e9) < 1.0:
            return False
        self._last_progress_seconds[event.phase] = now
        return True

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._write(self._file)
            self._file.close()


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log, without those that a later `Resumed` event made void, and without a torn last line."""
    if not path.is_file():
        return
    records: list[dict[str, Any]] = []
    last = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # the process was killed while it wrote this line
            continue
        if record["kind"] == Resumed.kind:
            records, last = _up_to(records, record["step"]), record["step"]
        elif record["kind"] == Metrics.kind and record["step"] < last:  # killed before the first checkpoint, begun anew
            records = _up_to(records, record["step"] - 1)
        last = record["step"] if record["kind"] == Metrics.kind else last
        records.append(record)
    yield from records


def _up_to(records: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    return [kept for kept in records if kept.get("step", 0) <= step]


def metric_values(path: Path, kind: str = Metrics.kind) -> dict[str, list[tuple[int, float]]]:
    """Return `{name: [(step, value), ...]}` for all logged metrics (or timings) in order of steps."""
    series: dict[str, list[tuple[int, float]]] = {}
    for record in read_events(path):
        if record["kind"] == kind:
            for name, value in record["values"].items():
                series.setdefault(name, []).append((record["step"], value))
    return series
