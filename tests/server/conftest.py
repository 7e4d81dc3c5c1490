from collections.abc import Iterator

import pytest
from openai import OpenAI
from simulated_engine import SimulatedEngine

from caslon.engine.engine import Engine
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the quick brown fox jumps over the lazy dog " * 20], vocab_size=320)


@pytest.fixture(scope="session")
def tiny_engine(tokenizer: Tokenizer) -> Iterator[Engine]:
    """A real engine whose model knows nothing."""
    config = DecoderConfig.from_depth(2, family="qwen3", vocab_size=tokenizer.vocab_size, context=1024, hidden_size=32)
    decoder = Decoder(config)
    decoder.initialise(0)
    with Engine(decoder, tokenizer) as engine:
        yield engine


@pytest.fixture(scope="session")
def short_engine(tokenizer: Tokenizer) -> Iterator[Engine]:
    """An engine whose answers cannot be long: a body may ask for the rest of the context."""
    config = DecoderConfig.from_depth(1, family="qwen3", vocab_size=tokenizer.vocab_size, context=128, hidden_size=16)
    decoder = Decoder(config)
    decoder.initialise(0)
    with Engine(decoder, tokenizer) as engine:
        yield engine


@pytest.fixture
def engine(tokenizer: Tokenizer) -> SimulatedEngine:
    return SimulatedEngine(tokenizer)


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(page=False, max_queue=4)


@pytest.fixture
def url(engine: SimulatedEngine, settings: ServerSettings) -> Iterator[str]:
    with running_server(engine, "fox", settings) as address:
        yield address
    engine.gate.set()


@pytest.fixture
def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20)
