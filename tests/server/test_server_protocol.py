"""How requests are read: unknown fields, origins, TLS, slow heads, batches of embeddings, malformed bodies."""

import asyncio
import json
import random
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from caslon.engine.engine import Engine
from caslon.errors import UserError
from caslon.server.batcher import BATCH_SECONDS, BATCH_TEXTS, EmbeddingBatcher
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.settings import checked

CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2}


def test_lenient_names_what_it_left_out(engine) -> None:
    with running_server(engine, "fox", ServerSettings(page=False, lenient=True)) as url:
        body = {**CHAT, "temprature": 1, "weird ü": 2, "stream_options": None}
        body["messages"] = [{"role": "user", "content": "x", "colour": "red"}]
        answer = httpx.post(f"{url}/v1/chat/completions", json=body)
        assert answer.status_code == 200
        assert set(answer.headers["x-caslon-ignored"].split(",")) == {
            "temprature",
            "weird%20%C3%BC",
            "messages.0.colour",
        }
        assert httpx.post(f"{url}/v1/chat/completions", json={**CHAT, "temperature": 9}).status_code == 400


def test_unknown_fields_inside_get_their_nearest_spelling(url: str) -> None:
    body = {**CHAT, "response_format": {"type": "regex", "regexp": "x"}}
    error = httpx.post(f"{url}/v1/chat/completions", json=body).json()["error"]
    assert (error["code"], error["param"]) == ("unknown_parameter", "response_format.regexp")
    assert "did you mean 'regex'" in error["message"]


def test_broken_json_says_where(url: str) -> None:
    for body, words in ((b'{"prompt": "\xff"}', "column 13"), (b'{"prompt":\n x}', "line 2 column 2")):
        error = httpx.post(f"{url}/v1/completions", content=body).json()["error"]
        assert error["code"] == "invalid_json"
        assert words in error["message"]


def test_only_named_origins_may_ask(engine) -> None:
    with running_server(engine, "fox", ServerSettings(page=False, cors_origins=("https://a.example",))) as url:
        for origin, allowed in (("https://a.example", "https://a.example"), ("https://b.example", None)):
            asked = {"origin": origin, "access-control-request-method": "POST"}
            answer = httpx.options(f"{url}/v1/completions", headers=asked)
            assert answer.headers.get("access-control-allow-origin") == allowed
    with pytest.raises(UserError, match="origin"):
        checked(ServerSettings, cors_origins=("*",))


def test_no_origin_may_ask_unless_named(url: str) -> None:
    answer = httpx.get(f"{url}/v1/models", headers={"origin": "https://a.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_a_head_that_never_ends_is_cut(engine) -> None:
    settings = ServerSettings(page=False, header_timeout_seconds=0.3)
    with running_server(engine, "fox", settings) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nx-slow: ")
            assert slow.recv(100) == b""  # closed; a server that waits would time this out
        body = json.dumps({"prompt": "x", "max_tokens": 1}).encode()
        with socket.create_connection((host, int(port)), timeout=20) as late:
            head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            late.sendall(head.encode())
            time.sleep(0.6)  # the body may take longer than the head
            late.sendall(body)
            assert late.recv(15).startswith(b"HTTP/1.1 200")


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Return a certificate for this machine and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine to make a certificate with")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    subprocess.run([openssl, *new, *names, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    return certificate, key


def test_https(engine, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    settings = ServerSettings(page=False, tls_cert=certificate, tls_key=key)
    with running_server(engine, "fox", settings) as url:
        assert url.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        assert httpx.get(f"{url}/health", verify=context).json() == {"status": "ok"}
    with pytest.raises(UserError, match="go together"):
        checked(ServerSettings, tls_cert=certificate)


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer when there is nothing else to do: its seconds do not depend on the machine."""

    seconds = 0.0

    def time(self) -> float:
        return self.seconds

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.seconds = max(self.seconds, self._scheduled[0].when())
        super()._run_once()


@pytest.mark.promise(
    "server", "No embedding is lost, misrouted or waits longer than 5 ms and a step; a batch has at most 32 texts"
)
def test_embeddings_of_ten_thousand_callers_share_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    step_seconds = 0.05

    async def embed(_, texts, pooling):
        await asyncio.sleep(step_seconds)
        sizes.append(len(texts))
        return [[float(ids[0]), 1.0 if pooling == "last" else 0.0] for ids in texts]

    monkeypatch.setattr("caslon.server.batcher.to_thread.run_sync", embed)
    batcher, chooser = EmbeddingBatcher(lambda texts, pooling: []), random.Random(1)

    async def caller(number: int) -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(chooser.random() * 3)
        texts = [[number * 10 + index] for index in range(chooser.randint(1, 4))]
        pooling, began = chooser.choice(("mean", "last")), loop.time()
        found = await batcher.vectors(texts, pooling)
        assert found == [[float(ids[0]), 1.0 if pooling == "last" else 0.0] for ids in texts]
        return loop.time() - began

    async def all_callers() -> list[float]:
        return await asyncio.gather(*(caller(number) for number in range(10_000)))

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        waits = runner.run(all_callers())
    assert max(waits) <= BATCH_SECONDS + step_seconds + 1e-9
    assert max(sizes) <= BATCH_TEXTS
    assert sum(sizes) >= 10_000
    assert len(sizes) < 5_000


def test_one_failed_batch_fails_alone() -> None:
    def embed(texts, pooling):
        if texts[0][0] == 0:
            raise ValueError("broken")
        return [[1.0] for _ in texts]

    async def ask() -> None:
        batcher = EmbeddingBatcher(embed)
        with pytest.raises(Exception, match="failed on this request"):
            await batcher.vectors([[0]], "mean")
        assert await batcher.vectors([[1]], "mean") == [[1.0]]

    asyncio.run(ask())


BODIES = {
    "/v1/completions": {"prompt": "x", "max_tokens": 1, "temperature": 0.5, "stop": ["a"], "logprobs": 1},
    "/v1/chat/completions": {
        **CHAT,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "integer"}}},
    },
    "/v1/responses": {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}],
        "max_output_tokens": 2,
    },
    "/v1/messages": {
        **CHAT,
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "thinking": {"type": "disabled"},
    },
    "/v1/embeddings": {"input": ["x", "y"], "dimensions": 2},
    "/generate": {"prompt": "x", "max_tokens": 1, "stream": False},
    "/tokenize": {"messages": CHAT["messages"]},
    "/detokenize": {"tokens": [1, 2]},
    "/apply-template": {"messages": CHAT["messages"], "chat_template_kwargs": {"a": 1}},
}
ODD = [
    None,
    True,
    -1,
    0,
    1 << 70,
    1e308,
    "",
    "\ud83e\udd8a",
    "x" * 5000,
    [],
    {},
    [[]],
    [{}],
    {"a": {}},
    [None],
    "\u0000",
    {"type": []},
]


def damaged(value, chooser: random.Random):
    """Return a JSON value with something wrong somewhere."""
    if isinstance(value, dict) and value and chooser.random() < 0.8:
        name = chooser.choice(list(value))
        act = chooser.randrange(4)
        changed = dict(value)
        if act == 0:
            del changed[name]
        elif act == 1:
            changed[name + chooser.choice("sx_")] = changed.pop(name)
        else:
            changed[name] = damaged(value[name], chooser)
        return changed
    if isinstance(value, list) and value and chooser.random() < 0.7:
        place = chooser.randrange(len(value))
        return [*value[:place], damaged(value[place], chooser), *value[place + 1 :]]
    return chooser.choice(ODD)


def throw_malformed(url: str, count: int, seed: int) -> dict[int, int]:
    """Send damaged bodies; return how often each status came."""
    chooser, seen = random.Random(seed), {}
    with httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(count):
            path = chooser.choice(list(BODIES))
            body = json.dumps(damaged(BODIES[path], chooser)).encode()
            if chooser.random() < 0.15:
                place = chooser.randrange(len(body))
                body = body[:place] + bytes([chooser.randrange(256)]) + body[place + chooser.randrange(3) :]
            answer = client.post(path, content=body)
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            assert answer.status_code < 500 or answer.status_code == 503, (path, body, answer.text)
            if answer.status_code != 200:
                assert set(answer.json()["error"]) >= {"message", "type", "code"}
        assert client.get("/health/live").status_code == 200
    return seen


@pytest.mark.promise("server", "No malformed body makes the server fail or hang")
def test_malformed_bodies(short_engine: Engine) -> None:
    with running_server(short_engine, "tiny", ServerSettings(page=False)) as url:
        seen = throw_malformed(url, 150, seed=1)
    assert seen[400] > 50
    assert set(seen) <= {200, 400, 404, 413}


@pytest.mark.slow
def test_thousands_of_malformed_bodies(short_engine: Engine) -> None:
    with running_server(short_engine, "tiny", ServerSettings(page=False)) as url:
        seen = throw_malformed(url, 8000, seed=2)
    assert set(seen) <= {200, 400, 404, 413}
