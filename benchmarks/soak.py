"""A long load on the real engine with callers that leave in the middle: memory stays flat, every block comes back.

    python benchmarks/soak.py [MODEL] [--minutes 2] [--callers 8] [--output soak.json]

Without MODEL a small random one is made. Every third caller leaves after some pieces. Exit 1 when an answer is a server error, a
block is still held at the end, memory grew by more than 5 % since the first quarter, or files were left open.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

from caslon.model.load_test_model import write_load_test_model

SAMPLE_SECONDS = 2.0
MOST_GROWTH = 0.05
LEAVE_EVERY = 3


@dataclass(frozen=True)
class Sample:
    """The server at one moment."""

    seconds: float
    resident_mib: float
    files: int


@dataclass(frozen=True)
class Result:
    """What came of the load."""

    minutes: float
    answers: int
    left: int
    server_errors: int
    overloaded: int
    resident_mib_first_quarter: float
    resident_mib_end: float
    growth: float
    files_begin: int
    files_end: int
    kv_cache_used_at_end: float
    answers_open_at_end: float

    @property
    def passed(self) -> bool:
        clean = self.server_errors == 0 and self.kv_cache_used_at_end == 0 and self.answers_open_at_end == 0
        return clean and self.growth <= MOST_GROWTH and self.files_end <= self.files_begin


class Callers:
    """Threads that ask, one request after the other, until told to stop."""

    def __init__(self, url: str, count: int) -> None:
        self.url = url
        self.stopped = threading.Event()
        self.counts: Counter[str] = Counter()
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def _run(self, number: int) -> None:
        chooser = random.Random(number)
        with httpx.Client(base_url=self.url, timeout=120) as http:
            while not self.stopped.is_set():
                self._ask(http, chooser)

    def _ask(self, http: httpx.Client, chooser: random.Random) -> None:
        prompt = [chooser.randrange(1000) for _ in range(chooser.randint(1, 200))]
        body = {
            "prompt": prompt,
            "max_tokens": chooser.randint(1, 64),
            "ignore_eos": True,
            "n": chooser.choice((1, 1, 2)),
        }
        leaves = chooser.randrange(LEAVE_EVERY) == 0
        with http.stream(
            "POST", "/v1/completions", json={**body, "stream": leaves or chooser.random() < 0.5}
        ) as answer:
            self.counts[str(answer.status_code)] += 1
            pieces = answer.iter_lines()
            if leaves:
                for _ in range(chooser.randint(0, 10)):
                    next(pieces, None)
                self.counts["left"] += 1
                return
            text = "".join(pieces)
            self.counts["broken"] += "event: error" in text
            self.counts["whole"] += 1


def figure(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=30).text
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))


def soaked(url: str, process: psutil.Process, minutes: float, callers: int) -> tuple[Result, list[Sample]]:
    files_begin = process.num_fds()
    load = Callers(url, callers)
    samples = []
    began = time.monotonic()
    load.start()
    while time.monotonic() - began < 60 * minutes:
        time.sleep(SAMPLE_SECONDS)
        samples.append(Sample(time.monotonic() - began, process.memory_info().rss / 2**20, process.num_fds()))
    load.stop()
    deadline = time.monotonic() + 10
    while figure(url, "caslon:queue_running") and time.monotonic() < deadline:
        time.sleep(0.1)
    httpx.get(f"{url}/health")
    time.sleep(1)
    quarter = samples[: max(1, len(samples) // 4)]
    early, late = max(sample.resident_mib for sample in quarter), samples[-1].resident_mib
    errors = sum(count for status, count in load.counts.items() if status.startswith("5") and status != "503")
    result = Result(
        minutes, load.counts["whole"], load.counts["left"], errors + load.counts["broken"], load.counts["503"], early,
        late, late / early - 1, files_begin, process.num_fds(), figure(url, "vllm:kv_cache_usage_perc"),
        figure(url, "caslon:queue_running") + figure(url, "caslon:queue_waiting"),
    )  # fmt: skip
    return result, samples


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = options.model or write_load_test_model(Path(made) / "model")
        command = [sys.executable, "-m", "caslon", "serve", str(folder), "--port", "0", "--no-page"]
        server = subprocess.Popen([*command, "--state", f"{made}/state"], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[1].removesuffix("/v1")
            httpx.post(f"{url}/v1/completions", json={"prompt": "x"}, timeout=60)
            result, samples = soaked(url, psutil.Process(server.pid), options.minutes, options.callers)
        finally:
            server.terminate()
            server.wait()
    print(json.dumps({**asdict(result), "passed": result.passed}, indent=2))
    if options.output:
        rows = {"result": asdict(result), "samples": [asdict(sample) for sample in samples]}
        options.output.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
