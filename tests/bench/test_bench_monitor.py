"""A watched service: what its counters and its log say, and when to raise an alarm."""

import io
import json
from pathlib import Path

import httpx
import pytest

from caslon.bench.monitor import Alarms, LogReader, MetricsReader, Sample, samples
from caslon.commands.bench_monitor import MonitorLines

LINE = (
    "INFO 04-01 12:00:00 loggers.py:111] Engine 000: Avg prompt throughput: 512.3 tokens/s, Avg generation throughput: "
    "1378.3 tokens/s, Running: 16 reqs, Waiting: 2 reqs, GPU KV cache usage: 12.5%, Prefix cache hit rate: 40.0%\n"
)


def sample(at: float, generation: float, *, running: int = 1, cache: float = 0.1) -> Sample:
    return Sample(at, 0.0, generation, running, 0, cache, None, 0)


def test_samples_of_metrics_are_differences() -> None:
    texts = iter(
        [
            "vllm:prompt_tokens_total 100\nvllm:generation_tokens_total 50\nvllm:request_success_total 1\n",
            'vllm:prompt_tokens_total 300\nvllm:generation_tokens_total 90\nvllm:request_success_total{r="stop"} 2\n'
            'vllm:request_success_total{r="length"} 1\nvllm:num_requests_running 3\nvllm:kv_cache_usage_perc 0.25\n'
            "vllm:prefix_cache_hits_total 30\nvllm:prefix_cache_queries_total 120\n",
        ]
    )
    http = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, text=next(texts))))
    reader = MetricsReader("http://service", http)
    assert reader.sample(10.0) is None
    found = reader.sample(12.0)
    assert found == Sample(12.0, 100.0, 20.0, 3, None, 0.25, 0.25, 2)
    assert json.loads(found.to_json())["generation_tokens_per_second"] == 20.0


def test_samples_of_a_log_in_the_words_of_vllm() -> None:
    post = 'INFO:     127.0.0.1:5 - "POST /v1/completions HTTP/1.1" 200 OK\n'
    reader = LogReader(io.StringIO("nothing yet\n" + post + LINE + post))
    assert reader.sample(1.0) == Sample(1.0, 512.3, 1378.3, 16, 2, 0.125, 0.4, 2)
    assert next(samples(LogReader(io.StringIO(LINE)), 2.0, lambda seconds: None)).running == 16


@pytest.mark.promise(
    "bench", "the monitor raises an alarm when requests run and no token comes for 30 seconds, or the cache is full"
)
def test_alarms() -> None:
    alarms = Alarms()
    assert alarms.of(sample(0, 50)) == []
    assert alarms.of(sample(29, 0)) == []
    assert alarms.of(sample(30, 0)) == ["no token for 30 s with 1 requests running"]
    assert alarms.of(sample(32, 0)) == []  # said once
    assert alarms.of(sample(34, 10)) == []
    assert alarms.of(sample(70, 0)) == ["no token for 36 s with 1 requests running"]
    assert alarms.of(sample(72, 0, running=0)) == []  # nobody waits for one
    assert alarms.of(sample(74, 5, cache=0.95)) == ["key-value cache 95% full"]


def test_lines_show_what_is_known() -> None:
    lines = MonitorLines()
    lines.of(sample(0, 10))
    line = lines.of(Sample(2, None, 20.0, 3, None, 0.25, None, 1))
    assert "20.0" in line
    assert "25%" in line
    assert line.endswith("▁█")


def test_the_log_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text(LINE)
    with path.open() as file:
        reader = LogReader(file)
        assert reader.sample(0) is not None
        with path.open("a") as more:
            more.write(LINE.replace("1378.3", "7.0"))
        found = reader.sample(2)
    assert found is not None
    assert found.generation_tokens_per_second == 7.0
