"""A build on a real Ray cluster gives the bytes of a serial one, also when its workers are killed in the middle."""

import ipaddress
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from made_documents import folder_of_texts
from test_corpus_pipeline import build_corpus, content

from caslon.corpus import batches
from caslon.corpus.phases import finishing, judging, reading
from caslon.corpus.workers import PRIVATE, Workers
from caslon.errors import UserError

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason='ray is not installed (pip install "caslon[ray]")')
FILES = 4  # of a batch, so that each phase has several


@pytest.fixture(scope="module", autouse=True)
def by_value() -> Iterator[None]:
    """The functions of this file go to the workers as code: they do not have the folder of tests."""
    os.environ.update(PRIVATE)  # before ray is imported
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_FILES", FILES)


def dying(function: Callable[[Any, Any], Any], marks: Path, phase: str) -> Callable[[Any, Any], Any]:
    """Return a phase's function that kills its own process at the second batch, once."""

    def call(batch: Any, task: Any) -> Any:
        result = function(batch, task)
        mark = marks / phase
        if batch.number == 1 and not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def square(number: int) -> int:
    if number < 0:
        raise UserError("negative")
    return number * number


def where(_: int) -> tuple[str, str | None]:
    import caslon

    return caslon.__file__, os.environ.get("RAY_USAGE_STATS_ENABLED")


def listening(processes: list[psutil.Process]) -> set[str]:
    """Return the addresses on which processes wait for connections."""
    found = set()
    for process in processes:
        try:
            connections = process.net_connections(kind="inet")
        except psutil.Error:  # ended meanwhile
            continue
        found.update(connection.laddr.ip for connection in connections if connection.status == psutil.CONN_LISTEN)
    return found


def dashboards(processes: list[psutil.Process]) -> list[list[str]]:
    """Return the command lines of Ray's dashboard processes: one runs in every cluster, with or without its page."""
    commands = [process.cmdline() for process in processes if process.is_running()]
    return [command for command in commands if any(part.endswith("dashboard.py") for part in command)]


def is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address)
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def test_a_cluster_of_ones_own_is_private_answers_in_order_and_leaves_nothing() -> None:
    import caslon

    before = set(psutil.Process().children(recursive=True))
    with Workers(2, "ray") as workers:
        assert list(workers.in_order(square, range(12))) == [number * number for number in range(12)]
        started = [child for child in psutil.Process().children(recursive=True) if child not in before]
        assert started
        places = listening([psutil.Process(), *started])
        assert places
        assert all(map(is_loopback, places)), places
        assert all("--disable-frontend" in command for command in dashboards(started))
        assert next(workers.in_order(where, [0])) == (caslon.__file__, "0")
        with pytest.raises(UserError, match="negative"):
            list(workers.in_order(square, [1, -1, 2]))
    assert not sys.modules["ray"].is_initialized()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert not alive


@pytest.mark.slow
@pytest.mark.usefixtures("small_batches")
def test_a_build_whose_workers_are_killed_in_every_phase_has_the_serial_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = folder_of_texts(tmp_path / "texts")
    serial = build_corpus(texts, tmp_path / "serial")
    marks = tmp_path / "killed"
    marks.mkdir()
    for phase in (reading, judging, finishing):
        name = next(name for name in ("read_batch", "judge_batch", "finish_batch") if hasattr(phase, name))
        monkeypatch.setattr(f"caslon.corpus.pipeline.{name}", dying(getattr(phase, name), marks, name))
    on_ray = build_corpus(texts, tmp_path / "ray", workers=2, backend="ray")
    assert {mark.name for mark in marks.iterdir()} == {"read_batch", "judge_batch", "finish_batch"}
    assert on_ray.dataset_id == serial.dataset_id
    assert content(tmp_path / "ray") == content(tmp_path / "serial")
