"""Strategies with a real engine of random weights, in this process and behind a server."""

from collections.abc import Iterator, Sequence

import pytest
import torch

from caslon.client import Client
from caslon.engine.engine import Engine
from caslon.engine.settings import EngineSettings
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.reasoning.branch import Ask, Written
from caslon.reasoning.controller import reason
from caslon.reasoning.over_http import HttpGenerate
from caslon.reasoning.stepwise import StepSearch
from caslon.reasoning.strategies import BestOf, BranchFirst
from caslon.reasoning.voting import SelfConsistency
from caslon.reasoning.with_engine import EngineGenerate
from caslon.reasoning.work import Limits
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer

PROMPT = "The quick brown fox jumps over the lazy dog. " * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["The quick brown fox jumps over the lazy dog. 1 + 2 = 3 "] * 40, vocab_size=330)


@pytest.fixture
def engine(tokenizer: Tokenizer) -> Iterator[Engine]:
    torch.set_num_threads(1)
    decoder = Decoder(
        DecoderConfig(
            family="qwen3",
            vocab_size=tokenizer.vocab_size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
        )
    )
    decoder.initialise(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    with Engine(decoder.eval(), tokenizer, EngineSettings(block_tokens=8)) as engine:
        yield engine


@pytest.mark.promise(
    "reasoning", "The branches of a question share the blocks of its prompt, those that begin together too"
)
def test_branches_share_the_prompts_blocks(engine: Engine) -> None:
    generate = EngineGenerate(engine)
    prompt = engine.tokenizer.encode_chat([{"role": "user", "content": PROMPT}], add_generation_prompt=True).ids
    whole_blocks = (len(prompt) - 1) // 8 * 8
    cached: list[int] = []

    def watched(asks: Sequence[Ask]) -> list[Written]:
        written = generate(asks)
        cached.extend(one.cached_tokens for one in written)
        return written

    reason(PROMPT, BestOf(4), watched, limits=Limits(max_tokens=12), prompt="{question}")
    assert whole_blocks > 20
    assert cached == [0, whole_blocks, whole_blocks, whole_blocks]


@pytest.mark.parametrize(
    "strategy", [SelfConsistency(5), BestOf(3), BranchFirst(3), StepSearch(2, 3)], ids=lambda one: one.name
)
def test_the_same_seeds_give_the_same_record(engine: Engine, strategy: object) -> None:
    told = [
        reason(PROMPT, strategy, EngineGenerate(engine), budget_tokens=100, limits=Limits(max_tokens=15), seed=5)
        for _ in range(2)
    ]
    assert told[0].record == told[1].record
    assert 0 < told[0].tokens <= 100


def test_an_answer_that_has_begun_goes_on_and_thinking_keeps_to_its_budget(engine: Engine) -> None:
    generate = EngineGenerate(engine)
    asks = [
        Ask("Hello", 1, 10, 0.0, first_tokens=20),
        Ask("Hello", 1, 10, 0.0, prefix="The quick"),
        Ask("Hello", 2, 6, 1.0, thinking_budget=4),
    ]
    look, begun, thought = generate(asks)
    texts, logprobs = zip(*look.first_tokens, strict=True)
    assert 3 < len(texts) <= 20
    assert list(logprobs) == sorted(logprobs, reverse=True)
    assert all(texts)
    assert not any(text in engine.tokenizer for text in texts if text.startswith("<|"))
    assert len(look.logprobs) == look.tokens
    assert begun.text != look.text
    assert thought.thinking_tokens <= 4 + 2
    assert thought.tokens <= asks[2].total_tokens


@pytest.mark.promise("reasoning", "A strategy writes the same over HTTP as with an engine in the process")
@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_over_http_the_same_is_written(engine: Engine, chat: bool) -> None:
    limits = Limits(max_tokens=12, thinking_budget=5 if chat else None)
    with (
        running_server(engine, "fox", ServerSettings(page=False)) as url,
        Client(url) as client,
    ):
        generates = (EngineGenerate(engine, chat=chat), HttpGenerate(client, "fox", chat=chat))
        for strategy in (SelfConsistency(5), BranchFirst(3), StepSearch(2, 3)):
            here, there = (
                reason(PROMPT, strategy, generate, budget_tokens=90, limits=limits, seed=5) for generate in generates
            )
            assert without_logprobs(here.record) == without_logprobs(there.record)


def without_logprobs(record: tuple[dict, ...]) -> list[dict]:
    """Leave out what JSON may round."""
    return [{key: value for key, value in event.items() if key not in ("mean_logprob", "scores")} for event in record]
