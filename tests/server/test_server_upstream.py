import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fake_upstream import FakeUpstream, Script, fake_upstream, lines, sse
from openai import BadRequestError, InternalServerError, OpenAI, PermissionDeniedError, RateLimitError
from pydantic import ValidationError
from simulated_engine import SimulatedEngine

from caslon.errors import UserError
from caslon.server.audit import audit_lines
from caslon.server.keys import KeyStore
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.server.upstream import upstream as upstream_module
from caslon.server.upstream.breaker import Breaker
from caslon.server.upstream.settings import UpstreamSettings, upstreams_of

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


KIND_CASES = {
    "openai": (
        {"url_path": "/v1/chat/completions", "header": ("authorization", f"Bearer {SECRET}")},
        sse(
            chunk(role="assistant", content="", reasoning_content="Hm."),
            chunk(content="Look: "),
            chunk(tool_calls=[{"index": 0, "id": "call_9", "function": {"name": "find", "arguments": ""}}]),
            chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"q": '}}]),
            chunk(tool_calls=[{"index": 0, "function": {"arguments": '"fox"}'}}]),
            chunk(finish_reason="tool_calls"),
            {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 9}},
        ),
    ),
    "ollama": (
        {"url_path": "/api/chat", "header": ("authorization", f"Bearer {SECRET}")},
        lines(
            {"message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done": False},
            {"message": {"role": "assistant", "content": "Look: "}, "done": False},
            {
                "message": {"role": "assistant", "content": "",
                            "tool_calls": [{"function": {"name": "find", "arguments": {"q": "fox"}}}]},
                "done": False,
            },
            {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop",
             "prompt_eval_count": 12, "eval_count": 9},
        ),
    ),
    "anthropic": (
        {"url_path": "/v1/messages", "header": ("x-api-key", SECRET)},
        sse(
            {"type": "message_start", "message": {"usage": {"input_tokens": 8, "cache_read_input_tokens": 4}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
            {"type": "content_block_stop", "index": 0},
            {"type": "ping"},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Look: "}},
            {"type": "content_block_stop", "index": 1},
            {"type": "content_block_start", "index": 2,
             "content_block": {"type": "tool_use", "id": "toolu_9", "name": "find", "input": {}}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"q": '}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '"fox"}'}},
            {"type": "content_block_stop", "index": 2},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
            {"type": "message_stop"},
            done=False,
        ),
    ),
}  # fmt: skip
KIND_CASES["vllm"] = KIND_CASES["llama-server"] = KIND_CASES["openai"]
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Find the fox."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"q": "a"}'}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "nothing"},
]


@pytest.mark.parametrize("kind", sorted(KIND_CASES))
@pytest.mark.promise(
    "server", "OpenAI, vLLM, llama-server, Ollama and Anthropic answer in one shape: text, thoughts, calls"
)
def test_every_kind_is_asked_and_read_in_its_own_words(
    kind: str, engine: SimulatedEngine, fake: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, chunks = KIND_CASES[kind]
    monkeypatch.setenv("UPSTREAM_KEY", SECRET)
    fake.scripts = [Script(chunks)]
    table = {"name": "one", "url": fake.url, "kind": kind, "secret_env": "UPSTREAM_KEY", "context_tokens": 4096}
    with gateway(engine, table) as (_, client):
        fields = {"messages": HISTORY, "tools": [TOOL], "max_tokens": 50, "stop": ["END"], "model": "theirs"}
        whole = client.chat.completions.create(**fields)
        pieces = list(client.chat.completions.create(**fields, stream=True))
    message = whole.choices[0].message
    assert (message.content, message.model_extra["reasoning_content"]) == ("Look: ", "Hm.")
    assert message.tool_calls[0].function.name == "find"
    assert json.loads(message.tool_calls[0].function.arguments) == {"q": "fox"}
    assert whole.choices[0].finish_reason == pieces[-1].choices[0].finish_reason == "tool_calls"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (12, 9)
    streamed = [call.function.arguments for piece in pieces for call in piece.choices[0].delta.tool_calls or ()]
    assert json.loads("".join(streamed)) == {"q": "fox"}
    path, headers, body = fake.asked[0]
    assert path == wanted["url_path"]
    assert headers[wanted["header"][0]] == wanted["header"][1]
    if kind == "anthropic":
        assert body["system"] == "Be brief."
        assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
        assert body["messages"][1]["content"][0]["input"] == {"q": "a"}
        assert body["messages"][2]["content"][0]["tool_use_id"] == "call_1"
        assert (body["max_tokens"], body["stop_sequences"]) == (50, ["END"])
    elif kind == "ollama":
        assert body["options"] == {"stop": ["END"], "num_ctx": 4096, "num_predict": 50}
        assert body["truncate"] is False
        assert body["messages"][2]["tool_calls"] == [{"function": {"name": "find", "arguments": {"q": "a"}}}]
        assert body["messages"][3]["tool_name"] == "find"
    else:
        assert body["messages"] == [
            {key: value for key, value in turn.items() if value is not None} for turn in HISTORY
        ]


UNSUPPORTED = [
    ("ollama", {"logprobs": True}, "logprobs"),
    ("ollama", {"n": 2}, "n"),
    ("ollama", {"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
    ("ollama", {"logit_bias": {"1": 5}}, "logit_bias"),
    ("openai", {"extra_body": {"top_k": 5}}, "top_k"),
    ("llama-server", {"n": 2}, "n"),
    ("anthropic", {"seed": 1}, "seed"),
    ("anthropic", {"temperature": 1.5}, "temperature"),
    ("anthropic", {"response_format": {"type": "json_object"}}, "response_format"),
]


@pytest.mark.parametrize(("kind", "fields", "param"), UNSUPPORTED)
@pytest.mark.promise("server", "a field that another server cannot honour is refused, never dropped")
def test_what_an_upstream_cannot_do_is_refused(
    kind: str, fields: dict[str, object], param: str, engine: SimulatedEngine, fake: FakeUpstream
) -> None:
    with (
        gateway(engine, {"name": "one", "url": fake.url, "kind": kind, "context_tokens": 4096}) as (_, client),
        pytest.raises(BadRequestError) as caught,
    ):
        ask(client, **fields)
    assert (caught.value.code, caught.value.param) == ("unsupported_by_upstream", param)
    assert not fake.asked


def test_texts_are_continued_with_logprobs_and_echo(engine: SimulatedEngine, fake: FakeUpstream) -> None:
    logprobs = {"tokens": [" b"], "token_logprobs": [-0.5], "top_logprobs": [{" b": -0.5}], "text_offset": [1]}
    piece = {"choices": [{"index": 0, "text": " b", "finish_reason": "length", "logprobs": logprobs}]}
    fake.scripts = [Script(sse(piece))]
    with gateway(engine, {"name": "one", "url": fake.url, "kind": "vllm"}) as (url, client):
        answer = client.completions.create(model="theirs", prompt=["a", "c"], max_tokens=1, echo=True)
        assert [choice.text for choice in answer.choices] == ["a b", "c b"]
        answer = client.completions.create(
            model="theirs", prompt=[1, 2], max_tokens=1, logprobs=1, extra_body={"top_k": 3, "include_stop": True}
        )
        assert answer.choices[0].logprobs.token_logprobs == [-0.5]
        assert "b" in httpx.post(f"{url}/generate", json={"model": "theirs", "prompt": "a"}).text
        responses = httpx.post(f"{url}/tokenize", json={"model": "theirs", "prompt": "a"})
        assert responses.json()["error"]["code"] == "unsupported_by_upstream"
    assert fake.asked[2][2]["prompt"] == [1, 2]
    assert fake.asked[2][2]["top_k"] == 3
    assert fake.asked[2][2]["include_stop_str_in_output"] is True


def test_the_other_chat_apis_reach_upstreams_too(engine: SimulatedEngine, fake: FakeUpstream) -> None:
    fake.scripts = [Script(HELLO)]
    with gateway(engine, {"name": "one", "url": fake.url}) as (url, client):
        body = {"model": "theirs", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
        message = httpx.post(f"{url}/v1/messages", json=body).json()
        assert (message["content"][0]["text"], message["usage"]["output_tokens"]) == ("Hello", 3)
        assert client.responses.create(model="theirs", input="Hi").output_text == "Hello"


@pytest.mark.promise("server", "another server is asked again only before its first word, and then its fallback is")
def test_retries_and_fallbacks_come_before_the_first_word(
    engine: SimulatedEngine, fake: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "BACK_OFF_SECONDS", 0.01)
    busy = Script(status=503, headers={"retry-after": "0"})
    with fake_upstream() as second:
        second.scripts = [Script(HELLO)]
        first = {"name": "one", "url": fake.url, "fallbacks": ("two",)}
        with gateway(engine, first, {"name": "two", "url": second.url}) as (url, client):
            served = lambda **more: client.chat.completions.with_raw_response.create(  # noqa: E731
                model="theirs", messages=[{"role": "user", "content": "Hi"}], **more
            ).headers["x-caslon-served-by"]
            fake.scripts = [busy, busy, Script(HELLO)]
            assert served() == "one"
            assert len(fake.asked) == 3
            fake.scripts = [busy]
            assert served() == "two"
            assert len(fake.asked) == 6
            # Nothing had come yet: a role is no word.
            fake.scripts = [Script(HELLO[:1], cut=True)]
            assert served(stream=True) == "two"
            fake.scripts = [Script(HELLO[:2], cut=True)]
            with httpx.stream(
                "POST", f"{url}/v1/chat/completions",
                json={"model": "theirs", "messages": [{"role": "user", "content": "Hi"}], "stream": True},
            ) as answer:  # fmt: skip
                text = answer.read().decode()
            assert answer.headers["x-caslon-served-by"] == "one"
            assert "Hel" in text
            assert "event: error" in text
            assert "upstream_cut" in text
            metrics = httpx.get(f"{url}/metrics").text
    assert 'caslon:upstream_errors_total{reason="failed",upstream="one"} 5.0' in metrics


FAULTS = {
    "garbled": Script([b"data: {oops\n\n"]),
    "cut": Script(HELLO[:3], cut=True),
    "failed": Script(status=500),
    "unauthorized": Script([json.dumps({"error": {"message": f"bad key {SECRET}"}}).encode()], status=401),
    "busy": Script(status=429, headers={"retry-after": "60"}),
    "timeout": Script(HELLO, delay=1.0),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_failing_upstream_is_a_503_that_says_why(
    reason: str, engine: SimulatedEngine, fake: FakeUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "key"
    key.write_text(f"{SECRET}\n")
    fake.scripts = [FAULTS[reason]]
    table = {"name": "one", "url": fake.url, "secret_file": key, "read_timeout_seconds": 0.3}
    state = tmp_path / "state"
    with gateway(engine, table, state=state) as (url, client):
        with pytest.raises(InternalServerError) as caught:
            ask(client)
        metrics = httpx.get(f"{url}/metrics").text
    assert (caught.value.status_code, caught.value.code) == (503, f"upstream_{reason}")
    assert f'reason="{reason}"' in metrics
    assert fake.asked[0][1]["authorization"] == f"Bearer {SECRET}"
    told = [str(caught.value), str(caught.value.response.headers), metrics, caplog.text]
    told += [file.read_bytes().decode("latin-1") for file in state.rglob("*") if file.is_file()]
    assert all(SECRET not in text for text in told)


def test_a_request_the_upstream_refuses_is_the_callers_fault(
    engine: SimulatedEngine, fake: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", SECRET)
    error = {"error": {"message": f"too long, {SECRET}"}}
    fake.scripts = [Script([json.dumps(error).encode()], status=422)]
    with (
        gateway(engine, {"name": "one", "url": fake.url, "secret_env": "UPSTREAM_KEY"}) as (_, client),
        pytest.raises(BadRequestError) as caught,
    ):
        ask(client)
    assert caught.value.code == "upstream_refused"
    assert "too long" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.promise("server", "tokens that another server does not count are counted here, or marked as estimated")
def test_missing_usage_is_counted_or_marked(engine: SimulatedEngine, fake: FakeUpstream, tmp_path: Path) -> None:
    engine.tokenizer.save(tmp_path / "tokenizer")
    fake.scripts = [Script(HELLO[:-2])]
    with gateway(engine, {"name": "one", "url": fake.url}) as (_, client):
        assert ask(client).usage.model_extra["estimated"] is True
    table = {"name": "one", "url": fake.url, "tokenizer": tmp_path / "tokenizer", "context_tokens": 40}
    with gateway(engine, table, state=tmp_path / "state") as (_, client):
        usage = ask(client, max_tokens=20).usage
        assert "estimated" not in usage.model_extra
        assert usage.completion_tokens == len(engine.tokenizer.encode("Hello"))
        asked = len(fake.asked)
        with pytest.raises(BadRequestError) as caught:
            ask(client, max_tokens=40)
        assert caught.value.code == "context_length_exceeded"
        assert len(fake.asked) == asked
    line = next(audit_lines(tmp_path / "state"))
    assert (line["model"], line["served_by"]) == ("theirs", "one")
    assert line["completion_tokens"] == usage.completion_tokens


def test_a_client_that_leaves_ends_the_upstreams_work(engine: SimulatedEngine, fake: FakeUpstream) -> None:
    fake.scripts = [Script([*HELLO[:2], *HELLO[1:2] * 500], delay=0.02)]
    with gateway(engine, {"name": "one", "url": fake.url}) as (_, client):
        stream = ask(client, stream=True)
        next(piece for piece in stream if piece.choices[0].delta.content == "Hel")
        stream.close()
        assert fake.left.wait(10)


def test_limits_and_key_scopes_hold_for_upstreams(engine: SimulatedEngine, fake: FakeUpstream, tmp_path: Path) -> None:
    fake.scripts = [Script(HELLO)]
    _, shown = KeyStore.made(tmp_path).create("ada", models=("fox",))
    _, other = KeyStore(tmp_path).create("bob", models=("theirs",))
    settings = {"state": tmp_path, "limits": ("key:requests_per_minute=1",)}
    with gateway(engine, {"name": "one", "url": fake.url}, **settings) as (_, client):
        ada, bob = client.with_options(api_key=shown), client.with_options(api_key=other)
        with pytest.raises(PermissionDeniedError):
            ask(ada)
        assert [model.id for model in bob.models.list()] == ["theirs"]
        assert ask(bob).choices[0].message.content == "Hello"
        with pytest.raises(RateLimitError):
            ask(bob)


def test_a_breaker_opens_after_five_failures_and_lets_one_try() -> None:
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    for _ in range(4):
        breaker.failed()
    assert breaker.lets_through()
    breaker.failed()
    assert not breaker.lets_through()
    now[0] = 29.9
    assert not breaker.lets_through()
    now[0] = 30.0
    assert [breaker.lets_through(), breaker.lets_through()] == [True, False]
    breaker.failed()
    now[0] = 59.9
    assert not breaker.lets_through()
    now[0] = 60.0
    assert breaker.lets_through()
    breaker.succeeded()
    assert breaker.lets_through()


@pytest.mark.parametrize(
    "table",
    [
        {"url": "http://example.org", "secret_env": "X"},
        {"url": "ftp://example.org"},
        {"kind": "ollama", "url": "http://127.0.0.1:1"},
        {"fallbacks": ("three",)},
        {"secret_env": "NOT_SET_ANYWHERE"},
        {"models": ["fox"]},
    ],
)
def test_settings_that_cannot_be_are_refused(table: dict[str, object], engine: SimulatedEngine) -> None:
    with pytest.raises((UserError, ValidationError)), gateway(engine, {"name": "one", "url": "https://a.b", **table}):
        pass


def test_a_file_of_upstreams(tmp_path: Path) -> None:
    file = tmp_path / "upstreams.toml"
    file.write_text('[[serve.upstream]]\nname = "a"\nkind = "openai"\nurl = "https://a.b/v1"\nmodels = {x = "y"}\n')
    assert [(one.url, one.models) for one in upstreams_of(file)] == [("https://a.b", {"x": "y"})]
    file.write_text('[[serve.upstream]]\nname = "a"\nkind = "openai"\nurl = "https://a.b"\nmodel = ["x"]\n')
    with pytest.raises(UserError, match="models"):
        upstreams_of(file)
