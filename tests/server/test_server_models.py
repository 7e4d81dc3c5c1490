import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch
from openai import NotFoundError, OpenAI, PermissionDeniedError
from safetensors.torch import save_file

from caslon.engine.engine import Engine
from caslon.engine.request import SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import ModelFolder, save_model_folder
from caslon.server import shelf as shelf_module
from caslon.server.app import app_of
from caslon.server.keys import KeyStore
from caslon.server.models import Models
from caslon.server.run import DrainingServer, listening_socket, running_server, url_of
from caslon.server.service import Service
from caslon.server.settings import ServerSettings
from caslon.server.shelf import Shelf, check_together, opened

GREEDY = {"temperature": 0, "max_tokens": 6, "extra_body": {"ignore_eos": True, "repetition_penalty": 1.0}}


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory) -> dict[str, Path]:
    """Three models that write different things."""
    found = {}
    for seed, name in enumerate(("fox", "dog", "cat")):
        config = DecoderConfig.from_depth(
            1, family="qwen3", vocab_size=tokenizer.vocab_size, context=256, hidden_size=32
        )
        decoder = Decoder(config)
        torch.manual_seed(seed)
        with torch.no_grad():
            for weights in decoder.parameters():
                weights.normal_(std=0.5)
        found[name] = tmp_path_factory.mktemp("models") / name
        save_model_folder(found[name], decoder, tokenizer, sidecar={})
    return found


@contextmanager
def serving(folders: dict[str, Path], **fields: object) -> Iterator[tuple[OpenAI, Models, list[str]]]:
    """Serve the first folder and, beside it, the others; gives the names in the order they were read."""
    name, *others = folders
    settings = ServerSettings(page=False, models={other: folders[other] for other in others}, **fields)
    read: list[str] = []

    def load(folder: ModelFolder) -> Engine:
        read.append(folder.path.name)
        return Engine.load(folder.path, EngineSettings(threads=1))

    with load(ModelFolder.open(folders[name])) as engine, listening_socket("127.0.0.1", 0) as listener:
        first = Service(engine, name, settings)
        offer = lambda name, _, engine: Service(engine, name, settings, beside=first)  # noqa: E731
        models = Models(first, settings, Shelf(opened(settings, name), settings, load, offer))
        server = DrainingServer(app_of(models, settings), settings, models)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        server.wait_started(thread)
        try:
            yield OpenAI(base_url=f"{url_of(listener)}/v1", api_key="none", max_retries=0, timeout=20), models, read
        finally:
            server.stop()
            thread.join()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def text(client: OpenAI, model: str, **more: object) -> str:
    return client.completions.create(model=model, prompt="the quick", **{**GREEDY, **more}).choices[0].text


@pytest.fixture(scope="module")
def written(folders: dict[str, Path]) -> dict[str, str]:
    """What each model writes on its own."""
    found = {}
    for name, folder in folders.items():
        with Engine.load(folder, EngineSettings(threads=1)) as engine:
            params = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)
            found[name] = engine.generate(["the quick"], params)[0].text
    assert len(set(found.values())) == 3
    return found


@pytest.mark.promise("server", "several models answer by name behind one address, each as it answers alone")
def test_models_answer_by_name(folders: dict[str, Path], written: dict[str, str]) -> None:
    with serving(folders) as (client, _, read):
        assert read == ["fox", "dog", "cat"]
        assert [model.id for model in client.models.list()] == ["fox", "dog", "cat"]
        with ThreadPoolExecutor(3) as threads:
            assert dict(zip(folders, threads.map(lambda name: text(client, name), folders), strict=True)) == written
        with pytest.raises(NotFoundError, match="fox, dog, cat"):
            text(client, "wolf")
        metrics = httpx.get(str(client.base_url.join("/metrics"))).text
    assert 'vllm:generation_tokens_total{model_name="cat"} 6.0' in metrics
    assert metrics.count("# TYPE vllm:num_requests_running gauge") == 1


@pytest.mark.promise(
    "server", "a model is read when it is first asked for, given back when idle, never while it answers"
)
def test_models_come_and_go_on_demand(
    folders: dict[str, Path], written: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(folders, load="on_demand", max_loaded=2) as (client, models, read):
        assert read == ["fox"]
        with ThreadPoolExecutor(3) as threads:
            assert set(threads.map(lambda _: text(client, "dog"), range(3))) == {written["dog"]}
        assert read == ["fox", "dog"]
        long = client.completions.create(model="dog", prompt="the", stream=True, **{**GREEDY, "max_tokens": 250})
        next(iter(long))
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(text, client, "cat")
            rest = sum(1 for _ in long)
            assert rest > 1
            assert waiting.result() == written["cat"]
        assert {row["id"]: row["state"] for row in models.states()} == {
            "fox": "loaded",
            "dog": "on disk",
            "cat": "loaded",
        }
        shelved = models._shelf.models["cat"]
        shelved.last_used -= 301
        wait_for(lambda: shelved.state == "on disk")
        assert text(client, "dog") == written["dog"]
        assert read == ["fox", "dog", "cat", "dog"]


def test_a_model_that_cannot_be_read_is_a_503(folders: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folders["dog"].iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    with serving({"fox": folders["fox"], "broken": broken}, load="on_demand") as (client, _, _):
        (broken / "model.safetensors").write_bytes(b"nothing")
        answer = httpx.post(str(client.base_url.join("/v1/completions")), json={"model": "broken", "prompt": "a"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loading_failed")
        assert text(client, "fox")


def test_a_set_that_cannot_be_is_refused(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    found = {name: ModelFolder.open(folder) for name, folder in folders.items()}
    check_together(found, EngineSettings(), None)
    monkeypatch.setattr(shelf_module, "free_memory_bytes", lambda: 1 << 20)
    check_together(found, EngineSettings(), 1)
    with pytest.raises(UserError, match="together"):
        check_together(found, EngineSettings(), None)
    with pytest.raises(UserError, match="max_loaded"):
        opened(ServerSettings(models=folders, max_loaded=2), "wolf")
    with pytest.raises(UserError, match="two models"):
        opened(ServerSettings(models=folders), "fox")


@pytest.fixture
def adapters(tiny_engine: Engine, tmp_path: Path) -> dict[str, Path]:
    for seed, name in enumerate(("red", "blue")):
        write_adapter(tmp_path / name, seed)
    return {name: tmp_path / name for name in ("red", "blue")}


def write_adapter(folder: Path, seed: int) -> None:
    """Write a PEFT folder for the feed-forward layers of the tiny engine's model, which is 32 wide."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    config = DecoderConfig.from_depth(2, family="qwen3", vocab_size=320, context=1024, hidden_size=32)
    tensors = {}
    for layer in range(2):
        path = f"base_model.model.model.layers.{layer}.mlp.down_proj"
        tensors[f"{path}.lora_A.weight"] = 9 * torch.randn(4, config.intermediate_size, generator=generator)
        tensors[f"{path}.lora_B.weight"] = 9 * torch.randn(32, 4, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


@pytest.mark.promise("server", "adapters are asked for as models, beside each other, by the keys that may")
def test_adapters_are_models(tiny_engine: Engine, adapters: dict[str, Path], tmp_path: Path) -> None:
    state = tmp_path / "state"
    _, admin = KeyStore.made(state).create("root", scopes=("admin", "infer"))
    _, ada = KeyStore(state).create("ada", adapters=("red",))
    settings = ServerSettings(page=False, state=state, adapters={"red": adapters["red"]})
    with running_server(tiny_engine, "tiny", settings) as url:
        root = OpenAI(base_url=f"{url}/v1", api_key=admin, max_retries=0, timeout=20)
        reader = root.with_options(api_key=ada)
        http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {admin}"})
        assert [(card.id, card.model_extra.get("parent")) for card in root.models.list()] == [
            ("tiny", None),
            ("red", "tiny"),
        ]
        loaded = http.post("/v1/load_lora_adapter", json={"lora_name": "blue", "lora_path": str(adapters["blue"])})
        assert loaded.json() == {"id": "blue", "parent": "tiny"}
        with ThreadPoolExecutor(3) as threads:
            texts = list(threads.map(lambda name: text(root, name), ("tiny", "red", "blue")))
        params = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)
        expected = tiny_engine.generate(["the quick"] * 3, params, adapters=[None, "red", "blue"])
        assert texts == [completion.text for completion in expected]
        assert len(set(texts)) > 1
        assert text(reader, "red") == texts[1]
        with pytest.raises(PermissionDeniedError):
            text(reader, "blue")
        assert [card.id for card in reader.models.list()] == ["red"]
        assert httpx.post(f"{url}/v1/load_lora_adapter", json={}, headers={"x-api-key": ada}).status_code == 403
        assert http.post("/v1/unload_lora_adapter", json={"lora_name": "blue"}).json()["unloaded"] is True
        assert http.post("/v1/unload_lora_adapter", json={"lora_name": "blue"}).status_code == 404
        with pytest.raises(NotFoundError):
            text(root, "blue")
        missing = http.post("/v1/load_lora_adapter", json={"lora_name": "green", "lora_path": str(tmp_path / "no")})
        assert missing.status_code == 400
        assert {row["id"]: row["state"] for row in http.get("/admin/models").json()["models"]}["red"] == "loaded"
        assert [key["name"] for key in http.get("/admin/keys").json()["keys"]] == ["root", "ada"]
        assert admin not in http.get("/admin/keys").text
    tiny_engine.adapters.remove("red")


def test_open_requests_are_seen_and_ended(engine, tmp_path: Path) -> None:
    _, admin = KeyStore.made(tmp_path).create("root", scopes=("admin", "infer"))
    engine.gate.clear()
    headers = {"authorization": f"Bearer {admin}"}
    with (
        running_server(engine, "fox", ServerSettings(page=False, state=tmp_path)) as url,
        ThreadPoolExecutor(1) as threads,
    ):
        body = {"prompt": "x", "max_tokens": 5}
        asked = threads.submit(
            httpx.post, f"{url}/v1/completions", json=body, headers={**headers, "x-request-id": "one"}
        )
        wait_for(lambda: bool(httpx.get(f"{url}/admin/requests", headers=headers).json()["requests"]))
        [row] = httpx.get(f"{url}/admin/requests", headers=headers).json()["requests"]
        assert (row["id"], row["model"]) == ("one", "fox")
        assert httpx.delete(f"{url}/admin/requests/one", headers=headers).json() == {"ended": 1}
        engine.gate.set()
        assert asked.result().status_code == 503
        assert httpx.delete(f"{url}/admin/requests/two", headers=headers).status_code == 404


def test_admin_calls_need_a_key(url: str) -> None:
    for path in ("/admin/models", "/admin/requests", "/admin/keys"):
        answer = httpx.get(f"{url}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_needs_key")
