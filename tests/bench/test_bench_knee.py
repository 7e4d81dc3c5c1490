"""From a rising load to its knee, and from results to money."""

import csv
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import cast

import pytest

from caslon.bench.cost import costs, read_prices
from caslon.bench.knee import COLUMNS, Request, knee_of, read_requests
from caslon.bench.lanes import lanes_of
from caslon.bench.published import published_results
from caslon.bench.simulation import Simulation
from caslon.engine.engine import Engine
from caslon.errors import UserError
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.server.simulated_engine import SimulatedEngine

ROOT = Path(__file__).parents[2]


def saturating(users: int) -> list[Request]:
    """Return ten seconds with that many users of a service that answers 3.4 requests a second at 34 users, and then falls."""
    rate = min(users / 10, 3.4) - max(0, users - 34) * 0.05
    count, begin = round(10 * rate), users * 10.0
    latency = users / rate
    return [Request(begin + 10 * index / count, users, latency, 0.5, 64, "") for index in range(count)]


def test_the_knee_is_where_most_requests_are_answered() -> None:
    requests = [request for users in range(2, 51, 4) for request in saturating(users)]
    found = knee_of([*requests, Request(600.0, 50, 1.0, None, 0, "HTTP 503")])
    assert [level.users for level in found.levels] == list(range(2, 51, 4))
    assert (found.peak.users, found.peak.requests_per_second) == (34, 3.4)
    assert found.peak.tokens_per_second == pytest.approx(3.4 * 64)
    assert found.peak.latency_p50 == pytest.approx(10.0)
    assert [found.replicas(qps) for qps in (3.4, 3.5, 34.1)] == [1, 2, 11]


def test_failed_requests_do_not_count_as_answered() -> None:
    failures = [Request(at, 9, 0.1, None, 0, "HTTP 503") for at in range(20, 30)]
    found = knee_of([*saturating(1), Request(12, 1, 1.0, None, 0, "HTTP 503"), *failures], 10.0)
    assert [(level.users, level.failed) for level in found.levels] == [(1, 1)]
    with pytest.raises(UserError, match="no request was answered"):
        knee_of(failures)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "stats.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="needs the columns"):
        read_requests(path)
    path.write_text(",".join(COLUMNS) + "\n1,2,x,,3,4,\n")
    with pytest.raises(UserError, match="not a number"):
        read_requests(path)


@pytest.mark.slow
def test_locust_writes_what_the_knee_reads(tmp_path: Path) -> None:
    settings = ServerSettings(page=False, max_queue=100)
    with SimulatedEngine(Simulation(0.05, 0.005)) as engine, running_server(cast(Engine, engine), "m", settings) as url:
        command = [sys.executable, "-m", "locust", "-f", str(ROOT / "benchmarks" / "locustfile.py"), "--headless"]
        options = ["-u", "4", "-r", "2", "-t", "6s", "--csv", "llm", "-H", url, "--output-tokens", "20"]
        paths = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, env=paths)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "llm_stats.csv").is_file()
    with (tmp_path / "llm_stats.csv").open() as file:
        kinds = {row["Type"] for row in csv.DictReader(file)}
    assert {"POST", "TTFT"} <= kinds
    requests = read_requests(tmp_path / "stats.csv")
    assert len(requests) > 20
    assert {request.output_tokens for request in requests} == {20}
    assert all(request.ttft_seconds and request.ttft_seconds < request.latency_seconds for request in requests)
    assert knee_of(requests, 1.0).peak.users in (1, 2, 3, 4)


def test_money_for_a_thousand_tokens(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(
        '[[price]]\nhardware = "2 x 8 H200"\nper = "gpu"\nper_hour = 3.6\ncurrency = "USD"\ndate = 2026-04-01\n'
    )
    lanes = [lane for lane in lanes_of(published_results()) if lane.label == "Llama-4-Scout-17B-16E 8x"]
    found = {cost.profile: cost for cost in costs(lanes, read_prices(path))}
    cost = found["serve-1024x256-c16"]
    assert (cost.per_hour, cost.currency, cost.date) == (pytest.approx(28.8), "USD", date(2026, 4, 1))
    assert cost.per_thousand_tokens == pytest.approx(28.8 / 3600 / 1378.30 * 1000)
    path.write_text('[[price]]\nhardware = "x"\nper_hour = 1\ncurrency = "USD"\n')
    with pytest.raises(UserError, match="'date' is needed"):
        read_prices(path)
