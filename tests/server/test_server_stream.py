"""What happens when something goes wrong in the middle of an answer."""

import asyncio
import itertools
import json
import socket
import time
from types import SimpleNamespace

import httpx
import pytest
from openai import APIError, InternalServerError, OpenAI

from caslon.engine.request import Piece
from caslon.server.errors import Refused
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.server.stream import Pieces, event


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_stops_the_work(url: str, engine, stream: bool) -> None:
    engine.seconds_per_token = 0.02
    body = {"prompt": "x", "max_tokens": 190, "stream": stream}
    with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=httpx.Timeout(5, read=0.3)) as http:
        if stream:
            with http.stream("POST", f"{url}/v1/completions", json=body) as response:
                next(response.iter_lines())
            raise httpx.ReadTimeout("left on purpose")
        http.post(f"{url}/v1/completions", json=body)
    wait_for(lambda: engine.finished == ["abort"])
    metrics = httpx.get(f"{url}/metrics").text
    assert 'vllm:request_success_total{finished_reason="abort",model_name="fox"} 1.0' in metrics


def test_failure_before_the_answer_is_a_500_without_secrets(client: OpenAI, engine) -> None:
    engine.fail_after = 3
    with pytest.raises(InternalServerError) as failed:
        client.completions.create(model="fox", prompt="x")
    assert failed.value.code == "internal_error"
    assert "shadow" not in str(failed.value)


def test_failure_in_a_stream_is_an_error_event(client: OpenAI, url: str, engine) -> None:
    engine.fail_after = 3
    with pytest.raises(APIError, match="failed"):
        list(client.completions.create(model="fox", prompt="x", stream=True))
    text = httpx.post(f"{url}/v1/completions", json={"prompt": "x", "stream": True}).text
    assert "[DONE]" not in text
    *_, last = text.strip().split("\n\n")
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.partition("data: ")[2])["error"]["code"] == "internal_error"
    assert "shadow" not in text


def test_stream_is_plain_server_sent_events(url: str) -> None:
    response = httpx.post(f"{url}/v1/completions", json={"prompt": "x", "stream": True, "max_tokens": 3})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    assert all(line.startswith("data: ") for line in response.text.splitlines() if line)


def test_no_character_of_the_text_can_end_an_event() -> None:
    text = "a\nb\r\u2028c\u2029d\x85e\x0bf"
    sent = event({"text": text})
    assert len(sent.decode().strip().splitlines()) == 1
    assert json.loads(sent.removeprefix(b"data: "))["text"] == text


@pytest.mark.promise("server", "A reader that is a megabyte behind is cut, and its answer stops")
def test_a_reader_far_behind_ends_its_answer() -> None:
    broken: list[Refused] = []
    answer = SimpleNamespace(break_off=broken.append)

    async def read_one_of_many() -> None:
        pieces = Pieces()
        pieces.put(0, Piece("first", ()))
        reader = pieces.of([answer])
        assert (await anext(reader))[1].text == "first"
        for _ in range(1000):
            pieces.put(0, Piece("x" * 700, ()))
        assert broken == []
        for _ in range(300):
            pieces.put(0, Piece("x" * 700, ()))

    asyncio.run(read_one_of_many())
    assert broken[0].code == "slow_reader"


@pytest.mark.promise("server", "A reader that takes nothing is cut after its time while others go on")
def test_a_stalled_reader_is_cut(engine) -> None:
    engine.answer_ids = lambda params: itertools.repeat(engine.tokenizer.encode("T")[0])
    settings = ServerSettings(page=False, reader_timeout_seconds=0.5)
    with running_server(engine, "fox", settings) as url:
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps({"prompt": ["x"] * 8, "n": 16, "max_tokens": 190, "stream": True, "logprobs": 20}).encode()
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            stalled.connect((host, int(port)))
            head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            stalled.sendall(head.encode() + body)
            wait_for(lambda: "abort" in engine.finished)
            assert len(engine.seen) < 128
            assert httpx.post(f"{url}/v1/completions", json={"prompt": "x", "max_tokens": 3}).status_code == 200
