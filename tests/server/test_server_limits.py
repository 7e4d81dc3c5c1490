import hashlib
import threading

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import InternalServerError, OpenAI

from caslon.errors import UserError
from caslon.server.errors import Refused
from caslon.server.limits import Admission, check_exposure, key_digest
from caslon.server.settings import ServerSettings


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.org"])
def test_open_to_the_network_needs_a_key_or_a_word(host: str) -> None:
    with pytest.raises(UserError, match="without an API key"):
        check_exposure(ServerSettings(host=host))
    check_exposure(ServerSettings(host=host, no_auth=True))
    check_exposure(ServerSettings(host=host, api_key_sha256=(key_digest("k"),)))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_none(host: str) -> None:
    check_exposure(ServerSettings(host=host))


def test_a_key_itself_is_not_taken_for_its_digest() -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        ServerSettings(api_key_sha256=("sk-in-clear",))
    assert key_digest("a") == hashlib.sha256(b"a").hexdigest()


def test_full_queue_is_503_with_retry_after(url: str, client: OpenAI, engine) -> None:
    engine.gate.clear()  # two would run, four wait
    threads = [
        threading.Thread(target=client.completions.create, kwargs={"model": "fox", "prompt": "x"}) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    while len(engine.seen) < 6:
        threading.Event().wait(0.01)
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
def test_what_enters_leaves_and_the_queue_is_never_longer(sizes: list[int], choose) -> None:
    admission = Admission(running=2, waiting=6)
    inside = 0
    for size in sizes:
        try:
            admission.enter(size)
            inside += size
        except Refused:
            assert inside + size > 8
        assert admission.open == inside <= 8
        if inside and choose.random() < 0.5:
            admission.leave()
            inside -= 1
    for _ in range(inside):
        admission.leave()
    assert admission.open == 0
