"""What keeps a result out of a comparison, each reason by name."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from caslon.bench.gate import REQUIRED, reasons_against
from caslon.bench.lanes import lanes_of
from caslon.bench.load import Service
from caslon.bench.matrix import Plan, measure_matrix
from caslon.bench.profiles import CONTRACT
from caslon.bench.results import SUFFIX, Result, read_folder, read_result
from caslon.bench.simulated_service import VOCAB_SIZE, SimulatedService
from caslon.bench.simulation import Simulation
from caslon.bench.summary import summary_of
from caslon.bench.virtual_clock import run_virtually
from caslon.errors import UserError

KNOWN = {
    "model": "model", "served_model_name": "model", "engine": "test", "engine_version": "1", "dtype": "float32",
    "quantization": "none", "tp": 1, "pp": 1, "dp": 1, "ep": False, "gpus": 0, "hardware": {"name": "two cores"},
    "status": "completed",
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole matrix on a simulated service."""
    folder = tmp_path_factory.mktemp("matrix")
    transport = SimulatedService(Simulation(0.2, 0.01), "model")
    plan = Plan(Service("http://127.0.0.1", "model", VOCAB_SIZE, transport=transport), KNOWN, folder, "run")
    run_virtually(measure_matrix(plan, CONTRACT, lambda result: None))
    return folder / "run"


def reasons(folder: Path) -> Sequence[str]:
    return [reason for lane in lanes_of(read_folder(folder)) for reason in lane.refusals]


@pytest.fixture
def edited(whole: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], object]], Sequence[str]]:
    """Return a function that edits the result of the c16 load in a copy of the matrix and gives the reasons against it."""

    def edit(change: Callable[[dict[str, Any]], object]) -> Sequence[str]:
        for path in whole.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        path = tmp_path / f"{CONTRACT[1].name}{SUFFIX}"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
        return reasons(tmp_path)

    return edit


@pytest.mark.promise("bench", "a whole matrix is comparable, and an edited file is refused with the reason")
def test_a_whole_matrix_is_comparable(whole: Path) -> None:
    assert reasons(whole) == []
    summary = summary_of(lanes_of(read_folder(whole)))
    assert [len(entries) for entries in summary.entries.values()] == [1, 1, 1]


@pytest.mark.promise("bench", "every reason that keeps a result out of a comparison is named")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data.update(failed=2, completed=198), "2 of 200 requests failed"),
        (lambda data: data.update(output_throughput=2 * data["output_throughput"]), "do not fit together (law 2.000"),
        (lambda data: data["output_lens"].__setitem__(5, 255), "output lengths are not exactly 256 tokens"),
        (lambda data: data["input_lens"].__setitem__(5, 1000), "input lengths are not exactly 1024 tokens"),
        (lambda data: data.update(total_output_tokens=51_199), "total_output_tokens is 51199, its traces say 51200"),
        (lambda data: data.update(total_output_tokens=51_199), "the service counted 51200"),
        (lambda data: data["run_metadata"].update(dtype=None, hardware=None), "not known: dtype, hardware"),
        (lambda data: data["run_metadata"].update(engine="simulation"), "answers of a simulated engine"),
        (lambda data: data["run_metadata"].update(num_prompts=100), "serve-1024x256-c16: not measured"),
    ],
)
def test_reasons(edited: Any, change: Callable[[dict[str, Any]], object], expected: str) -> None:
    found = edited(change)
    assert any(expected in reason for reason in found), found


def test_missing_and_foreign_traces(whole: Path, tmp_path: Path) -> None:
    for path in whole.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    traces = tmp_path / f"{CONTRACT[0].name}.traces.jsonl"
    text = traces.read_text()
    traces.write_text(text.replace('"two cores"', '"another machine"'))
    assert reasons(tmp_path) == [f"{CONTRACT[0].name}: its traces are those of another run"]
    traces.write_text("\n".join(text.splitlines()[1:]) + "\n")
    assert reasons(tmp_path)[0] == f"{CONTRACT[0].name}: completed is 20, its traces say 19"
    traces.unlink()
    assert reasons(tmp_path) == [f"{CONTRACT[0].name}: no traces of its requests"]


def test_two_results_of_one_set_up(whole: Path) -> None:
    results = read_folder(whole)
    assert f"{CONTRACT[0].name}: 2 results of one set-up; tag them apart" in reasons_against([*results, results[0]])


def vllm_file(**more: Any) -> dict[str, Any]:
    """Return what `vllm bench serve --save-result` writes, for the c1 load."""
    return {
        "date": "20260401-120000", "endpoint_type": "openai", "backend": "vllm", "label": None, "model_id": "org/model",
        "tokenizer_id": "org/model", "num_prompts": 20, "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 1,
        "duration": 35.0, "completed": 20, "failed": 0, "total_input_tokens": 20_480, "total_output_tokens": 5120,
        "request_throughput": 0.5714, "output_throughput": 146.29, "total_token_throughput": 731.4,
        "mean_ttft_ms": 100.0, "median_ttft_ms": 99.0, "p99_ttft_ms": 120.0, "mean_tpot_ms": 6.4706,
        "median_tpot_ms": 6.47, "p99_tpot_ms": 6.5, "mean_itl_ms": 6.47, "median_itl_ms": 6.4, "p99_itl_ms": 8.0, **more,
    }  # fmt: skip


def test_files_of_vllm_are_read_and_say_what_they_lack(tmp_path: Path) -> None:
    path = tmp_path / "openai-infqps.json"
    path.write_text(json.dumps(vllm_file(tp="8", hardware="h200", result_tag="a")))
    result = read_result(path)
    assert result.profile == CONTRACT[0]
    assert (result.metadata["model"], result.metadata["tp"], result.metadata["result_tag"]) == ("org/model", 8, "a")
    found = reasons_against([result])
    assert found[0].startswith(f"{CONTRACT[0].name}: not known: engine_version, dtype, quantization, pp")
    assert f"{CONTRACT[0].name}: no traces of its requests" in found
    assert not any("suspect" in reason for reason in found)


def test_what_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("{}", "[1]", "{"):
        path.write_text(text)
        with pytest.raises(UserError):
            read_result(path)
    path.unlink()
    with pytest.raises(UserError, match="no result files"):
        read_folder(tmp_path)


def test_published_rows_need_no_traces() -> None:
    assert "hardware" in REQUIRED
    from caslon.bench.published import published_results

    scout: list[Result] = [result for result in published_results() if result.metadata["model"] == "Kimi-K2.6"]
    assert reasons_against(scout) == []
