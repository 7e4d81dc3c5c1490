import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapter_cases import random_adapter, write_adapter
from engine_cases import FAMILIES, KERNELS, need_kernels, plain_greedy, random_prompts

from caslon.engine.adapters import AdapterCounts, UnknownAdapter, read_adapter
from caslon.engine.engine import Engine
from caslon.engine.request import SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.errors import CaslonError, UserError
from caslon.model.decoder import Decoder
from caslon.tokenizer.tokenizer import Tokenizer

GREEDY = SamplingParams(max_tokens=12, temperature=0, ignore_eos=True)


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> str:
    need_kernels(request.param)
    return str(request.param)


@pytest.fixture
def engine(engine_with: Callable[..., Engine], kernels: str) -> Engine:
    return engine_with(kernels=kernels)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.promise(
    "engine", "Requests with different adapters and none share one step, and each answers as its merged model"
)
def test_answers_are_the_merged_models(
    family: str, kernels: str, decoders: dict[str, Decoder], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    decoder = decoders[family]
    models = {None: decoder}
    with Engine(decoder, tokenizer, EngineSettings(max_step_tokens=24, kernels=kernels)) as engine:
        for number, name in enumerate(("red", "blue")):
            models[name] = random_adapter(tmp_path / name, decoder, rank=4 + number, seed=number)
            engine.adapters.add(name, tmp_path / name)
        prompts = random_prompts(tokenizer.vocab_size, (5, 9, 30, 9, 17, 3))
        names = [None, "red", "blue", "red", None, "blue"]
        completions = engine.generate(prompts, GREEDY, adapters=names)
    answers = [completion.ids for completion in completions]
    assert answers == [plain_greedy(models[name], prompt, 12) for prompt, name in zip(prompts, names, strict=True)]
    assert len({plain_greedy(model, prompts[1], 12) for model in models.values()}) == 3


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
@pytest.mark.promise("engine", "An adapter's log-probabilities are within 1e-5 of its merged model's")
def test_logits_are_the_merged_model_s(
    family: str, kernels: str, decoders: dict[str, Decoder], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    decoder = decoders[family]
    merged = random_adapter(tmp_path / "red", decoder, strength=0.1)
    [prompt] = random_prompts(tokenizer.vocab_size, (60,))
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    settings = EngineSettings(kernels=kernels)
    with Engine(decoder, tokenizer, settings) as engine, Engine(merged, tokenizer, settings) as other:
        engine.adapters.add("red", tmp_path / "red")
        [ours] = engine.generate([prompt], params, adapters=["red"])
        [theirs] = other.generate([prompt], params)
    for mine, true in zip(ours.prompt_logprobs or (), theirs.prompt_logprobs or (), strict=True):
        assert mine is true is None or (mine and true and abs(mine.logprob - true.logprob) <= 1e-5)


def test_the_bits_of_an_answer_do_not_depend_on_its_neighbours_adapters(
    engine: Engine, decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for number, name in enumerate(("red", "blue")):
        random_adapter(tmp_path / name, decoder, seed=number)
        engine.adapters.add(name, tmp_path / name)
    prompts = random_prompts(tokenizer.vocab_size, (11, 7, 13))
    params = SamplingParams(max_tokens=4, temperature=0, logprobs=2, ignore_eos=True)
    alone = engine.generate(prompts[:1], params, adapters=["red"])[0].logprobs
    plain = engine.generate(prompts[2:], params)[0].logprobs
    together = engine.generate(prompts, params, adapters=["red", "blue", None])
    assert (together[0].logprobs, together[2].logprobs) == (alone, plain)


@pytest.mark.promise("engine", "Prompts are reused only between requests with the same adapter and the same cache salt")
def test_prefix_cache_is_separate(engine: Engine, decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    random_adapter(tmp_path, decoder)
    engine.adapters.add("red", tmp_path)
    [prompt] = random_prompts(tokenizer.vocab_size, (40,))

    def reused(**who: str) -> int:
        return engine.submit(prompt, GREEDY, **who).result().cached_tokens

    for who in (
        {},
        {"adapter": "red"},
        {"cache_salt": "a"},
        {"cache_salt": "b"},
        {"adapter": "red", "cache_salt": "a"},
    ):
        assert (reused(**who), reused(**who)) == (0, 32), who
    engine.adapters.remove("red")
    random_adapter(tmp_path, decoder, seed=9)  # other weights under the same name
    engine.adapters.add("red", tmp_path)
    assert reused(adapter="red") == 0


def test_least_recently_used_leaves_and_comes_back(
    engine_with: Callable[..., Engine], decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    engine = engine_with(max_adapters=2)
    merged = [random_adapter(tmp_path / str(number), decoder, seed=number) for number in range(3)]
    sizes = [engine.adapters.add(str(number), tmp_path / str(number)).bytes for number in range(3)]
    assert engine.adapters.names == ["0", "1", "2"]
    assert engine.adapters.bytes == sizes[1] + sizes[2]  # the first left
    [prompt] = random_prompts(tokenizer.vocab_size, (8,))
    assert engine.generate([prompt], GREEDY, adapters=["0"])[0].ids == plain_greedy(merged[0], prompt, 12)
    assert engine.adapters.bytes == sizes[2] + sizes[0]


@pytest.mark.promise(
    "engine", "Removing an adapter waits for the requests that run with it and refuses new ones at once"
)
def test_removal_waits_for_running_requests(
    engine: Engine, decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    merged = random_adapter(tmp_path, decoder)
    engine.adapters.add("red", tmp_path)
    [prompt] = random_prompts(tokenizer.vocab_size, (8,))
    release = threading.Event()
    handle = engine.submit(prompt, GREEDY, on_piece=lambda piece: release.wait(10) and None, adapter="red")
    while not engine.stats().running:
        time.sleep(0.001)
    assert engine.stats().adapters == AdapterCounts(engine.settings.max_adapters, 1, ("red",))
    with pytest.raises(CaslonError, match="requests still use"):
        engine.adapters.remove("red", timeout_seconds=0.05)
    with pytest.raises(UnknownAdapter, match="no adapter 'red'"):
        engine.submit(prompt, GREEDY, adapter="red")
    engine.adapters.add("red", tmp_path)
    release.set()
    engine.adapters.remove("red", timeout_seconds=10)
    assert handle.result().ids == plain_greedy(merged, prompt, 12)
    assert engine.adapters.bytes == 0
    assert engine.stats().adapters == AdapterCounts(engine.settings.max_adapters, 2)


def test_what_does_not_fit_is_refused(decoder: Decoder, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj"
    layer = decoder.model.layers[0].self_attn.q_proj

    def refused(
        match: str, module: str = name, rank: int = 2, up: float = 1.0, width: int = layer.in_features, **config: object
    ) -> None:
        tensors = {
            f"{module}.lora_A.weight": torch.ones(rank, width),
            f"{module}.lora_B.weight": torch.full((layer.out_features, rank), up),
        }
        write_adapter(tmp_path, tensors, rank=rank, alpha=4, **config)
        with pytest.raises(UserError, match=match):
            read_adapter(tmp_path, decoder, "red", lambda: "0" * 64)

    refused("rank is 65", rank=65)
    refused("not finite", up=float("nan"))
    refused("never trained", up=0.0)
    refused("targets lm_head", module="lm_head")
    refused("does not have", module="model.layers.7.self_attn.q_proj")
    refused("is 64 x 64 here", width=16)
    refused("not LORA", peft_type="LOHA")
    refused("use_dora = True", use_dora=True)
    (tmp_path / "caslon.json").write_text(json.dumps({"base_digest": "f" * 64}))
    refused("trained on the model with digest ffffffffffff, this one has 000000000000")


def test_scaling_is_peft_s(decoder: Decoder, tmp_path: Path) -> None:
    tensors = {}
    for kind in ("q", "v"):
        layer = decoder.model.layers[0].self_attn.get_submodule(f"{kind}_proj")
        tensors[f"model.layers.0.self_attn.{kind}_proj.lora_A.weight"] = torch.ones(4, layer.in_features)
        tensors[f"model.layers.0.self_attn.{kind}_proj.lora_B.weight"] = torch.ones(layer.out_features, 4)
    write_adapter(tmp_path, tensors, rank=4, alpha=8, alpha_pattern={"v_proj": 2}, use_rslora=True)
    parts = read_adapter(tmp_path, decoder, "red").parts
    assert parts["model.layers.0.self_attn.q_proj"].scaling == 8 / 2
    assert parts["model.layers.0.self_attn.v_proj"].scaling == 2 / 2
