import io

from rich.console import Console

from caslon.observe.console import ConsoleDisplay, duration, size
from caslon.observe.events import EventLog, Metrics, Note, Resumed, metric_values, read_events


def test_a_resumed_log_reads_like_an_uninterrupted_one(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        for step in (1, 2, 3):
            log.emit(Metrics(step, {"train/loss": float(step)}))
    with EventLog(tmp_path / "events.jsonl") as log:
        log.emit(Resumed(2))
        for step in (3, 4):
            log.emit(Metrics(step, {"train/loss": float(step)}))
    assert metric_values(tmp_path / "events.jsonl") == {"train/loss": [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]}


def test_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.note("fine")
    with path.open("a") as file:
        file.write('{"time": 1, "kind": "no')
    assert [record["text"] for record in read_events(path)] == ["fine"]


def test_progress_is_written_once_a_second_but_its_end_always(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        for done in range(1, 101):
            log.progress("reading", done, 100, "files")
    records = list(read_events(tmp_path / "events.jsonl"))
    assert records[0]["done"] == 1
    assert records[-1]["done"] == 100
    assert len(records) < 10


def test_plain_lines_when_not_a_terminal():
    out = io.StringIO()
    with ConsoleDisplay(Console(file=out)) as display:
        log = EventLog(None, (display,))
        log.progress("reading", 5, 10, "files", "12 rejects [kept]")
        log.warn("disk is nearly full")
        log.emit(Note("info", "[not markup]"))
    text = out.getvalue()
    assert "reading 5/10 files" in text
    assert "12 rejects [kept]" in text
    assert "warning: disk is nearly full" in text
    assert "[not markup]" in text
    assert "\x1b" not in text


def test_words_for_figures():
    assert duration(9.44) == "9.4 s"
    assert duration(200) == "3 min 20 s"
    assert duration(7500) == "2 h 5 min"
    assert size(812) == "812 B"
    assert size(4_200_000) == "4.2 MB"
