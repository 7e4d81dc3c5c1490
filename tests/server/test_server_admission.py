"""Keys, limits, turns, timeouts and the audit log, as they work together in a running server."""

import contextlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from caslon.errors import CaslonError
from caslon.server.allowance import Allowance
from caslon.server.audit import AuditLog, Head, audit_lines, verify_audit
from caslon.server.keys import KeyStore
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.server.watch import Watch

COMPLETIONS = "/v1/completions"


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore.made(tmp_path)


@pytest.fixture
def settings(tmp_path: Path, store: KeyStore) -> ServerSettings:
    return ServerSettings(page=False, max_queue=4, state=tmp_path, limits=("key:requests_per_minute=1000",))


def asking(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=20)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_limits_are_told_and_kept(url: str, store: KeyStore) -> None:
    _, shown = store.create("small", allowance=Allowance(requests_per_minute=2, tokens_per_day=60))
    with asking(url, shown) as http:
        first = http.post(COMPLETIONS, json={"prompt": "x", "max_tokens": 5})
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert code(http.post(COMPLETIONS, json={"prompt": "x", "max_tokens": 90})) == (429, "budget_exceeded")
        refused = http.post(COMPLETIONS, json={"prompt": "x", "max_tokens": 5})
        assert code(refused) == (429, "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.promise("server", "Every answer of the API tells what is left of the caller's limits, errors included")
def test_every_answer_tells_what_is_left(url: str, store: KeyStore) -> None:
    _, shown = store.create("small", allowance=Allowance(requests_per_minute=4, tokens_per_day=60))
    names = [f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")]
    long, short = {"prompt": "x", "max_tokens": 90}, {"prompt": "x", "max_tokens": 5}
    with asking(url, shown) as http:
        answers = [http.get("/v1/models"), http.get("/v1/nothing"), http.post("/v1/embeddings", json={"input": "x"})]
        answers += [http.post(COMPLETIONS, content=b"{"), http.post(COMPLETIONS, json={"prompt": "x", "modle": 1})]
        answers += [http.post(COMPLETIONS, json={**body, "stream": body is short}) for body in (short, long, short)]
    assert [answer.status_code for answer in answers] == [200, 404, 403, 400, 400, 200, 429, 429]
    for answer in answers:
        assert set(names) <= set(answer.headers), answer.status_code
    assert [answer.headers[names[2]] for answer in answers] == ["4", "4", "4", "3", "2", "1", "0", "0"]
    assert {answer.headers[names[3]] for answer in answers[:5]} == {"60"}


def test_a_key_does_what_its_scopes_and_models_say(url: str, store: KeyStore) -> None:
    _, metrics = store.create("prometheus", scopes=("metrics",))
    with asking(url, metrics) as http:
        assert http.get("/metrics").status_code == 200
        assert code(http.post(COMPLETIONS, json={"prompt": "x"})) == (403, "scope_missing")
    _, other = store.create("other", models=("wolf",))
    with asking(url, other) as http:
        assert http.get("/v1/models").json()["data"] == []
        assert code(http.post(COMPLETIONS, json={"prompt": "x"})) == (403, "model_not_allowed")
        assert code(http.get("/metrics")) == (403, "scope_missing")


@pytest.mark.promise("server", "A revoked key ends its running streams within a second, with an error event")
def test_revocation_ends_running_streams(url: str, store: KeyStore, engine) -> None:
    engine.seconds_per_token = 0.05
    key, shown = store.create("laptop")
    body = {"prompt": "x", "max_tokens": 190, "stream": True}
    with asking(url, shown) as http, http.stream("POST", COMPLETIONS, json=body) as response:
        lines = response.iter_lines()
        next(lines)
        store.revoke(key.id)
        revoked = time.monotonic()
        rest = [line for line in lines if line]
        assert time.monotonic() - revoked < 5  # of 9.5 that the answer would take
    assert rest[-2] == "event: error"
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "invalid_api_key"
    assert engine.finished == ["abort"]


def test_the_audit_log_and_the_metrics_agree(url: str, store: KeyStore, engine, tmp_path: Path) -> None:
    key, shown = store.create("laptop", scopes=("infer", "metrics"))
    engine.seconds_per_token = 0.001

    def ask(number: int) -> None:
        with asking(url, shown) as http:
            body = {"prompt": "the fox", "max_tokens": 20 + number, "n": 1 + number % 2, "stream": number % 3 == 0}
            if number % 5 != 4:
                http.post(COMPLETIONS, json=body)
                return
            with http.stream("POST", COMPLETIONS, json={**body, "stream": True}) as response:
                next(response.iter_lines(), None)  # and leave

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(30)))
    with asking(url, shown) as http:
        assert http.post(COMPLETIONS, json={"prompt": "x", "temperature": 9}).status_code == 400
        wait_for(lambda: len(list(audit_lines(tmp_path))) == 31)
        text = http.get("/metrics").text
    lines = list(audit_lines(tmp_path))
    assert verify_audit(tmp_path).lines == 31
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    values = {sample.name: sample.value for sample in samples}
    assert values["vllm:prompt_tokens_total"] == sum(line["prompt_tokens"] for line in lines)
    assert values["vllm:generation_tokens_total"] == sum(line["completion_tokens"] for line in lines)
    reasons = {
        sample.labels["finished_reason"]: sample.value
        for sample in samples
        if sample.name == "vllm:request_success_total"
    }
    assert reasons == Counter(reason for line in lines for reason in line["finish"])
    statuses = {
        sample.labels["status"]: sample.value
        for sample in samples
        if sample.name == "caslon:http_requests_total" and sample.labels["route"] == COMPLETIONS
    }
    assert statuses == Counter(str(line["status"]) for line in lines)
    assert {line["key"] for line in lines} == {key.id}
    [used] = [row for row in accounts_of(tmp_path).usage() if row.holder == f"key:{key.id}"]
    assert (used.requests, used.prompt_tokens) == (31, values["vllm:prompt_tokens_total"])


def accounts_of(folder: Path):
    from caslon.server.accounts import Accounts

    return Accounts(folder)


@pytest.mark.promise("server", "A key shown to the server stands in no answer, log, metric or file of it")
def test_no_secret_comes_out(url: str, store: KeyStore, engine, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.DEBUG, "caslon")
    _, shown = store.create("laptop", scopes=("infer", "metrics"))
    planted = [shown.split("-", 3)[3], "planted-secret-0123456789"]
    outputs = []
    for key in (shown, f"sk-caslon-{planted[1]}", planted[1], shown.replace("caslon", planted[1])):
        with asking(url, key) as http:
            outputs += [
                http.get(path).text for path in ("/v1/models", "/v1/nothing", "/nothing", "/metrics", "/health")
            ]
            for body in ({"prompt": "x"}, {"promt": "x"}, {"prompt": "x" * 900}, {"prompt": "x", "model": "wolf"}):
                answer = http.post(COMPLETIONS, json=body)
                outputs += [answer.text, str(answer.headers)]
            with contextlib.suppress(httpx.HTTPError):  # refused while it is still being sent
                outputs.append(http.post(COMPLETIONS, content=b"x" * (5 << 20)).text)
            engine.fail_after = 3
            outputs += [http.post(COMPLETIONS, json={"prompt": "x", "stream": stream}).text for stream in (True, False)]
            engine.fail_after = None
    outputs += [record.getMessage() for record in caplog.records if record.name.startswith("caslon")]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(outputs) > 40
    for secret in planted:
        assert all(secret not in output for output in outputs)
        assert all(secret.encode() not in content for content in files)


def test_a_wait_that_is_too_long_is_a_503(engine) -> None:
    settings = ServerSettings(page=False, max_queue=4, queue_timeout_seconds=0.3, first_token_timeout_seconds=0.6)
    engine.gate.clear()
    with running_server(engine, "fox", settings) as url, ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(httpx.post, url + COMPLETIONS, json={"prompt": "x"}, timeout=20) for _ in range(3)]
        wait_for(lambda: any(future.done() for future in asked))
        first = next(future.result() for future in asked if future.done())
        assert code(first) == (503, "queue_timeout")
        engine.seconds_per_token = 0.01
        wait_for(lambda: len(engine.seen) == 2)
        time.sleep(1.0)
        engine.gate.set()
        codes = sorted(code(future.result())[1] for future in asked)
    assert codes == ["first_token_timeout", "first_token_timeout", "queue_timeout"]


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_whose_time_is_over_keeps_its_text(engine, stream: bool) -> None:
    engine.seconds_per_token = 0.02
    with running_server(engine, "fox", ServerSettings(page=False, request_timeout_seconds=0.5)) as url:
        body = {"prompt": "x", "max_tokens": 190, "stream": stream}
        answer = httpx.post(url + COMPLETIONS, json=body, timeout=20)
        assert answer.status_code == 200
        if stream:
            chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
            choices = [choice for chunk in chunks for choice in chunk["choices"]]
        else:
            choices = answer.json()["choices"]
        assert choices[-1]["finish_reason"] == "timeout"
        assert "".join(choice["text"] for choice in choices).startswith("The quick")
        assert 'finished_reason="timeout"' in httpx.get(f"{url}/metrics").text


def test_an_engine_that_stands_still_is_not_alive(engine, monkeypatch) -> None:
    from caslon.server import service as service_module
    from caslon.server.app import create_app

    state = create_app(engine, "fox", ServerSettings(page=False)).state
    service = state.service
    monkeypatch.setattr(service_module, "STUCK_SECONDS", 0.05)
    stats = SimpleNamespace(steps=5, running=1, waiting=0)
    monkeypatch.setattr(engine, "stats", lambda: stats)
    watch = Watch(state.models)
    watch.look()
    assert not service.is_stuck
    time.sleep(0.06)
    watch.look()
    assert service.is_stuck
    stats.steps = 6
    watch.look()
    assert not service.is_stuck


@pytest.mark.promise("server", "An audit log shows an edited, a removed and a moved line, wherever it stands")
def test_every_change_of_the_audit_log_is_found(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, max_bytes=4096)
    for number in range(60):
        log.append({"number": number, "text": "ü" * 40})
    log.close()
    head = verify_audit(tmp_path)
    assert head.lines == 60
    files = sorted(tmp_path.glob("audit*.jsonl"))
    assert len(files) > 2
    for path in files:
        lines = path.read_bytes().splitlines(keepends=True)
        if not lines:
            continue
        edited = [lines[0].replace(b'"number":', b'"nomber":'), *lines[1:]]
        changes = [edited, lines[1:], [*lines[:-1]], [*lines[:-2], *lines[:-3:-1]], [lines[0], *lines]]
        for changed in changes:
            path.write_bytes(b"".join(changed))
            with pytest.raises(CaslonError):
                verify_audit(tmp_path)
        path.write_bytes(b"".join(lines))
    assert verify_audit(tmp_path, head) == head
    with pytest.raises(CaslonError, match="removed or edited"):
        verify_audit(tmp_path, Head(head.lines, "0" * 64))


def test_a_chain_goes_on_after_a_kill_and_between_writers(tmp_path: Path) -> None:
    logs = [AuditLog(tmp_path, max_bytes=4096) for _ in range(3)]

    def write(log: AuditLog) -> None:
        for number in range(50):
            log.append({"number": number})

    threads = [threading.Thread(target=write, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify_audit(tmp_path).lines == 150
    # A writer that was killed within a line, and one that was killed before it could move the head.
    with (tmp_path / "audit.jsonl").open("ab") as handle:
        handle.write(b'{"previous":"half a li')
    log = AuditLog(tmp_path, max_bytes=1 << 20)
    behind = (tmp_path / "audit.head").read_bytes()
    log.append({"number": 1})
    (tmp_path / "audit.head").write_bytes(behind)
    assert verify_audit(tmp_path).lines == 151
    log.append({"number": 2})
    assert verify_audit(tmp_path).lines == 152


@pytest.fixture(autouse=True)
def open_gate(engine) -> Iterator[None]:
    yield
    engine.gate.set()
