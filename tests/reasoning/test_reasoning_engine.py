"""Strategies with a real engine of random weights, in this process and behind a server."""

from collections.abc import Iterator

import pytest
import torch

from caslon.client import Client
from caslon.engine.engine import Engine
from caslon.engine.settings import EngineSettings
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.reasoning.branch import Ask
from caslon.reasoning.controller import reason
from caslon.reasoning.stepwise import StepSearch
from caslon.reasoning.strategies import BestOf, BranchFirst
from caslon.reasoning.voting import SelfConsistency
from caslon.reasoning.with_engine import EngineGenerate
from caslon.reasoning.work import Limits
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
    reason(PROMPT, BestOf(4), generate, limits=Limits(max_tokens=12), prompt="{question}")
    assert whole_blocks > 20
    assert generate.cached_tokens == 3 * whole_blocks


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
        Ask("Hello", 1, 10, 0.0, first_tokens=3),
        Ask("Hello", 1, 10, 0.0, prefix="The quick"),
        Ask("Hello", 2, 6, 1.0, thinking_budget=4),
    ]
    look, begun, thought = generate(asks)
    assert len(look.first_tokens) == 3
    assert look.first_tokens[0][1] >= look.first_tokens[1][1] >= look.first_tokens[2][1]
    assert len(look.logprobs) == look.tokens
    assert begun.text != look.text
    assert thought.thinking_tokens <= 4 + 2
    assert thought.tokens <= asks[2].total_tokens
