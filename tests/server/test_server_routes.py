import re

import httpx
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

import caslon


def test_models(client: OpenAI) -> None:
    [model] = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("fox", "model", "caslon")
    assert model.max_model_len == 200
    assert client.models.retrieve("fox").id == "fox"


def test_health_and_version(url: str) -> None:
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{url}/health/live").status_code == 200
    assert httpx.get(f"{url}/health/ready").status_code == 200
    version = httpx.get(f"{url}/version").json()
    assert version["version"] == caslon.__version__
    assert re.fullmatch("unknown|[0-9a-f]{40}(-dirty)?", version["commit"])


def test_tokenize_and_back(url: str, tokenizer) -> None:
    text = "the fox <|end|> ü 🦊"
    answer = httpx.post(f"{url}/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert answer["tokens"] == tokenizer.encode(text)
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["max_model_len"] == 200
    assert httpx.post(f"{url}/detokenize", json={"tokens": answer["tokens"]}).json() == {"prompt": text}


def test_tokenize_a_conversation(url: str, tokenizer) -> None:
    messages = [{"role": "user", "content": "hello"}]
    answer = httpx.post(f"{url}/tokenize", json={"messages": messages}).json()
    assert answer["tokens"] == tokenizer.encode_chat(messages, add_generation_prompt=True).ids
    answer = httpx.post(f"{url}/tokenize", json={"messages": messages, "add_generation_prompt": False}).json()
    assert answer["tokens"] == tokenizer.encode_chat(messages).ids


def test_tokenize_one_or_the_other(url: str) -> None:
    assert httpx.post(f"{url}/tokenize", json={}).status_code == 400
    assert httpx.post(f"{url}/tokenize", json={"prompt": "x", "messages": [{"role": "user", "content": "x"}]}).is_error
    assert httpx.post(f"{url}/detokenize", json={"tokens": [1 << 40]}).status_code == 400


def test_api_description_needs_nothing_from_outside(url: str) -> None:
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    body = paths["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "temperature" in body["properties"]
    page = httpx.get(f"{url}/docs").text
    assert "temperature" in page
    assert "http://" not in page
    assert "https://" not in page


def test_metrics_count_what_was_done(url: str, client: OpenAI) -> None:
    client.completions.create(model="fox", prompt="the fox", max_tokens=10)
    client.completions.create(model="fox", prompt="the fox", max_tokens=60, stop="lazy")
    response = httpx.get(f"{url}/metrics")
    samples = {
        (sample.name, sample.labels.get("finished_reason")): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
        if sample.labels.get("model_name") == "fox"
    }
    assert samples["vllm:prompt_tokens_total", None] == 4
    assert samples["vllm:generation_tokens_total", None] > 10
    assert samples["vllm:request_success_total", "length"] == 1
    assert samples["vllm:request_success_total", "stop"] == 1
    assert samples["vllm:kv_cache_usage_perc", None] == 0.25
    assert samples["vllm:num_requests_running", None] == 1
    assert samples["vllm:prefix_cache_hits_total", None] == 3
    for name in (
        "time_to_first_token_seconds",
        "e2e_request_latency_seconds",
        "request_queue_time_seconds",
        "request_prefill_time_seconds",
        "request_decode_time_seconds",
        "request_prompt_tokens",
        "request_generation_tokens",
    ):
        assert samples[f"vllm:{name}_count", None] == 2, name
    assert samples["vllm:inter_token_latency_seconds_count", None] > 0
    assert 'caslon:http_requests_total{route="/v1/completions",status="200"} 2.0' in response.text


def test_labels_stay_few_and_hold_nothing_of_the_users(url: str) -> None:
    for number in range(5):
        httpx.get(f"{url}/secret-{number}")
        httpx.get(f"{url}/v1/models/secret-{number}")
    text = httpx.get(f"{url}/metrics").text
    assert "secret" not in text
