"""The dashboard and the alerts ask only for figures that the server exports."""

import json
import re
import time
from importlib import resources

import httpx
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from caslon.engine.adapters import AdapterCounts
from caslon.engine.speculate import SpeculationCounts

FIGURE = re.compile(r"\b((?:vllm:|caslon:|process_)[a-z0-9_]+)")
# vLLM's, on which existing dashboards and autoscalers are built.
OF_VLLM = {
    "gauge": ["num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "cache_config_info", "lora_requests_info"],
    "counter": [
        "prefix_cache_queries", "prefix_cache_hits", "num_preemptions", "prompt_tokens", "generation_tokens",
        "request_success",
    ],
    "histogram": [
        "time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
        "request_queue_time_seconds", "request_prefill_time_seconds", "request_decode_time_seconds",
        "request_prompt_tokens", "request_generation_tokens", "iteration_tokens_total",
    ],
}  # fmt: skip


@pytest.fixture
def families(url: str, client: OpenAI):
    client.completions.create(model="fox", prompt="x")
    assert httpx.get(f"{url}/v1/nothing").status_code == 404
    return {family.name: family for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text)}


@pytest.mark.promise("server", "Every figure that the shipped dashboard and alerts ask for is exported")
def test_every_figure_asked_for_is_exported(families) -> None:
    exported = {sample.name for family in families.values() for sample in family.samples}
    exported.add(families["caslon:upstream_breaker_open"].name)  # a sample comes with the first upstream
    files = resources.files("caslon.server").joinpath("monitoring")
    dashboard = json.loads(files.joinpath("dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    alerts = re.findall(r"expr: (.*)", files.joinpath("alerts.yml").read_text())
    assert len(expressions) >= 25
    assert len(alerts) == 6
    for expression in [*expressions, *alerts]:
        asked = set(FIGURE.findall(expression))
        assert asked, expression
        assert asked <= exported, expression


def test_names_and_kinds_are_vllms(families) -> None:
    for kind, names in OF_VLLM.items():
        for name in names:
            assert families[f"vllm:{name}"].type == kind, name
    for family in families.values():
        if family.name.startswith("vllm:"):
            assert all(sample.labels["model_name"] == "fox" for sample in family.samples)


@pytest.mark.promise(
    "server", "Figures of adapters and of guessing ahead are the engine's own, named as vLLM names them"
)
def test_adapters_and_guesses_are_the_engines(engine, client: OpenAI, url: str) -> None:
    engine.adapters = AdapterCounts(8, 3, ("blue", "red"), ("red",))
    engine.speculation = SpeculationCounts(drafted=20, accepted=9)
    found = {family.name: family for family in text_string_to_metric_families(httpx.get(f"{url}/metrics").text)}
    [sample] = found["vllm:lora_requests_info"].samples
    names = {"running_lora_adapters": "blue,red", "waiting_lora_adapters": "red", "max_lora": "8"}
    assert sample.labels == {"model_name": "fox", **names}
    assert time.time() - 60 < sample.value <= time.time()
    figures = ("adapter_loads", "speculative_tokens_drafted", "speculative_tokens_accepted")
    assert [found[f"caslon:{name}"].samples[0].value for name in figures] == [3, 20, 9]


def test_refusals_are_counted_by_reason(families) -> None:
    [sample] = [s for s in families["caslon:requests_refused"].samples if s.name.endswith("_total")]
    assert (sample.labels, sample.value) == ({"reason": "not_found"}, 1)
