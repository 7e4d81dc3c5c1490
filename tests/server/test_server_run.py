"""The whole server as a process: started on a folder, drained by a signal."""

import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import psutil
import pytest
import torch

from caslon.client import Client
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.server.audit import audit_lines, verify_audit
from caslon.server.run import listening_socket, model_name_of, running_server, serve
from caslon.server.settings import ServerSettings

SCRIPT = """
import sys, torch
from pathlib import Path
from caslon.server.run import serve
from caslon.server.settings import ServerSettings
torch.set_num_threads(1)
state = Path(sys.argv[3]) if len(sys.argv) > 3 else None
settings = ServerSettings(port=0, page=False, drain_timeout_seconds=float(sys.argv[2]), state=state)
serve(Path(sys.argv[1]), settings, on_ready=lambda ready: print(ready.url, ready.model_name, flush=True))
"""


@pytest.fixture(scope="module")
def model_folder(tokenizer, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    config = DecoderConfig.from_depth(2, family="qwen3", vocab_size=tokenizer.vocab_size, context=4000, hidden_size=32)
    decoder = Decoder(config)
    decoder.initialise(1)
    folder = tmp_path_factory.mktemp("runs") / "london" / "finetune.sft" / "model"
    save_model_folder(folder, decoder, tokenizer, sidecar={})
    return folder


def started(folder: Path, drain_seconds: float, *more: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), str(drain_seconds), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url, name = process.stdout.readline().split()
    assert name == "london-finetune.sft"
    return process, url


def test_sigterm_lets_a_running_answer_end(model_folder: Path) -> None:
    process, url = started(model_folder, drain_seconds=60)
    with Client(url) as client:
        fields = {"max_tokens": 150, "temperature": 0, "ignore_eos": True}
        chunks = client.stream_completion("london-finetune.sft", "the", **fields)
        next(chunks)
        process.send_signal(signal.SIGTERM)
        last = [choice for chunk in chunks for choice in chunk["choices"]][-1]
    assert last["finish_reason"] == "length"
    assert process.wait(20) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_what_does_not_end_in_time_gets_an_error_event(model_folder: Path) -> None:
    process, url = started(model_folder, drain_seconds=0.2)
    body = {"prompt": "the", "max_tokens": 3900, "temperature": 0, "ignore_eos": True, "stream": True}
    with httpx.Client(timeout=60) as http, http.stream("POST", f"{url}/v1/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        rest = list(lines)
    assert "event: error" in rest
    assert "data: [DONE]" not in rest
    assert process.wait(20) == 0


@pytest.mark.promise("server", "kill -9 loses no audit line of a request that was answered")
def test_kill_9_loses_no_answered_line(model_folder: Path, tmp_path: Path) -> None:
    process, url = started(model_folder, 60, str(tmp_path))
    body = {"prompt": "the", "max_tokens": 5, "ignore_eos": True}
    with httpx.Client(base_url=url, timeout=60) as http:
        for number in range(6):
            answer = http.post("/v1/completions", json={**body, "stream": number % 2 == 0})
            assert answer.status_code == 200
        endless = {**body, "max_tokens": 3900, "stream": True}
        with http.stream("POST", "/v1/completions", json=endless) as response:
            next(response.iter_lines())
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert verify_audit(tmp_path).lines == 6
    assert [line["completion_tokens"] for line in audit_lines(tmp_path)] == [5] * 6


def test_port_in_use_is_said_before_the_weights_are_read(model_folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("caslon.engine.engine.Engine.load", lambda *_: pytest.fail("the weights were read"))
    with listening_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port}"):
            serve(model_folder, ServerSettings(port=port))


def test_bad_folder_and_open_host_are_refused_first(tmp_path: Path, model_folder: Path) -> None:
    with pytest.raises(UserError):
        serve(tmp_path / "nothing")
    with pytest.raises(UserError, match="without an API key"):
        serve(model_folder, ServerSettings(host="0.0.0.0"))


def test_names_of_models() -> None:
    assert model_name_of(Path("/data/qwen-tiny")) == "qwen-tiny"
    assert model_name_of(Path("/runs/london/pretrain/model")) == "london-pretrain"


def test_server_in_a_thread_leaves_nothing_behind(engine) -> None:
    before = psutil.Process().num_fds()
    for _ in range(3):
        with running_server(engine, "fox") as url:
            assert httpx.get(f"{url}/health").status_code == 200
    assert psutil.Process().num_fds() <= before + 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", int(url.rpartition(":")[2])))
