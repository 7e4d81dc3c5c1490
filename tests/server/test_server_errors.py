import httpx
import pytest
from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI

from caslon.server.keys import KeyStore
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings

COMPLETIONS = "/v1/completions"


def error_of(response: httpx.Response) -> dict:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ('{"prompt": "x", "temprature": 1}', "unknown_parameter", "temprature"),
        ('{"prompt": "x", "temperature": 3}', "invalid_parameter", "temperature"),
        ('{"prompt": "x", "temperature": "1"}', "invalid_parameter", "temperature"),
        ('{"prompt": "x", "top_p": 0}', "invalid_parameter", "top_p"),
        ('{"prompt": "x", "max_tokens": 0}', "invalid_parameter", "max_tokens"),
        ('{"prompt": "x", "max_tokens": 2.5}', "invalid_parameter", "max_tokens"),
        ('{"prompt": "x", "logprobs": 21}', "invalid_parameter", "logprobs"),
        ('{"prompt": "x", "n": 17}', "invalid_parameter", "n"),
        ('{"prompt": "x", "n": true}', "invalid_parameter", "n"),
        ('{"prompt": "x", "stop": [""]}', "invalid_parameter", "stop"),
        ('{"prompt": "x", "logit_bias": {"99999": 1}}', "invalid_parameter", "logit_bias"),
        ('{"prompt": "x", "best_of": 3, "stream": true}', "invalid_parameter", "best_of"),
        ('{"prompt": "x", "best_of": 2, "n": 3}', "invalid_parameter", "best_of"),
        ('{"prompt": "x", "best_of": 21}', "invalid_parameter", "best_of"),
        ('{"prompt": "x", "suffix": "y", "echo": true}', "invalid_parameter", "echo"),
        ('{"prompt": NaN}', "invalid_json", None),
        ('{"prompt": "x", "logit_bias": ' + '{"a":' * 64 + "1" + "}" * 65, "invalid_json", None),
        ('{"prompt": {}}', "invalid_parameter", "prompt"),
        ('{"prompt": []}', "invalid_parameter", "prompt"),
        ('{"prompt": [1, "a"]}', "invalid_parameter", "prompt"),
        ('{"prompt": [[1], []]}', "invalid_parameter", "prompt"),
        ('{"prompt": [[-1]]}', "invalid_parameter", "prompt"),
        ('{"prompt": [99999]}', "invalid_parameter", "prompt"),
        ("{nonsense", "invalid_json", None),
        ('{"prompt": "\\ud800"}', "invalid_json", None),
        ("[" * 1000, "invalid_json", None),
        ("", "invalid_json", None),
        ("[]", "invalid_parameter", None),
    ],
)
def test_bad_request_names_the_field(url: str, body: str, code: str, param: str | None) -> None:
    response = httpx.post(url + COMPLETIONS, content=body)
    assert response.status_code == 400
    error = error_of(response)
    assert (error["code"], error["param"]) == (code, param)
    assert error["type"] == "invalid_request_error"


def test_nearest_spelling_is_offered(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="did you mean 'max_tokens'"):
        client.completions.create(model="fox", prompt="x", extra_body={"max_token": 3})


def test_bytes_that_are_not_utf8(url: str) -> None:
    assert httpx.post(url + COMPLETIONS, content=b'{"prompt": "\xff"}').status_code == 400


def test_more_prompts_than_are_taken(url: str) -> None:
    assert "64" in error_of(httpx.post(url + COMPLETIONS, json={"prompt": ["x"] * 65}))["message"]


def test_unknown_model_lists_the_known_one(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="available: fox") as refused:
        client.completions.create(model="wolf", prompt="x")
    assert refused.value.code == "model_not_found"
    with pytest.raises(NotFoundError):
        client.models.retrieve("wolf")


def test_no_such_path_and_wrong_method(url: str) -> None:
    assert error_of(httpx.get(f"{url}/v1/nothing"))["code"] == "not_found"
    assert error_of(httpx.get(f"{url}/nothing"))["code"] == "not_found"
    assert httpx.get(f"{url}/tokenize").status_code == 405


@pytest.mark.parametrize("announced", [True, False])
def test_body_over_the_limit(url: str, announced: bool) -> None:
    body = b"x" * (5 << 20)
    response = httpx.post(url + COMPLETIONS, content=body if announced else iter([body[i::5] for i in range(5)]))
    assert response.status_code == 413
    assert error_of(response)["code"] == "request_too_large"


def test_request_id_is_echoed_or_made(url: str) -> None:
    given = httpx.get(f"{url}/health", headers={"x-request-id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    made = httpx.get(f"{url}/health", headers={"x-request-id": "no spaces!"}).headers["x-request-id"]
    assert len(made) == 32


@pytest.fixture
def keys(tmp_path):
    store = KeyStore.made(tmp_path)
    scopes = ("infer", "metrics")
    return [store.create(name, scopes=scopes)[1] for name in ("one", "other")]


@pytest.fixture
def guarded(engine, keys, tmp_path):
    with running_server(engine, "fox", ServerSettings(page=False, state=tmp_path)) as address:
        yield address


def test_key_is_needed_and_enough(guarded: str, keys: list[str]) -> None:
    for key in keys:
        assert OpenAI(base_url=f"{guarded}/v1", api_key=key).models.list().data[0].id == "fox"
    assert httpx.get(f"{guarded}/v1/models", headers={"x-api-key": keys[0]}).status_code == 200
    with pytest.raises(AuthenticationError) as refused:
        OpenAI(base_url=f"{guarded}/v1", api_key="sk-wrong").models.list()
    assert refused.value.code == "invalid_api_key"
    assert "sk-wrong" not in str(refused.value)


def test_every_path_but_health_is_guarded(guarded: str) -> None:
    for path in ("/v1/models", "/metrics", "/tokenize", "/openapi.json", "/", "/v1/nothing"):
        assert httpx.get(guarded + path).status_code == 401, path
    for path in ("/health", "/health/live", "/health/ready", "/version"):
        assert httpx.get(guarded + path).status_code == 200, path


def test_browser_shows_the_key_as_password(guarded: str, keys: list[str]) -> None:
    assert "Basic" in httpx.get(guarded).headers["www-authenticate"]
    assert httpx.get(f"{guarded}/metrics", auth=("anyone", keys[0])).status_code == 200
    assert httpx.get(f"{guarded}/metrics", auth=("anyone", "sk-wrong")).status_code == 401
    assert httpx.get(f"{guarded}/metrics", headers={"authorization": "Basic ÿ".encode("latin-1")}).status_code == 401
