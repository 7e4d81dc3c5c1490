"""Programs side by side on the same loads: rounds in turns, so that a busy moment of the machine meets all of them.

A program that fails is in the table with its reason, and the others go on. Answers are compared too: a fast program that
writes other tokens has not done the same work. The option `python` names the interpreter of a program that
has an environment of its own.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import caslon
from caslon.peers.loads import Load
from caslon.peers.peer import Ids, Setting, Spec

QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


class PeerFailed(Exception):
    """A program ended or could not load; the text says why."""


@dataclass
class Measured:
    """What came of one program. `figures` are medians by load, `same_tokens` the share of tokens equal to the first program's."""

    program: str
    version: str = ""
    dtype: str = ""
    load_seconds: float | None = None
    peak_bytes: int | None = None
    figures: dict[str, float] = field(default_factory=dict)
    same_tokens: float | None = None
    failure: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


class Worker:
    """A program in its own process."""

    def __init__(self, spec: Spec, setting: Setting) -> None:
        options = dict(spec.options)
        python = options.pop("python", sys.executable)
        given = json.dumps({**asdict(setting), "folder": str(setting.folder), "options": options})
        threads = {"OMP_NUM_THREADS": str(setting.threads), "MKL_NUM_THREADS": str(setting.threads)}
        self.measured = Measured(spec.text)
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker; a pipe would need a reader
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [python, "-m", "caslon.peers.worker", spec.name, given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env={**os.environ, **QUIET, **threads, "PYTHONPATH": str(Path(caslon.__file__).parents[1])},
        )
        ready = self._answer()
        self.measured.version, self.measured.dtype = ready["version"], ready["dtype"]
        self.measured.load_seconds = ready["load_seconds"]

    def run(self, load: Load) -> tuple[float, Ids]:
        """Answer a load once; return seconds and new ids. `PeerFailed` when the program ended."""
        assert self._process.stdin is not None
        asked = {"prompts": load.prompts, "new_tokens": load.new_tokens, "batch": load.batch}
        with contextlib.suppress(BrokenPipeError):  # its last words tell more
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        answer = self._answer()
        self.measured.peak_bytes = answer["peak_bytes"]
        return answer["seconds"], answer["ids"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._words.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._words.seek(0)
            words = self._words.read().strip()
            raise PeerFailed(words.splitlines()[-1] if words else "it ended without a word")
        answer: dict[str, Any] = json.loads(line)
        return answer


def compare(
    specs: Sequence[Spec], setting: Setting, loads: Sequence[Load], rounds: int
) -> Iterator[tuple[Load, list[Measured]]]:
    """Yield each load with the programs as measured so far; the last yield has everything."""
    with contextlib.ExitStack() as stack:
        workers, failed = [], []
        for spec in specs:
            try:
                workers.append(stack.enter_context(Worker(spec, setting)))
            except PeerFailed as error:
                failed.append(Measured(spec.text, failure=str(error)))
        agreement = {worker.measured.program: [0, 0] for worker in workers}
        for load in loads:
            workers = _measure(workers, failed, load, rounds, agreement)
            yield load, [*(worker.measured for worker in workers), *failed]


def _measure(
    workers: list[Worker], failed: list[Measured], load: Load, rounds: int, agreement: dict[str, list[int]]
) -> list[Worker]:
    """Run a load: once to warm up, then in turns. Return the programs that still live."""
    seconds: dict[str, list[float]] = {worker.measured.program: [] for worker in workers}
    alive = list(workers)
    expected: Ids | None = None
    for turn in range(rounds + 1):
        for worker in list(alive):
            name = worker.measured.program
            try:
                spent, ids = worker.run(load)
            except PeerFailed as error:
                worker.measured.failure = str(error)
                failed.append(worker.measured)
                alive.remove(worker)
                continue
            assert [len(answer) for answer in ids] == list(load.new_tokens), f"{name} wrote another number of tokens"
            if turn:
                seconds[name].append(spent)
            else:
                expected = expected or ids
                _note_agreement(worker.measured, agreement[name], expected, ids)
    for worker in alive:
        worker.measured.figures[load.name] = load.figure(statistics.median(seconds[worker.measured.program]))
    return alive


def _note_agreement(measured: Measured, counts: list[int], expected: Ids, ids: Ids) -> None:
    """Count the tokens up to the first difference of each answer: after it, the texts have parted."""
    for ours, theirs in zip(expected, ids, strict=True):
        equal = next((at for at, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), len(ours))
        counts[0] += equal
        counts[1] += len(ours)
    measured.same_tokens = counts[0] / counts[1]
