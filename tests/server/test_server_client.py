import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from caslon.client import Client, ServerRefused, ServerUnreachable, is_loopback
from caslon.errors import UserError

CUT_STREAM = b'data: {"choices": [{"text": "a\xe2\x80\xa8b"}]}\n\ndata: {"choices": []}\n\n'


class OddServer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._send(502, b"<html>Bad gateway</html>")

    def do_POST(self) -> None:
        self._send(200, CUT_STREAM)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), OddServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_every_form_of_the_address(url: str, suffix: str) -> None:
    with Client(url + suffix) as client:
        assert client.only_model() == "fox"


def test_answers_whole_and_in_pieces(url: str) -> None:
    with Client(url) as client:
        whole = client.complete("fox", "x", max_tokens=12)["choices"][0]["text"]
        chunks = client.stream_completion("fox", "x", max_tokens=12)
        assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == whole
        messages = [{"role": "user", "content": "hello"}]
        whole = client.chat("fox", messages, max_tokens=12)["choices"][0]["message"]["content"]
        chunks = client.stream_chat("fox", messages, max_tokens=12)
        texts = (choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
        assert "".join(texts) == whole


def test_errors_keep_status_and_code(url: str) -> None:
    with Client(url) as client:
        with pytest.raises(ServerRefused, match="available: fox") as refused:
            client.complete("wolf", "x")
        assert (refused.value.status, refused.value.code) == (404, "model_not_found")
        with pytest.raises(ServerRefused) as refused:
            list(client.stream_completion("fox", "z" * 300))
        assert refused.value.code == "context_length_exceeded"


def test_error_in_a_stream_and_a_cut_stream_are_raised(url: str, engine, odd: str) -> None:
    engine.fail_after = 2
    with Client(url) as client, pytest.raises(ServerRefused, match="failed"):
        list(client.stream_completion("fox", "x"))
    with Client(odd) as client:
        chunks = client.stream_completion("fox", "x")
        assert next(chunks)["choices"][0]["text"] == "a\u2028b"
        with pytest.raises(ServerUnreachable, match="broke off"):
            list(chunks)


def test_foreign_error_pages_and_no_server_at_all(odd: str) -> None:
    with Client(odd) as client, pytest.raises(ServerRefused, match="502"):
        client.models()
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServerUnreachable, match="is it running"):
        client.models()
    with pytest.raises(UserError, match="no server address"):
        Client("localhost:8000")


def test_a_proxy_does_not_stand_before_loopback(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with Client(url) as client:
        assert client.models() == ["fox"]


def test_closing_a_stream_stops_the_work(url: str, engine) -> None:
    engine.seconds_per_token = 0.02
    with Client(url) as client:
        chunks = client.stream_completion("fox", "x", max_tokens=190)
        next(chunks)
        chunks.close()
        client.models()
    while not engine.finished:
        threading.Event().wait(0.01)
    assert engine.finished == ["abort"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [("http://localhost:1", True), ("http://127.1.2.3", True), ("http://[::1]:5", True), ("http://example.org", False)],
)
def test_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
