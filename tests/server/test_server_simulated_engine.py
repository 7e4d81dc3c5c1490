"""The simulated engine behind the real server, asked by the load test over HTTP."""

import asyncio
from collections.abc import Sequence
from typing import cast

import httpx
import pytest

from caslon.bench.asking import Exchange
from caslon.bench.health import reasons_against
from caslon.bench.load import LoadRun, Service, run_load
from caslon.bench.profiles import profile_named
from caslon.bench.simulation import Fault, Simulation, parsed_faults
from caslon.engine.engine import Engine
from caslon.engine.request import Piece
from caslon.errors import UserError
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.server.simulated_engine import Refusals, SimulatedEngine

SETTINGS = ServerSettings(page=False, max_queue=100)


def load_on(simulation: Simulation, name: str) -> LoadRun:
    with (
        SimulatedEngine(simulation) as engine,
        running_server(cast(Engine, engine), "simulated", SETTINGS) as url,
    ):
        return asyncio.run(run_load(Service(url, "simulated", 320), profile_named(name), seed=1, warmup=1))


def test_answers_take_their_time_and_lose_nothing() -> None:
    run = load_on(Simulation(0.05, 0.005), "serve-16x20-c8-n24")
    assert reasons_against(run.exchanges, 20) == []
    assert all(one.seconds >= 0.05 + 19 * 0.005 - 0.002 for one in run.exchanges)
    assert {len(one.pieces) for one in run.exchanges} <= {20, 21}
    assert {one.text for one in run.exchanges} == {"the quick brown fox jumps over the lazy dog; " * 2 + "the quick "}
    grown = run.metrics_after["vllm:generation_tokens_total"] - run.metrics_before["vllm:generation_tokens_total"]
    assert grown == 24 * 20


@pytest.mark.parametrize(("fault", "reasons"), [("short", ["10 tokens instead of 20"]), ("garbage", ["garbled text"])])
def test_faults_come_through(fault: Fault, reasons: Sequence[str]) -> None:
    run = load_on(Simulation(0.0, 0.0, {fault: 2}), "serve-16x20-c4-n8")
    assert reasons_against(run.exchanges, 20) == [f"{reason} (4 of 8 answers)" for reason in reasons]


def test_a_stalled_answer_can_be_cancelled() -> None:
    with SimulatedEngine(Simulation(0.0, 0.0, {"stall": 1})) as engine:
        pieces: list[Piece] = []
        handle = engine.submit([1, 2], engine.params(max_tokens=8), pieces.append)
        while len(pieces) < 4:
            pass
        assert not handle.is_done
        handle.cancel()
        completion = handle.result(5)
        assert (completion.finish_reason, len(completion.ids)) == ("abort", 4)
        assert engine.stats().running == 0


def test_refusals_strike_every_nth_request() -> None:
    async def answer(scope: object, receive: object, send: object) -> None:
        await httpx_ok(send)

    async def statuses() -> list[int]:
        transport = httpx.ASGITransport(Refusals(answer, 3))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://simulated") as http:
            return [(await http.post("/v1/completions")).status_code for _ in range(6)]

    assert asyncio.run(statuses()) == [200, 200, 503, 200, 200, 503]


async def httpx_ok(send: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]


def test_faults_are_parsed_strictly() -> None:
    assert parsed_faults(["short:5", "refused:2"]) == {"short": 5, "refused": 2}
    for wrong in ("short", "short:0", "slow:3", "short:x"):
        with pytest.raises(UserError, match="is no fault"):
            parsed_faults([wrong])


def test_an_exchange_without_pieces_has_no_times() -> None:
    exchange = Exchange("id", 3)
    assert (exchange.ttft, exchange.tpot, exchange.seconds, exchange.gaps) == (None, None, 0.0, [])
