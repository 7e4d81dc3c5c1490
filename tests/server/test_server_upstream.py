from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fake_upstream import FakeUpstream, Script, fake_upstream, sse
from openai import OpenAI
from simulated_engine import SimulatedEngine

from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.server.upstream.settings import UpstreamSettings

SECRET = "sk-planted-0123456789"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}


def chunk(**delta: object) -> dict[str, object]:
    reason = delta.pop("finish_reason", None)
    logprobs = delta.pop("logprobs", None)
    choice = {"index": delta.pop("index", 0), "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "theirs",
        "choices": [choice],
        "usage": None,
    }


def text_chunk(text: str, reason: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": reason}]}


HELLO = sse(
    chunk(role="assistant", content=""),
    chunk(content="Hel"),
    chunk(content="lo"),
    chunk(finish_reason="stop"),
    {"choices": [], "usage": USAGE},
)


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    with fake_upstream() as upstream:
        yield upstream


@contextmanager
def gateway(engine: SimulatedEngine, *upstreams: dict[str, object], **settings: object) -> Iterator[tuple[str, OpenAI]]:
    tables = tuple(UpstreamSettings(**{"models": ["theirs"], "kind": "openai", **table}) for table in upstreams)
    with running_server(engine, "fox", ServerSettings(page=False, upstream=tables, **settings)) as url:
        yield url, OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20)


def ask(client: OpenAI, **more: object):
    return client.chat.completions.create(model="theirs", messages=[{"role": "user", "content": "Hi"}], **more)


@pytest.mark.promise("server", "models of other servers are offered beside the folder's, by the same API")
def test_an_upstreams_answer_comes_whole_and_in_pieces(engine: SimulatedEngine, fake: FakeUpstream) -> None:
    fake.scripts = [Script(HELLO)]
    with gateway(engine, {"name": "one", "url": fake.url}) as (_, client):
        assert [model.id for model in client.models.list()] == ["fox", "theirs"]
        raw = client.chat.completions.with_raw_response.create(
            model="theirs", messages=[{"role": "user", "content": "Hi"}], max_tokens=9, temperature=0.5, user="ada"
        )
        assert raw.headers["x-caslon-served-by"] == "one"
        whole = raw.parse()
        pieces = list(ask(client, stream=True, stream_options={"include_usage": True}))
        assert client.chat.completions.create(messages=[{"role": "user", "content": "Hi"}], model="fox", max_tokens=2)
    assert whole.model == "theirs"
    assert whole.choices[0].message.content == "Hello"
    assert whole.choices[0].finish_reason == "stop"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (7, 3)
    assert whole.usage.prompt_tokens_details.cached_tokens == 4
    assert [piece.choices[0].delta.content for piece in pieces if piece.choices] == ["", "Hel", "lo", None]
    assert pieces[-1].usage.completion_tokens == 3
    path, _, body = fake.asked[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "theirs", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5,
        "max_completion_tokens": 9, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
