"""The whole harness against answers of known times, on a clock that jumps."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from caslon.bench.figures import law_holds
from caslon.bench.gate import suspicion
from caslon.bench.lanes import UNRELIABLE, lanes_of, status_of
from caslon.bench.load import Service
from caslon.bench.matrix import Plan, measure, measure_matrix
from caslon.bench.profiles import CONTRACT, profile_named
from caslon.bench.published import published_row, row_names
from caslon.bench.results import Result, read_result
from caslon.bench.simulated_service import VOCAB_SIZE, SimulatedService
from caslon.bench.simulation import Fault, Simulation, simulation_of
from caslon.bench.virtual_clock import run_virtually
from caslon.errors import CaslonError, UserError

SMALL = profile_named("serve-16x8-c4-n10")


def plan_for(simulation: Simulation, folder: Path) -> Plan:
    service = Service("http://127.0.0.1", "model", VOCAB_SIZE, transport=SimulatedService(simulation, "model"))
    return Plan(service, {"served_model_name": "model", "hardware": None, "status": "completed"}, folder, "run")


def measured(simulation: Simulation, folder: Path) -> tuple[Result, list[str]]:
    return run_virtually(measure(plan_for(simulation, folder), SMALL))


def assert_row_comes_back(name: str, folder: Path) -> None:
    row = published_row(name)
    result, reasons = run_virtually(measure(plan_for(simulation_of(name), folder), row.profile))
    assert reasons == []
    assert result.data["output_throughput"] == pytest.approx(row.data["output_throughput"], rel=0.05)
    for key in ("ttft", "tpot"):
        assert result.data[f"mean_{key}_ms"] == pytest.approx(row.data[f"mean_{key}_ms"], rel=1e-9)
        assert result.data[f"p99_{key}_ms"] == pytest.approx(row.data[f"mean_{key}_ms"], rel=1e-9)
    assert result.law is not None
    assert result.law[0] == pytest.approx(1)
    assert suspicion(result) is None


@pytest.mark.promise(
    "bench", "a load test of a service with known times gives those times back, for published rows of all loads"
)
def test_published_rows_come_back(tmp_path: Path) -> None:
    for name in [*row_names()[:3], *row_names()[3::15], row_names()[-1]]:
        assert_row_comes_back(name, tmp_path)


@pytest.mark.slow
@pytest.mark.promise(
    "bench", "a load test of a service with known times gives those times back, for all 36 published rows"
)
def test_every_published_row_comes_back(tmp_path: Path) -> None:
    assert len(row_names()) == 36
    for name in row_names():
        assert_row_comes_back(name, tmp_path)


def test_a_load_is_of_exactly_the_tokens_it_says(tmp_path: Path) -> None:
    result, _ = measured(Simulation(0.1, 0.01), tmp_path)
    data = result.data
    assert (data["completed"], data["failed"]) == (10, 0)
    assert (data["total_input_tokens"], data["total_output_tokens"]) == (160, 80)
    assert data["duration"] == pytest.approx(3 * (0.1 + 7 * 0.01))  # three waves of four
    assert result.metadata["server_metrics_after"]["vllm:generation_tokens_total"] == 80 + 8  # with the warm-up
    assert result.metadata["server_metrics_before"]["vllm:generation_tokens_total"] == 8


def test_the_contract_is_270_prompts() -> None:
    assert sum(profile.prompts for profile in CONTRACT) == 270
    assert sum(profile.prompts * profile.input_tokens for profile in CONTRACT) == 634_880
    assert sum(profile.prompts * profile.output_tokens for profile in CONTRACT) == 69_120


def test_requests_arrive_at_a_rate(tmp_path: Path) -> None:
    for name, seconds in (("serve-16x8-c16-n10-constant2", 9 * 0.5), ("serve-16x8-c16-n10-poisson2", None)):
        plan = plan_for(Simulation(0.1, 0.01), tmp_path)
        result, _ = run_virtually(measure(plan, profile_named(name)))
        starts = result.data["start_times"]
        assert result.law is None
        assert result.metadata["request_rate"] == 2
        if seconds is None:
            assert len({later - earlier for earlier, later in pairwise(starts)}) == 9
        else:
            assert starts[-1] == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("fault", "reason", "failed"),
    [
        ("short", "4 tokens instead of 8 (2 of 10 answers)", 0),
        ("refused", "HTTP 503: simulated overload (2 of 10 answers)", 2),
        ("stall", "stalled: no piece of the answer for 600 s (2 of 10 answers)", 2),
    ],
)
def test_faults_are_noted_and_named(tmp_path: Path, fault: Fault, reason: str, failed: int) -> None:
    result, reasons = measured(Simulation(0.1, 0.01, {fault: 5}), tmp_path)
    assert reasons == [reason]
    assert result.data["failed"] == failed
    assert result.metadata["status"] == "blocked"
    assert reason in result.metadata["caveat"]


def test_garbage_is_a_no_go_that_ends_the_matrix(tmp_path: Path) -> None:
    profiles = [profile_named("latency-16x32-c1-n4"), SMALL]
    told: list[Result] = []
    with pytest.raises(CaslonError, match=r"no-go: garbled text \(4 of 4 answers\)"):
        run_virtually(measure_matrix(plan_for(Simulation(0.1, 0.01, {"garbage": 1}), tmp_path), profiles, told.append))
    assert [result.profile.name for result in told] == [profiles[0].name]


def test_result_files_are_sorted_json_that_reads_back(tmp_path: Path) -> None:
    result, _ = measured(Simulation(0.1, 0.01), tmp_path)
    assert result.path is not None
    text = result.path.read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    assert read_result(result.path).profile == SMALL
    assert law_holds(1.0, 1)
    assert not law_holds(1.006, 1)
    assert not law_holds(0.96, 16)


def test_a_result_is_never_written_over(tmp_path: Path) -> None:
    plan = plan_for(Simulation(0.1, 0.01), tmp_path)
    plan.check_new([SMALL])
    run_virtually(measure(plan, SMALL))
    with pytest.raises(UserError, match="of this load and tag already"):
        plan.check_new([SMALL])


def test_a_key_is_in_no_description_of_a_service() -> None:
    assert "sk-secret" not in repr(Service("http://127.0.0.1", "m", 9, "sk-secret"))


def test_a_load_of_which_nothing_came_is_a_result_too(tmp_path: Path) -> None:
    result, reasons = run_virtually(measure(plan_for(Simulation(0.1, 0.01, {"refused": 1}), tmp_path), CONTRACT[0]))
    assert reasons == ["HTTP 503: simulated overload (20 of 20 answers)"]
    assert (result.data["completed"], result.data["output_throughput"], result.data["mean_ttft_ms"]) == (0, 0.0, None)
    assert not result.has_figures
    with_metadata = Result(result.path, {**result.data, "run_metadata": {**result.metadata, "model": "model"}})
    [lane] = lanes_of([with_metadata])
    assert status_of(lane, [lane]) == UNRELIABLE
    assert lane.by_profile == {}
