"""A small real tokenizer, and one tiny shape per family."""

import pytest
import torch

from caslon.model.config import DecoderConfig, Family
from caslon.model.decoder import Decoder
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer

TEXT = ["The quick brown fox jumps over the lazy dog.", "def square(x):\n    return x * x\n"] * 20


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXT, vocab_size=300)


def tiny_config(family: Family, **changes: object) -> DecoderConfig:
    values: dict = {
        "family": family,
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4 if family == "gpt2" else 2,
        "max_position_embeddings": 96,
        "num_local_experts": 4 if family == "mixtral" else 0,
    }
    return DecoderConfig(**{**values, **changes})


def tiny_decoder(family: Family, seed: int = 1, **changes: object) -> Decoder:
    """A decoder whose biases and norms are random too, so that no wrong place for them goes unseen."""
    decoder = Decoder(tiny_config(family, **changes))
    decoder.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            scale = 0.3 if parameter.dim() == 1 else 0.08
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return decoder.eval()


@pytest.fixture(scope="session")
def make_config():
    return tiny_config


@pytest.fixture(scope="session")
def make_decoder():
    return tiny_decoder
