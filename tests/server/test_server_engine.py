"""The server over a real engine: answers over HTTP are the model's, whoever else is asking."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from openai import OpenAI

from caslon.engine.engine import Engine
from caslon.engine.golden import golden_prompts
from caslon.engine.settings import EngineSettings
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings


@pytest.fixture(scope="module")
def real_engine(tokenizer):
    torch.set_num_threads(1)
    config = DecoderConfig.from_depth(2, family="qwen3", vocab_size=tokenizer.vocab_size, context=160, hidden_size=32)
    decoder = Decoder(config)
    decoder.initialise(3)
    with Engine(decoder.eval(), tokenizer, EngineSettings(max_running=8)) as engine:
        yield engine


@pytest.fixture(scope="module")
def real_url(real_engine):
    with running_server(real_engine, "tiny", ServerSettings(page=False)) as url:
        yield url


def ask(client: OpenAI, prompt: str, max_tokens: int, stream: bool) -> str:
    fields = {"model": "tiny", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
    if stream:
        chunks = client.completions.create(**fields, stream=True, extra_body={"ignore_eos": True})
        return "".join(choice.text for chunk in chunks for choice in chunk.choices)
    return client.completions.create(**fields, extra_body={"ignore_eos": True}).choices[0].text


def test_32_clients_at_once_get_what_each_gets_alone(real_url: str) -> None:
    asked = [("the quick brown fox " * (number % 5 + 1), number % 7 * 6 + 3) for number in range(32)]
    with OpenAI(base_url=f"{real_url}/v1", api_key="none", max_retries=0) as client, ThreadPoolExecutor(32) as threads:
        alone = [ask(client, prompt, tokens, stream=False) for prompt, tokens in asked]
        together = [
            threads.submit(ask, client, prompt, tokens, number % 2 == 0)
            for number, (prompt, tokens) in enumerate(asked)
        ]
        assert [future.result() for future in together] == alone
    assert len(set(alone)) > 5


def test_served_tokens_are_the_plain_decoders(real_url: str, real_engine: Engine) -> None:
    client = OpenAI(base_url=f"{real_url}/v1", api_key="none")
    ids = real_engine.tokenizer.encode("the lazy dog")
    [golden] = golden_prompts(real_engine.decoder, [ids], 20)
    answer = client.completions.create(
        model="tiny", prompt=ids, max_tokens=len(golden["ids"]), temperature=0, extra_body={"ignore_eos": True}
    )
    assert golden["ids"]
    assert answer.choices[0].text == real_engine.tokenizer.decode(golden["ids"], skip_special_tokens=True)


def test_logprobs_over_http_are_the_engines_scores(real_url: str, real_engine: Engine) -> None:
    client = OpenAI(base_url=f"{real_url}/v1", api_key="none")
    answer = client.completions.create(model="tiny", prompt="the lazy dog", max_tokens=0, echo=True, logprobs=2)
    [scores] = real_engine.score([real_engine.tokenizer.encode("the lazy dog")])
    assert answer.choices[0].logprobs.token_logprobs[1:] == pytest.approx(scores, abs=1e-5)


def test_same_seed_same_answer_and_n_has_seeds_in_a_row(real_url: str) -> None:
    client = OpenAI(base_url=f"{real_url}/v1", api_key="none")
    fields = {"model": "tiny", "prompt": "the", "max_tokens": 12, "temperature": 1}
    both = client.completions.create(**fields, n=2, seed=11)
    alone = [client.completions.create(**fields, seed=seed).choices[0].text for seed in (11, 12)]
    assert [choice.text for choice in both.choices] == alone
    assert alone[0] != alone[1]
