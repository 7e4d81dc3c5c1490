"""What the server answers while its model is still being read."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from caslon.server.app import create_app
from caslon.server.doorway import Doorway
from caslon.server.run import DrainingServer, listening_socket, url_of
from caslon.server.settings import ServerSettings


class Loading:
    """A server whose model is read when `go` is set."""

    def __init__(self, engine, failure: Exception | None = None) -> None:
        self.go = threading.Event()
        self.outcomes: list[BaseException | None] = []
        self.settings = ServerSettings(page=False)

        def load():
            assert self.go.wait(20)
            if failure is not None:
                raise failure
            return create_app(engine, "fox", self.settings)

        def opened(failed: BaseException | None) -> None:
            self.outcomes.append(failed)
            self.server.should_exit = failed is not None

        doorway = Doorway(load, opened)
        self.server = DrainingServer(doorway, self.settings, doorway)
        self.listener = listening_socket("127.0.0.1", 0)
        self.url = url_of(self.listener)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})

    def __enter__(self) -> "Loading":
        self.thread.start()
        self.server.wait_started(self.thread)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()
        self.thread.join(20)
        self.listener.close()
        assert not self.thread.is_alive()


@pytest.mark.promise("server", "While the model is read the server says so, and requests wait for it")
def test_health_answers_and_requests_wait(engine) -> None:
    with Loading(engine) as loading, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(httpx.post, f"{loading.url}/v1/completions", json={"prompt": "x"}, timeout=20)
        assert httpx.get(f"{loading.url}/health/live").status_code == 200
        not_yet = httpx.get(f"{loading.url}/health/ready")
        assert (not_yet.status_code, not_yet.json()["error"]["code"]) == (503, "loading")
        assert not asked.done()
        loading.go.set()
        assert asked.result().status_code == 200
        assert httpx.get(f"{loading.url}/health/ready").status_code == 200
    assert loading.outcomes == [None]


def test_a_model_that_cannot_be_read_ends_the_server(engine) -> None:
    failure = RuntimeError("no weights")
    with Loading(engine, failure) as loading:
        loading.go.set()
        loading.thread.join(20)
        assert not loading.thread.is_alive()
    assert loading.outcomes == [failure]


def test_a_server_that_is_stopped_while_it_loads_ends_at_once(engine) -> None:
    with Loading(engine) as loading:
        began = time.monotonic()
        loading.server.stop()
        loading.thread.join(20)
        assert time.monotonic() - began < 15  # of the 20 that the model would take
    loading.go.set()
