"""Shows a run in the terminal: one live line per phase with speed and time left, or plain lines when it is not a terminal."""

import time
from textwrap import indent
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from caslon.observe import events

PLAIN_LINE_SECONDS = 10.0  # between two plain progress lines of one phase


class ConsoleDisplay:
    """A listener for event logs. Use as a context manager around the work; prints to standard error, results go to output."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._live = _progress_bars(self.console) if self.console.is_terminal else None
        self._tasks: dict[str, TaskID] = {}
        self._last_line_seconds: dict[str, float] = {}
        self._first: dict[str, tuple[float, int]] = {}

    def __enter__(self) -> "ConsoleDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: events.Event) -> None:
        """Show one event."""
        match event:
            case events.Started():
                self._clear_bars()
            case events.Progress():
                self._show_progress(event)
            case events.Line():
                self._show_line(event)
            case events.Note(level="warning"):
                self.console.print(f"warning: {event.text}", style="yellow", markup=False, soft_wrap=True)
            case events.Note():
                self.console.print(indent(event.text, "  "), markup=False, soft_wrap=True)
            case events.Resumed():
                self.console.print(f"  resumed from step {event.step:,}", markup=False)
            case _:
                pass

    def _show_line(self, line: events.Line) -> None:
        self.console.print(line.text, markup=False, soft_wrap=True)
        if self._live:
            self._update_bar(self._live, events.Progress(line.phase, line.done, line.total, "steps"))

    def _show_progress(self, event: events.Progress) -> None:
        if self._live:
            self._update_bar(self._live, event)
        else:
            self._print_line(event)

    def _update_bar(self, live: Progress, event: events.Progress) -> None:
        total = event.total or None
        if event.phase not in self._tasks:
            self._tasks[event.phase] = live.add_task(event.phase, total=total, unit=event.unit, detail="")
        live.update(self._tasks[event.phase], completed=event.done, total=total, detail=event.detail)

    def _print_line(self, event: events.Progress) -> None:
        now = time.monotonic()
        first_time, first_done = self._first.setdefault(event.phase, (now, event.done))
        finished = 0 < event.total <= event.done
        if not finished and now - self._last_line_seconds.get(event.phase, now - 1e9) < PLAIN_LINE_SECONDS:
            return
        self._last_line_seconds[event.phase] = now
        speed = (event.done - first_done) / (now - first_time) if now > first_time else 0.0
        self.console.print(f"  {_plain_line(event, speed)}", markup=False, soft_wrap=True)

    def _clear_bars(self) -> None:
        self._first.clear()
        self._last_line_seconds.clear()
        if self._live:
            for task in self._tasks.values():
                self._live.remove_task(task)
        self._tasks.clear()


def _progress_bars(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:,.0f} {task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
        transient=True,
    )


def _plain_line(event: events.Progress, per_second: float) -> str:
    of_total = f"/{event.total:,}" if event.total else ""
    line = f"{event.phase} {event.done:,}{of_total} {event.unit}"
    if per_second > 0:
        line += f" | {per_second:,.1f} {event.unit}/s"
        if event.total > event.done:
            line += f" | {duration((event.total - event.done) / per_second)} left"
    return f"{line} | {event.detail}" if event.detail else line


def duration(seconds: float) -> str:
    """Return seconds as people say them: `9.4 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Return bytes as people say them: `812 B`, `4.2 MB`, `1.3 GB` (powers of ten)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
