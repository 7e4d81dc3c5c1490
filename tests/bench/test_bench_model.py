"""A load on a real engine with a small random model."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from caslon.bench.deployment import Deployment, known, told_by
from caslon.bench.gate import reasons_against
from caslon.bench.hardware import this_machine
from caslon.bench.load import Service
from caslon.bench.matrix import Plan, measure_matrix
from caslon.bench.profiles import CONTRACT, SCALED, profile_named
from caslon.bench.traces import read_traces
from caslon.engine.engine import Engine
from caslon.model.load_test_model import write_load_test_model
from caslon.server.run import running_server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_load_test_model(tmp_path_factory.mktemp("model") / "load-test")


def test_the_model_has_room_for_the_contract_and_writes_readable_text(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"], config["hidden_size"]) == ("llama", 4, 256)
    assert all(
        profile.input_tokens + profile.output_tokens <= config["max_position_embeddings"] for profile in CONTRACT
    )
    with Engine.load(model) as engine:
        [completion] = engine.generate([[500, 600]], engine.params(max_tokens=24, temperature=0, ignore_eos=True))
    assert completion.text.replace(" ", "").isalpha()
    assert len(set(completion.text)) > 1


@pytest.mark.promise(
    "bench", "a matrix on a real model counts each token once: client, traces and the service's metrics agree"
)
def test_a_scaled_matrix_agrees_with_the_service(model: Path, tmp_path: Path) -> None:
    profiles = [profile_named(name) for name in ("latency-24x6-c1-n3", "serve-24x6-c4-n8", "longctx-96x6-c2-n3")]
    with Engine.load(model) as engine, running_server(engine, "tiny") as url:
        service = Service(url, "", 0)
        told = asyncio.run(told_by(service))
        facts = known(told, Deployment(), this_machine())
        service = Service(url, told["served_model_name"], told["vocab_size"])
        results = asyncio.run(measure_matrix(Plan(service, facts, tmp_path, "run"), profiles, lambda result: None))
    assert (facts["engine"], facts["dtype"], facts["device"]) == ("caslon", "float32", "cpu")
    for result in results:
        assert result.traces_path is not None
        traces = list(read_traces(result.traces_path))
        assert sum(trace["output_tokens"] for trace in traces) == result.data["total_output_tokens"]
        before, after = (result.metadata[f"server_metrics_{when}"] for when in ("before", "after"))
        name = "vllm:generation_tokens_total"
        assert after[name] - before[name] == result.data["total_output_tokens"] == result.profile.prompts * 6
    assert reasons_against(results) == [f"{profile.name}: not measured" for profile in CONTRACT]


@pytest.mark.slow
def test_the_scaled_matrix_by_command(model: Path, tmp_path: Path) -> None:
    with Engine.load(model) as engine, running_server(engine, "tiny") as url:
        command = [sys.executable, "-m", "caslon", "bench", "matrix", "--scaled", "--url", url]
        done = subprocess.run([*command, "--output", str(tmp_path), "--tag", "ci"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = sorted(path.name for path in (tmp_path / "ci").glob("*.result.json"))
    assert written == sorted(f"{name}.result.json" for name in SCALED)
