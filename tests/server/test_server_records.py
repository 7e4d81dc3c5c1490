"""What is kept of requests when it is asked for: records, replays, spans, and a program's own hooks."""

import json
import time
from pathlib import Path

import httpx
import pytest
import torch
from scripted_engine import ScriptedEngine

from caslon.client import Client
from caslon.engine.engine import Engine
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.server.errors import HookRefusal
from caslon.server.records import Records, records_of
from caslon.server.replay import replayed
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.tokenizer.tokenizer import Tokenizer

COMPLETIONS = "/v1/completions"
NOW = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
SEEN: list[tuple] = []


class Monitor:
    def before_request(self, asked):
        if asked.body.get("prompt") == "cached":
            return {"choices": [{"text": "from the cache"}]}
        if asked.body.get("prompt") == "forbidden":
            raise HookRefusal("we do not answer this")
        return None

    def after_response(self, asked, answered):
        SEEN.append((asked, answered))
        raise RuntimeError("a monitor's fault is its own")


def real_engine(tokenizer, seed: int) -> Engine:
    torch.set_num_threads(1)
    config = DecoderConfig.from_depth(1, family="qwen3", vocab_size=tokenizer.vocab_size, context=128, hidden_size=32)
    decoder = Decoder(config)
    decoder.initialise(seed)
    return Engine(decoder.eval(), tokenizer, EngineSettings(max_running=4))


@pytest.mark.promise(
    "server", "A recorded request asked again gives the same tokens, or the first one that differs is shown"
)
def test_replay(tokenizer, tmp_path: Path) -> None:
    settings = ServerSettings(page=False, state=tmp_path, record_content=True)
    body = {"prompt": ["the fox", "a dog"], "n": 2, "max_tokens": 12, "temperature": 1.2, "ignore_eos": True}
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9, "temperature": 0, "stream": True}
    with real_engine(tokenizer, 3) as engine, running_server(engine, "fox", settings, fingerprint="fp_1") as url:
        for name, path, fields in (("one", COMPLETIONS, body), ("two", "/v1/chat/completions", chat)):
            headers = {"x-request-id": name}
            assert httpx.post(url + path, json=fields, headers=headers, timeout=20).status_code == 200
        with Client(url) as client:
            for name, answers in (("one", 4), ("two", 1)):
                found = replayed(records_of(tmp_path).get(name), client)
                assert (found.same_fingerprint, found.answers, found.differences) == (True, answers, ())
                assert found.tokens >= 9 * answers - 8
    with (
        real_engine(tokenizer, 4) as engine,
        running_server(engine, "fox", settings, fingerprint="fp_2") as url,
        Client(url) as client,
    ):
        found = replayed(records_of(tmp_path).get("one"), client)
    assert not found.same_fingerprint
    assert found.differences[0].recorded != found.differences[0].found


def test_texts_are_kept_only_when_asked_for_and_never_what_is_redacted(engine, tmp_path: Path) -> None:
    silent, talking = tmp_path / "silent", tmp_path / "talking"
    with running_server(engine, "fox", ServerSettings(page=False, state=silent)) as url:
        httpx.post(url + COMPLETIONS, json={"prompt": "the telephone is 555-0199"})
    assert not any(b"telephone" in path.read_bytes() for path in silent.rglob("*") if path.is_file())
    settings = ServerSettings(page=False, state=talking, record_content=True, redact=(r"\d{3}-\d{4}", "brown"))
    with running_server(engine, "fox", settings) as url:
        httpx.post(url + COMPLETIONS, json={"prompt": "the telephone is 555-0199"}, headers={"x-request-id": "mine"})
    assert not any(b"555-0199" in path.read_bytes() for path in talking.rglob("*") if path.is_file())
    record = records_of(talking).get("mine")
    assert record.body == {"prompt": "the telephone is [redacted]"}
    assert record.answers[0].text.startswith("The quick [redacted]")
    with pytest.raises(UserError, match="redacted"):
        replayed(record, Client(url))


@pytest.mark.promise("server", "Records are removed by whole requests after their days; 0 days keeps them for ever")
def test_retention(engine, tmp_path: Path) -> None:
    settings = ServerSettings(page=False, state=tmp_path, record_content=True)
    with running_server(engine, "fox", settings) as url:
        for name in ("old", "new"):
            httpx.post(url + COMPLETIONS, json={"prompt": "x", "n": 2}, headers={"x-request-id": name})
    records = Records(tmp_path, retention_days=0)
    with records._file:
        records._file.execute("UPDATE requests SET time = ? WHERE id = 'old'", [time.time() - 400 * 86_400])
    assert records.prune() == 0
    assert records.get("old").answers
    pruned = Records(tmp_path, retention_days=30)
    with pytest.raises(UserError, match="no record"):
        pruned.get("old")
    assert len(pruned.get("new").answers) == 2
    assert pruned._file.execute("SELECT count(*) FROM answers").fetchone() == (2,)


def test_hooks_see_input_and_output_apart(engine, tmp_path: Path) -> None:
    SEEN.clear()
    name = f"{__name__}:Monitor"
    with running_server(engine, "fox", ServerSettings(page=False, hooks=(name,))) as url:
        cached = httpx.post(url + COMPLETIONS, json={"prompt": "cached"})
        assert cached.json()["choices"][0]["text"] == "from the cache"
        refused = httpx.post(url + COMPLETIONS, json={"prompt": "forbidden"})
        assert (refused.status_code, refused.json()["error"]["message"]) == (400, "we do not answer this")
        assert httpx.post(url + COMPLETIONS, json={"prompt": "x", "max_tokens": 5}).status_code == 200
    assert len(engine.seen) == 1
    asked, answered = SEEN[-1]
    assert asked.body["prompt"] == "x"
    assert answered.texts == (engine.tokenizer.decode(engine.tokenizer.encode("The quick brown fox —")[:5]),)
    assert (answered.status, answered.finish, answered.completion_tokens) == (200, ("length",), 5)
    with pytest.raises(UserError, match="cannot be loaded"):
        running_server(engine, "fox", ServerSettings(page=False, hooks=("nothing:here",))).__enter__()


def test_spans_have_the_conventions_names_and_no_text(engine, tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk")
    file = tmp_path / "spans.jsonl"
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with running_server(engine, "fox", ServerSettings(page=False, traces=str(file))) as url:
        headers = {"traceparent": parent, "x-request-id": "mine"}
        httpx.post(url + COMPLETIONS, json={"prompt": "secret words", "max_tokens": 7, "user": "me"}, headers=headers)
    text = file.read_text()
    spans = {span["name"]: span for span in map(json.loads, text.splitlines())}
    assert set(spans) == {"text_completion fox", "queue", "prefill", "decode"}
    span = spans["text_completion fox"]
    assert span["context"]["trace_id"] == "0x0af7651916cd43dd8448eb211c80319c"
    assert span["parent_id"] == "0xb7ad6b7169203331"
    assert span["attributes"]["gen_ai.usage.output_tokens"] == 7
    assert span["attributes"]["gen_ai.usage.input_tokens"] == len(engine.tokenizer.encode("secret words"))
    assert span["attributes"]["gen_ai.request.max_tokens"] == 7
    assert span["resource"]["attributes"]["caslon.convention"].startswith("https://opentelemetry.io/schemas/")
    assert spans["decode"]["parent_id"] == span["context"]["span_id"]
    assert "secret" not in text
    assert "The quick" not in text


def test_tool_calls_have_a_span(tokenizer: Tokenizer, tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk")
    file = tmp_path / "spans.jsonl"
    engine = ScriptedEngine(tokenizer)
    engine.script = 'Look.<|tool_call|>{"name": "now", "arguments": {}}<|/tool_call|>'
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [NOW]}
    with running_server(engine, "fox", ServerSettings(page=False, traces=str(file))) as url:
        assert httpx.post(f"{url}/v1/chat/completions", json=body).json()["choices"][0]["finish_reason"] == "tool_calls"
    spans = {span["name"]: span for span in map(json.loads, file.read_text().splitlines())}
    assert set(spans) == {"chat fox", "queue", "prefill", "decode", "tools"}
    assert spans["tools"]["parent_id"] == spans["chat fox"]["context"]["span_id"]
    assert spans["decode"]["start_time"] <= spans["tools"]["start_time"] <= spans["tools"]["end_time"]
    assert spans["tools"]["end_time"] <= spans["decode"]["end_time"]
