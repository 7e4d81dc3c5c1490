"""What the server measures, in Prometheus' text form with vLLM's names, so that existing dashboards read it.

Names and buckets: https://docs.vllm.ai/en/latest/design/metrics.html. Figures of the engine are read when asked for.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from caslon.engine.request import Piece, Times
from caslon.engine.sections import TOOL_CALL

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
LONG_SECONDS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Figure = float | Mapping[str, str]  # the latter are labels: the figure is the time of asking then
Figures = Callable[[], Mapping[str, Figure]]
Family = TypeVar("Family", Counter, Gauge, Histogram)


class EngineFigures(Collector):
    """The figures of engine and queue, asked for at each scrape."""

    GAUGES: Mapping[str, str] = {
        "vllm:num_requests_running": "Answers the engine is working on.",
        "vllm:num_requests_waiting": "Answers waiting for the engine.",
        "vllm:kv_cache_usage_perc": "Share of the key-value cache in use, 0 to 1.",
        "vllm:lora_requests_info": "Adapters that running and waiting requests use; the value is the time of asking.",
        "caslon:queue_waiting": "Answers waiting for their turn before the engine.",
        "caslon:queue_running": "Answers that were handed to the engine and have not ended.",
        "caslon:queue_capacity": "Answers that may run or wait.",
        "caslon:draining": "1 while the server takes no new requests because it is going down.",
    }
    COUNTERS: Mapping[str, str] = {
        "vllm:prefix_cache_queries": "Prompt tokens looked up in the prefix cache.",
        "vllm:prefix_cache_hits": "Prompt tokens found in the prefix cache.",
        "vllm:num_preemptions": "Answers set back because the cache was full.",
        "caslon:engine_steps": "Steps of the engine.",
        "caslon:speculative_tokens_drafted": "Tokens guessed ahead.",
        "caslon:speculative_tokens_accepted": "Guessed tokens that were right.",
        "caslon:adapter_loads": "Adapters loaded.",
    }

    def __init__(self) -> None:
        self.by_model: dict[str, Figures] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield a metric for each figure that is given, with a sample for each model."""
        metrics: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
        for model_name, figures in list(self.by_model.items()):
            for name, value in figures().items():
                labels, number = (value, time.time()) if isinstance(value, Mapping) else ({}, value)
                if name not in metrics:
                    metrics[name] = self._family(name, labels)
                metrics[name].add_metric([model_name, *labels.values()], number)
        yield from metrics.values()

    def _family(self, name: str, labels: Iterable[str]) -> GaugeMetricFamily | CounterMetricFamily:
        names = ["model_name", *labels]
        if name in self.GAUGES:
            return GaugeMetricFamily(name, self.GAUGES[name], labels=names)
        return CounterMetricFamily(name, self.COUNTERS[name], labels=names)

    def describe(self) -> list[Metric]:
        """Name nothing ahead, so that registering asks the engine nothing."""
        return []


class ServerMetrics:
    """All metrics of one model. Those of models that are served `beside` each other stand in one registry."""

    def __init__(self, model_name: str, figures: Figures, *, beside: "ServerMetrics | None" = None) -> None:
        self.model_name = model_name
        self.registry: CollectorRegistry = beside.registry if beside else CollectorRegistry()
        self._known: dict[str, Counter | Gauge | Histogram] = beside._known if beside else {}
        self._engines: EngineFigures = beside._engines if beside else EngineFigures()
        if beside is None:
            ProcessCollector(registry=self.registry)
            self.registry.register(self._engines)
        self._engines.by_model[model_name] = figures
        self.prompt_tokens = self._counter("vllm:prompt_tokens", "Prompt tokens read.")
        self.generation_tokens = self._counter("vllm:generation_tokens", "Tokens written.")
        self._successes = self._family(
            Counter, "vllm:request_success", "Answers ended.", ["model_name", "finished_reason"]
        )
        self._requests = self._family(Counter, "caslon:http_requests", "HTTP requests answered.", ["route", "status"])
        self._refusals = self._family(
            Counter, "caslon:requests_refused", "Requests refused, by the code of their error.", ["reason"]
        )
        self.upstream_errors = self._family(
            Counter, "caslon:upstream_errors", "Failed requests to other servers.", ["upstream", "reason"]
        )
        self.upstream_breaker = self._family(
            Gauge, "caslon:upstream_breaker_open", "1 while another server is left alone.", ["upstream"]
        )
        self.start_seconds = self._family(
            Gauge, "caslon:start_seconds", "Seconds from the start to the first answered request."
        )
        self.loop_lag = self._family(Gauge, "caslon:event_loop_lag_seconds", "How late the event loop wakes up.")
        self.first_token = self._seconds("vllm:time_to_first_token_seconds", "Receipt to first token.", SECONDS)
        self.between_tokens = self._seconds("vllm:inter_token_latency_seconds", "Token to token.", SECONDS)
        self.whole = self._seconds("vllm:e2e_request_latency_seconds", "Receipt to end.", LONG_SECONDS)
        self.queue = self._seconds("vllm:request_queue_time_seconds", "Waiting for the engine.", LONG_SECONDS)
        self.prefill = self._seconds("vllm:request_prefill_time_seconds", "Start to first token.", LONG_SECONDS)
        self.decode = self._seconds("vllm:request_decode_time_seconds", "First token to end.", LONG_SECONDS)
        self.prompt_sizes = self._seconds("vllm:request_prompt_tokens", "Prompt tokens of an answer.", TOKENS)
        self.step_tokens = self._seconds("vllm:iteration_tokens_total", "Tokens of a step of the engine.", STEP_TOKENS)
        self.answer_sizes = self._seconds("vllm:request_generation_tokens", "Tokens of an answer.", TOKENS)

    def _family(self, kind: type[Family], name: str, text: str, labels: Sequence[str] = (), **more: Any) -> Family:
        """Return a metric of the registry, made when it is first asked for."""
        if name not in self._known:
            self._known[name] = kind(name, text, labels, registry=self.registry, **more)
        found = self._known[name]
        assert isinstance(found, kind)
        return found

    def _counter(self, name: str, text: str) -> Counter:
        return self._family(Counter, name, text, ["model_name"]).labels(self.model_name)

    def _seconds(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return self._family(Histogram, name, text, ["model_name"], buckets=buckets).labels(self.model_name)

    def forget(self) -> None:
        """Ask for the figures of this model no more; what was counted stays."""
        self._engines.by_model.pop(self.model_name, None)

    def http_request(self, route: str, status: int) -> None:
        """Count an HTTP request under the route's pattern, which is one of few."""
        self._requests.labels(route, str(status)).inc()

    def refused(self, code: str) -> None:
        """Count a refusal by its code, which is one of ours."""
        self._refusals.labels(code).inc()

    def describe_cache(self, labels: Mapping[str, str]) -> None:
        """Tell how the cache is laid out, as labels of a figure that is always 1."""
        names = ["model_name", *labels]
        cache = self._family(Gauge, "vllm:cache_config_info", "Layout of the key-value cache.", names)
        cache.labels(self.model_name, *labels.values()).set(1)

    def ended(self, finish_reason: str) -> None:
        """Count the end of an answer."""
        self._successes.labels(self.model_name, finish_reason).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text form."""
        return generate_latest(self.registry)


@dataclass
class AnswerClock:
    """Takes the times and counts of one answer as its pieces come."""

    metrics: ServerMetrics
    prompt_tokens: int
    received: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    first: float | None = None
    last_token: float | None = None
    ended: float | None = None
    tokens: int = 0
    phases_known: bool = False
    tools: tuple[float, float] | None = None  # from the first to the last piece of a tool call

    def piece(self, piece: Piece) -> None:
        """Note a piece; one without tokens is none."""
        if not piece.ids:
            return
        now = time.perf_counter()
        if piece.section.kind == TOOL_CALL:
            self.tools = (self.tools[0] if self.tools else now, now)
        if self.last_token is None:
            self.first = now
            self.metrics.first_token.observe(now - self.received)
        else:
            self.metrics.between_tokens.observe((now - self.last_token) / len(piece.ids))
        self.last_token = now
        self.tokens += len(piece.ids)
        self.metrics.generation_tokens.inc(len(piece.ids))  # as they come: a dashboard shows whether work goes on

    def end(self, finish_reason: str, counted_prompt_tokens: int) -> None:
        """Note the end, whatever the reason. A prompt with several answers counts with the first of them."""
        self.ended = time.perf_counter()
        self.metrics.whole.observe(self.ended - self.received)
        self.metrics.ended(finish_reason)
        self.metrics.prompt_tokens.inc(counted_prompt_tokens)
        self.metrics.prompt_sizes.observe(self.prompt_tokens)
        self.metrics.answer_sizes.observe(self.tokens)

    def phases(self, times: Times) -> None:
        """Note how the engine spent the time; a second call changes nothing."""
        if self.phases_known or times.queued is None:
            return
        self.phases_known = True
        self.metrics.queue.observe(times.queued)
        if times.first_token is not None:
            self.metrics.prefill.observe(times.first_token - times.queued)
            self.metrics.decode.observe(times.end - times.first_token)
