"""Tiny real decoders and one tokenizer for the engine's tests."""

from collections.abc import Callable, Iterator

import pytest
import torch
from engine_cases import FAMILIES, make_decoder

from caslon.engine.engine import Engine
from caslon.engine.settings import EngineSettings
from caslon.model.decoder import Decoder
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    text = "The quick brown fox jumps over the lazy dog. Zwölf Boxkämpfer jagen Viktor. 漢字と😀 "
    return train_tokenizer([text] * 40, vocab_size=330)


@pytest.fixture(scope="session")
def decoders(tokenizer: Tokenizer) -> dict[str, Decoder]:
    return {family: make_decoder(family, tokenizer.vocab_size) for family in FAMILIES}


@pytest.fixture(scope="session")
def decoder(decoders: dict[str, Decoder]) -> Decoder:
    return decoders["qwen3"]


@pytest.fixture
def engine_with(decoder: Decoder, tokenizer: Tokenizer) -> Iterator[Callable[..., Engine]]:
    """Make engines by settings; all are closed afterwards."""
    made: list[Engine] = []

    def make(**fields: object) -> Engine:
        made.append(Engine(decoder, tokenizer, EngineSettings.model_validate(fields)))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def engine(engine_with: Callable[..., Engine]) -> Engine:
    return engine_with()
