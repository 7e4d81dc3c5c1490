import threading
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import InternalServerError, OpenAI

from caslon.errors import UserError
from caslon.server.admission import check_exposure
from caslon.server.errors import Refused
from caslon.server.keys import KeyStore
from caslon.server.queue import FairQueue
from caslon.server.settings import ServerSettings


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.org"])
def test_open_to_the_network_needs_a_key_or_a_word(host: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without an API key"):
        check_exposure(ServerSettings(host=host))
    check_exposure(ServerSettings(host=host, no_auth=True))
    with pytest.raises(UserError, match="without an API key"):
        check_exposure(ServerSettings(host=host, state=tmp_path))
    KeyStore.made(tmp_path)
    check_exposure(ServerSettings(host=host, state=tmp_path))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_none(host: str) -> None:
    check_exposure(ServerSettings(host=host))


def test_limits_need_a_place_and_a_known_name() -> None:
    with pytest.raises(UserError, match="need a folder"):
        check_exposure(ServerSettings(limits=("all:concurrent=3",)))
    with pytest.raises(ValueError, match="did you mean concurrent"):
        ServerSettings(limits=("all:concurent=3",))


def test_full_queue_is_503_with_retry_after(url: str, client: OpenAI, engine) -> None:
    engine.gate.clear()  # two would run, four wait
    threads = [
        threading.Thread(target=client.completions.create, kwargs={"model": "fox", "prompt": "x"}) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    while 'vllm:num_requests_waiting{model_name="fox"} 4.0' not in httpx.get(f"{url}/metrics").text:
        threading.Event().wait(0.01)
    assert len(engine.seen) == 2
    with pytest.raises(InternalServerError) as refused:
        client.completions.create(model="fox", prompt="x")
    assert refused.value.status_code == 503
    assert refused.value.code == "overloaded"
    assert int(refused.value.response.headers["retry-after"]) >= 1
    engine.gate.set()
    for thread in threads:
        thread.join()
    assert client.completions.create(model="fox", prompt="x").choices[0].text
    assert httpx.get(f"{url}/health/ready").status_code == 200


def test_a_request_larger_than_the_queue_is_taken_alone(client: OpenAI) -> None:
    answer = client.completions.create(model="fox", prompt=["x"] * 20, max_tokens=2)
    assert len(answer.choices) == 20


@given(st.lists(st.integers(1, 5), max_size=40), st.randoms())
def test_what_is_put_is_taken_and_the_queue_is_never_longer(sizes: list[int], choose) -> None:
    queue: FairQueue[int] = FairQueue(running=2, waiting=6)
    taken = 0
    for size in sizes:
        inside = queue.open
        try:
            queue.put(choose.choice("abc"), 1, list(range(size)))
            assert queue.open == inside + size <= 8
        except Refused:
            assert inside + size > 8
        while queue.take() is not None:
            taken += 1
        assert queue.running <= 2
        if queue.running and choose.random() < 0.5:
            queue.leave()
    while queue.open:
        if queue.take() is None:
            queue.leave()
    assert (queue.waiting, queue.running) == (0, 0)


@pytest.mark.promise("server", "A key with 500 waiting requests delays another key's one by one admission")
def test_lines_take_turns() -> None:
    queue: FairQueue[str] = FairQueue(running=1000, waiting=0)
    queue.put("busy", 1, [f"busy-{number}" for number in range(500)])
    queue.put("small", 1, ["small"])
    queue.put("heavy", 3, [f"heavy-{number}" for number in range(6)])
    order = [queue.take() for _ in range(10)]
    assert order[:3] == ["busy-0", "small", "heavy-0"]
    assert order[3:8] == ["heavy-1", "heavy-2", "busy-1", "heavy-3", "heavy-4"]
    assert queue.remove("busy-400")
    assert not queue.remove("busy-0")
    assert queue.waiting == 507 - 11
