"""Rising load on the streaming endpoint of any OpenAI-compatible server, with Locust.

    locust -f benchmarks/locustfile.py --headless -u 50 -r 1 -t 10m --csv llm [-H http://127.0.0.1:8000]

Beside Locust's own files it writes stats.csv, a line for each request: when it ended, among how many users, latency, time to the
first token, tokens by the server's own count. `caslon bench knee stats.csv` reads it. Needs: pip install "caslon[load]"
"""

import csv
import json
import random
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, TextIO

from locust import HttpUser, constant, events, task
from locust.env import Environment

from caslon.bench.knee import COLUMNS

ENDPOINT = "/v1/completions"
WORDS = (
    "ship",
    "river",
    "night",
    "stone",
    "market",
    "bridge",
    "candle",
    "garden",
    "winter",
    "letter",
    "sailor",
    "window",
)


class Record:
    """The file of all requests."""

    def __init__(self, path: Path) -> None:
        self.began = time.perf_counter()
        self._file: TextIO = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def add(self, users: int, latency: float, ttft: float | None, tokens: int, error: str) -> None:
        rate = tokens / latency if latency and not error else 0.0
        ended = time.perf_counter() - self.began
        first = "" if ttft is None else f"{ttft:.6f}"
        self._writer.writerow([f"{ended:.6f}", users, f"{latency:.6f}", first, tokens, f"{rate:.3f}", error])
        self._file.flush()


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--model", default="", help="which of the server's models; default: its only one")
    parser.add_argument("--prompt-words", type=int, default=200)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--stats-file", default="stats.csv")


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def open_record(environment: Environment, **_: Any) -> None:
    environment.caslon_record = Record(Path(environment.parsed_options.stats_file))  # type: ignore[attr-defined, union-attr]


class Reader(HttpUser):
    """Asks for a completion, reads it as it comes, asks again."""

    host = "http://127.0.0.1:8000"
    wait_time = constant(0)

    def on_start(self) -> None:
        self.options = self.environment.parsed_options
        self.model = self.options.model or self.client.get("/v1/models").json()["data"][0]["id"]

    @task
    def ask(self) -> None:
        prompt = " ".join(random.choices(WORDS, k=self.options.prompt_words))
        fields = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": self.options.output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        began = time.perf_counter()
        with self.client.post(ENDPOINT, json=fields, stream=True, catch_response=True, name=ENDPOINT) as response:
            ttft, tokens, error = self._read(response, began)
            latency = time.perf_counter() - began
            response.request_meta["response_time"] = 1000 * latency  # Locust's own ends with the headers
            if error:
                response.failure(error)
        users = self.environment.runner.user_count
        self.environment.caslon_record.add(users, latency, ttft, tokens, error)
        if ttft is not None:
            events.request.fire(  # type: ignore[no-untyped-call]
                request_type="TTFT",
                name=ENDPOINT,
                response_time=1000 * ttft,
                response_length=0,
                exception=None,
                context={},
            )

    def _read(self, response: Any, began: float) -> tuple[float | None, int, str]:
        """Return the seconds to the first piece of text, the tokens by the server's count, and what went wrong."""
        if response.status_code != 200:
            return None, 0, f"HTTP {response.status_code}"
        ttft, tokens, ended = None, 0, False
        for line in response.iter_lines():
            data = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
            if not data:
                continue
            if data == b"[DONE]":
                ended = True
                break
            event = json.loads(data)
            if "error" in event:
                return ttft, tokens, str(event["error"].get("message"))
            if event.get("choices") and ttft is None:
                ttft = time.perf_counter() - began
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
        return ttft, tokens, "" if ended else "the answer broke off"
