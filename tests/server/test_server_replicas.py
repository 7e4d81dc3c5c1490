"""Several replicas behind one port: routing, restart, replacement under load, draining."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from caslon.client import Client
from caslon.engine.golden import write_golden_prompts
from caslon.engine.settings import EngineSettings
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.server.audit import verify_audit
from caslon.server.proxy import merged_metrics
from caslon.server.replicas import Replicas
from caslon.server.settings import ServerSettings

COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def model_folder(tokenizer, tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    config = DecoderConfig.from_depth(1, family="qwen3", vocab_size=tokenizer.vocab_size, context=512, hidden_size=32)
    decoder = Decoder(config)
    decoder.initialise(1)
    folder = tmp_path_factory.mktemp("fox") / "fox"
    save_model_folder(folder, decoder, tokenizer, sidecar={})
    write_golden_prompts(folder, decoder.eval(), [tokenizer.encode("the quick"), tokenizer.encode("a lazy dog")])
    return folder


@pytest.fixture
def service(model_folder: Path, tmp_path: Path):
    state = tmp_path / "state"
    command = [sys.executable, "-m", "caslon", "serve", str(model_folder), "--port", "0", "--replicas", "2"]
    command += ["--state", str(state), "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line.startswith("API"), process.stderr.read()
    yield SimpleNamespace(process=process, url=line.split()[1].removesuffix("/v1"), state=state)
    process.send_signal(signal.SIGTERM)
    process.wait(90)
    process.stdout.close()
    process.stderr.close()


def reloaded(state: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "caslon", "serve", "reload", "--state", str(state)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


class Load:
    """Asks without a pause until told to stop, and keeps what went wrong."""

    def __init__(self, url: str, callers: int) -> None:
        self.url = url
        self.stopped = threading.Event()
        self.failures: list[object] = []
        self.answers: list[str] = []
        self.threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(callers)]

    def _ask(self, number: int) -> None:
        body = {"prompt": f"the fox {number}", "max_tokens": 20, "temperature": 0, "ignore_eos": True}
        while not self.stopped.is_set():
            try:
                answer = httpx.post(self.url + COMPLETIONS, json={**body, "stream": number % 2 == 0}, timeout=30)
                good = answer.status_code == 200 and (number % 2 or answer.text.endswith("data: [DONE]\n\n"))
                (self.answers if good else self.failures).append(answer.text)
            except httpx.HTTPError as error:
                self.failures.append(error)
            time.sleep(0.05)

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.promise(
    "server", "Replicas are replaced under load without a failed request, and a broken replacement changes nothing"
)
def test_reload_under_load_and_roll_back(service, model_folder: Path) -> None:
    with Load(service.url, callers=4) as load:
        found = reloaded(service.state)
        assert (found.returncode, found.stdout) == (0, "2 replicas were replaced\n"), found.stderr
        golden = (model_folder / "golden.json").read_text()
        broken = json.loads(golden)
        broken[0]["ids"][0] ^= 1
        (model_folder / "golden.json").write_text(json.dumps(broken))
        found = reloaded(service.state)
        (model_folder / "golden.json").write_text(golden)
        assert found.returncode == 1
        assert "0 of 2 replicas were replaced" in found.stderr
    assert load.failures == []
    assert len(load.answers) > 10
    assert verify_audit(service.state).lines == len(load.answers)


@pytest.mark.slow
@pytest.mark.promise(
    "server", "A replica that is killed is started again, and what SIGKILL met has its audit line if it was answered"
)
def test_a_killed_replica_comes_back(service) -> None:
    children = [
        int(pid) for pid in Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    ]
    with Client(service.url) as client:
        answered = sum(bool(client.complete("fox", "the", max_tokens=3)) for _ in range(6))
        os.kill(children[0], signal.SIGKILL)
        answered += sum(bool(client.complete("fox", "the", max_tokens=3)) for _ in range(6))
        deadline = time.monotonic() + 60
        while "caslon:replica_restarts_total 1\n" not in client.get_text("/metrics"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        while 'replica="0"' not in client.get_text("/metrics") or 'replica="1"' not in client.get_text("/metrics"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert answered == 12
    assert verify_audit(service.state).lines >= answered


@pytest.mark.slow
def test_sigterm_lets_a_running_answer_end(service) -> None:
    with Client(service.url) as client:
        chunks = client.stream_completion("fox", "the", max_tokens=300, temperature=0, ignore_eos=True)
        next(chunks)
        service.process.send_signal(signal.SIGTERM)
        last = [choice for chunk in chunks for choice in chunk["choices"]][-1]
    assert last["finish_reason"] == "length"
    assert service.process.wait(90) == 0


def test_a_request_goes_where_its_beginning_is_known_unless_that_one_is_busy(tmp_path: Path) -> None:
    replicas = Replicas(tmp_path, ServerSettings(), EngineSettings(), 3)
    assert replicas.chosen(b"x") is None
    replicas.replicas = [SimpleNamespace(name=str(number), open=0, retired=False) for number in range(3)]
    first = replicas.chosen(b"You are a fox. " * 20 + b"Hello")
    assert replicas.chosen(b"You are a fox. " * 20 + b"Bye") is first
    assert len({replicas.chosen(str(number).encode()).name for number in range(30)}) == 3
    first.open = 2
    assert replicas.chosen(b"You are a fox. " * 20) is first
    first.open = 3
    assert replicas.chosen(b"You are a fox. " * 20) is not first
    first.open, first.retired = 0, True
    assert replicas.chosen(b"You are a fox. " * 20) is not first


def test_figures_of_replicas_are_told_apart() -> None:
    text = '# HELP a_total A.\n# TYPE a_total counter\na_total{m="x\\"y"} 2.0\n# HELP b B.\n# TYPE b gauge\nb 3.0\n'
    merged = merged_metrics([("0", text), ("1", text)], restarts=4)
    families = {family.name: family for family in text_string_to_metric_families(merged)}
    assert [(s.labels, s.value) for s in families["a"].samples] == [
        ({"m": 'x"y', "replica": "0"}, 2.0), ({"m": 'x"y', "replica": "1"}, 2.0),
    ]  # fmt: skip
    assert len(families["b"].samples) == 2
    assert families["caslon:replica_restarts"].samples[0].value == 4
