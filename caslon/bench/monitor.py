"""A running service to a line every two seconds: throughput, cache, queue, requests; and an alarm when it stands still.

It reads `/metrics`, or follows a log in which the engine says how it fares, in vLLM's words. Nothing is sent but the reads.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

import httpx

from caslon.bench.server_metrics import PATH, growth, totals
from caslon.errors import CaslonError, UserError

INTERVAL_SECONDS = 2.0
SILENCE_SECONDS = 30.0
FULL_CACHE = 0.95
_ENGINE_LINE = re.compile(
    r"Avg prompt throughput: (?P<prompt>[\d.]+) tokens/s, Avg generation throughput: (?P<generation>[\d.]+) tokens/s, "
    r"Running: (?P<running>\d+) reqs, Waiting: (?P<waiting>\d+) reqs, "
    r"GPU KV cache usage: (?P<cache>[\d.]+)%(?:, Prefix cache hit rate: (?P<hits>[\d.]+)%)?"
)
_POST_LINE = re.compile(r'"POST (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d{3})')


@dataclass(frozen=True)
class Sample:
    """How a service fares at one moment. Shares are 0 to 1; what it does not tell is None."""

    time: float
    prompt_tokens_per_second: float | None
    generation_tokens_per_second: float | None
    running: int | None
    waiting: int | None
    cache_usage: float | None
    prefix_hit_rate: float | None
    requests: int | None  # ended since the sample before

    def to_json(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass
class Alarms:
    """Tells when a service stands still or its cache is full; each alarm once until it is over."""

    _generated: float | None = None
    _raised: set[str] = field(default_factory=set)

    def of(self, sample: Sample) -> list[str]:
        """Return the alarms that begin with this sample."""
        if not sample.running or sample.generation_tokens_per_second or self._generated is None:
            self._generated = sample.time
        silent = sample.time - self._generated
        states = {
            "still": (silent >= SILENCE_SECONDS, f"no token for {silent:.0f} s with {sample.running} requests running"),
            "full": ((sample.cache_usage or 0.0) >= FULL_CACHE, f"key-value cache {sample.cache_usage or 0:.0%} full"),
        }
        begun = [text for name, (on, text) in states.items() if on and name not in self._raised]
        self._raised = {name for name, (on, _) in states.items() if on}
        return begun


class MetricsReader:
    """Reads a service's counters; a sample says what happened since the one before."""

    def __init__(self, url: str, http: httpx.Client) -> None:
        self._url = url
        self._http = http
        self._before: Mapping[str, float] = {}
        self._time = 0.0

    def sample(self, now: float) -> Sample | None:
        """Return the sample of this moment; None the first time, when there is nothing to compare with."""
        try:
            response = self._http.get(f"{self._url}{PATH}").raise_for_status()
        except httpx.HTTPError as error:
            raise CaslonError(
                f"no metrics: {error}", where=self._url, fix="is it running, and may the key read them?"
            ) from error
        after = totals(response.text)
        before, self._before = self._before, after
        seconds, self._time = now - self._time, now
        if not before:
            return None

        def grown(name: str) -> float | None:
            return growth(before, after, name)

        prompt, generation = grown("vllm:prompt_tokens_total"), grown("vllm:generation_tokens_total")
        hits, queries = grown("vllm:prefix_cache_hits_total"), grown("vllm:prefix_cache_queries_total")
        ended = grown("vllm:request_success_total")
        return Sample(
            time=now,
            prompt_tokens_per_second=None if prompt is None else prompt / seconds,
            generation_tokens_per_second=None if generation is None else generation / seconds,
            running=_whole(after.get("vllm:num_requests_running")),
            waiting=_whole(after.get("vllm:num_requests_waiting")),
            cache_usage=after.get("vllm:kv_cache_usage_perc"),
            prefix_hit_rate=hits / queries if hits is not None and queries else None,
            requests=_whole(ended),
        )


class LogReader:
    """Follows a log file; a sample is the engine's last line about itself, and the POST lines since the one before."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._last: re.Match[str] | None = None

    def sample(self, now: float) -> Sample | None:
        """Return the sample of this moment; None until the engine has said a word."""
        posts = 0
        for line in self._file:
            self._last = _ENGINE_LINE.search(line) or self._last
            posts += _POST_LINE.search(line) is not None
        if self._last is None:
            return None
        said = self._last.groupdict()
        return Sample(
            time=now,
            prompt_tokens_per_second=float(said["prompt"]),
            generation_tokens_per_second=float(said["generation"]),
            running=int(said["running"]),
            waiting=int(said["waiting"]),
            cache_usage=float(said["cache"]) / 100,
            prefix_hit_rate=None if said["hits"] is None else float(said["hits"]) / 100,
            requests=posts,
        )


def samples(
    reader: MetricsReader | LogReader, interval_seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Sample]:
    """Yield a sample at every interval, for ever."""
    while True:
        found = reader.sample(time.time())
        if found is not None:
            yield found
        sleep(interval_seconds)


def opened_log(path: Path) -> TextIO:
    """Return a log file to follow; `UserError` where there is none."""
    if not path.is_file():
        raise UserError(f"no file {path}", where="--log")
    return path.open(encoding="utf-8", errors="replace")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
