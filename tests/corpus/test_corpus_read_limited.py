import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from limits_to_break import shouted

from caslon.corpus.document import Document, Reject
from caslon.corpus.read import read
from caslon.corpus.read.limited import LimitedReader
from caslon.corpus.settings import ReadLimits

MEMORY_BYTES = 256 << 20


@pytest.fixture
def reader():
    with LimitedReader(ReadLimits(seconds=30, memory_bytes=MEMORY_BYTES), then=shouted, then_step="shout") as reader:
        yield reader


def only(found) -> Document | Reject:
    (item,) = found
    return item


def test_the_same_documents_as_without_limits(make_raw) -> None:
    raws = [make_raw("A plain text.\n\nIn two parts."), make_raw("<p>One</p><p>Two</p>", "a.html"), make_raw("\x00 ")]
    with LimitedReader(ReadLimits()) as reader:
        for raw in raws:
            assert list(reader.read(raw)) == list(read(raw))


def test_a_function_is_applied_in_the_process(make_raw, reader) -> None:
    found = only(reader.read(make_raw("In this process?")))
    assert found.text == "IN THIS PROCESS?"


@pytest.mark.parametrize(
    ("action", "code", "words"),
    [
        ("grow", "timeout", "268,435,456 bytes of memory"),
        ("crash", "step_failed", "SIGSEGV"),
        ("leave", "step_failed", "status 3"),
        ("fail", "step_failed", "ZeroDivisionError: a text no one thought of (at limits_to_break.py:"),
    ],
)
def test_a_bad_file_costs_itself_alone(make_raw, reader, action: str, code: str, words: str) -> None:
    raws = [make_raw("before"), make_raw(action, "bad.txt"), make_raw("after")]
    before, bad, after = (only(reader.read(raw)) for raw in raws)
    assert (before.text, after.text) == ("BEFORE", "AFTER")
    assert isinstance(bad, Reject)
    assert (bad.code, bad.text, bad.origin.path) == (code, action, "bad.txt")
    assert words in bad.reason
    assert bad.step == ("shout" if action == "fail" else "read")


@pytest.mark.parametrize("action", ["hang", "spin"])
def test_a_hang_is_cut_short(make_raw, action: str) -> None:
    with LimitedReader(ReadLimits(seconds=0.5), then=shouted) as reader:
        assert only(reader.read(make_raw("before"))).text == "BEFORE"
        begun = time.monotonic()
        assert only(reader.read(make_raw(action))).code == "timeout"
        assert 0.4 < time.monotonic() - begun < 8
        assert only(reader.read(make_raw("after"))).text == "AFTER"


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell the time of another process")
def test_a_good_file_is_not_lost_to_a_busy_machine(make_raw) -> None:
    with LimitedReader(ReadLimits(seconds=0.5), then=shouted) as reader:
        assert only(reader.read(make_raw("before"))).text == "BEFORE"
        begun = time.monotonic()
        assert only(reader.read(make_raw("starve"))).text == "STARVE"
        assert time.monotonic() - begun > 1.5


def test_what_was_found_before_the_end_is_kept(make_raw, reader) -> None:
    trials = "".join(
        f'<div1 type="trialAccount" id="t{n}"><p>{text}</p></div1>' for n, text in enumerate(["one", "crash"])
    )
    raw = make_raw(f'<TEI.2><text><body><div0 type="sessionsPaper" id="s">{trials}</div0></body></text></TEI.2>')
    first, rest = reader.read(raw)
    assert (first.text, first.origin.record) == ("ONE", "t0")
    assert (rest.code, rest.origin.record) == ("step_failed", "step_failed")
    assert "1 documents or rejects came before" in rest.reason


def test_memory_counts_for_each_file_anew(make_raw) -> None:
    """A process that holds much already still has the whole allowance for the next file."""
    with LimitedReader(ReadLimits(memory_bytes=1 << 26), then=shouted) as reader:
        for _ in range(5):
            assert isinstance(only(reader.read(make_raw("word " * 1_000_000))), Document)


def test_a_reader_left_early_and_two_at_once(make_raw, reader) -> None:
    many = make_raw(
        '"""Module."""\n' + "\n".join(f'def f{n}():\n    """Docstring {n}."""\n' for n in range(50)), "a.py"
    )
    left = reader.read(many)
    next(left)
    assert only(reader.read(make_raw("beside"))).text == "BESIDE"
    left.close()
    assert only(reader.read(make_raw("after"))).text == "AFTER"


def test_the_process_is_handed_on(make_raw) -> None:
    pids = []
    for _ in range(2):
        with LimitedReader(ReadLimits()) as reader:
            list(reader.read(make_raw("words")))
            pids.append(reader._child._process.pid)
    assert pids[0] == pids[1]


def test_the_process_ends_with_a_killed_parent(tmp_path: Path) -> None:
    program = """
        import os, signal
        from caslon.corpus.collect import RawFile
        from caslon.corpus.read.limited import LimitedReader
        from caslon.corpus.settings import ReadLimits
        reader = LimitedReader(ReadLimits())
        list(reader.read(RawFile("test", "a.txt", "", b"words", "0")))
        print(reader._child._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    child = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").exists() and Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the reading process lives on")
