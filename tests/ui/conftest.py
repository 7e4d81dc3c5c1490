from collections.abc import Iterator

import pytest
from simulated_engine import SimulatedEngine

from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["the quick brown fox jumps over the lazy dog " * 20], vocab_size=320)


@pytest.fixture
def engine(tokenizer: Tokenizer) -> SimulatedEngine:
    return SimulatedEngine(tokenizer)


@pytest.fixture
def url(engine: SimulatedEngine) -> Iterator[str]:
    with running_server(engine, "fox", ServerSettings(page=False)) as address:
        yield address
