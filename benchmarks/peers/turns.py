"""Commands from one process to steps of a trainer in another: "take so many steps", answered with the seconds they took.

A trainer keeps its own loop. It is held at the end of an optimiser's step, through the hook that torch calls after every one, so
that a loop that was never written for it waits for its turn there, with its threads asleep. Lines of JSON go both ways.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

LAST_LINES = 3
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Job:
    """What a worker trains: the name of a trainer and all that it needs."""

    trainer: str
    work: str  # a folder of its own
    data: str  # the folder with the tokens, or the text
    threads: int
    precision: str = "fp32"
    source: str = ""  # the clone of the project, where there is one
    shape: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


class WorkerFailed(Exception):
    """A worker ended; the message is the last it said."""


class Turns:
    """The worker's end: the steps that may be taken, and when they began."""

    def __init__(self, commands: TextIO, answers: TextIO) -> None:
        self.commands, self.answers = commands, answers
        self.facts: dict[str, Any] = {}  # sent with every answer
        self.measure: Callable[[], float] | None = None  # of the model as it is, when it is asked for
        self.left, self.measures, self.began = 0, False, 0.0

    def wait(self) -> None:
        """Wait for the next command; the process ends when none will come."""
        line = self.commands.readline()
        if not line:
            os._exit(0)  # in the midst of a loop that nothing else ends
        command = json.loads(line)
        self.left, self.measures = command["steps"], command["measure"]
        self.began = time.perf_counter()

    def step_done(self) -> None:
        """Count a step; after the last that was allowed, answer and wait."""
        self.left -= 1
        if self.left:
            return
        answer = {"seconds": time.perf_counter() - self.began}
        if self.measures and self.measure:
            answer["value"] = self.measure()
        self.answer(answer)
        self.wait()

    def answer(self, values: dict[str, Any]) -> None:
        print(json.dumps(self.facts | values), file=self.answers, flush=True)

    def hold_after_optimizer(self) -> None:
        """Take the end of every step of a torch optimiser, whoever calls it, as the end of a training step."""
        from torch.optim.optimizer import register_optimizer_step_post_hook

        def ended(optimizer: Any, _args: Any, _kwargs: Any) -> None:
            if "parameters" not in self.facts:
                groups = optimizer.param_groups
                self.facts["parameters"] = sum(one.numel() for group in groups for one in group["params"])
            self.step_done()

        register_optimizer_step_post_hook(ended)


class Worker:
    """The other end: a process that trains when it is told to."""

    def __init__(self, job: Job, python: str = sys.executable) -> None:
        Path(job.work).mkdir(parents=True, exist_ok=True)
        self.log = Path(job.work) / "log.txt"
        paths = [str(ROOT), str(ROOT / "benchmarks")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "OMP_NUM_THREADS": str(job.threads),
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "disabled",
        }
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [python, "-m", "peers", json.dumps(asdict(job))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=job.work,
            )

    def take(self, steps: int, *, measure: bool = False) -> dict[str, Any]:
        """Return the answer to a command: `seconds`, and what else the worker tells; `WorkerFailed` when it has ended."""
        commands, answers = cast(TextIO, self.process.stdin), cast(TextIO, self.process.stdout)
        try:
            print(json.dumps({"steps": steps, "measure": measure}), file=commands, flush=True)
            line = answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerFailed(self._last_words())
        return cast(dict[str, Any], json.loads(line))

    def close(self) -> None:
        """End the process."""
        cast(TextIO, self.process.stdin).close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def _last_words(self) -> str:
        self.process.wait()
        said = [line.strip() for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines()]
        return " / ".join([line for line in said if line][-LAST_LINES:]) or f"ended with {self.process.returncode}"


def in_turns(workers: Sequence[Worker], number: int) -> Sequence[Worker]:
    """Return the order of a round: forwards, then backwards, so that no one always follows the same neighbour."""
    return workers if number % 2 == 0 else workers[::-1]
