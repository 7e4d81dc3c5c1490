"""A tokenizer of 320 entries and a few small documents as token files: enough for a model of width 16 to learn from."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from caslon.tokenizer.encode import write_token_files
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer

WORDS = ["the", "model", "reads", "a", "row", "of", "tokens", "and", "predicts", "what", "comes", "next", "in", "every"]


def texts(count: int, seed: int) -> list[tuple[str, str]]:
    """Return documents of very different lengths, some shorter and some longer than a row."""
    rng = random.Random(seed)
    return [(f"{seed}-{n}", " ".join(rng.choices(WORDS, k=rng.choice([2, 5, 20, 60])))) for n in range(count)]


@pytest.fixture(scope="session")
def tokens_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer stage's folder: tokenizer files, and `tokens/` below."""
    folder = tmp_path_factory.mktemp("tokenizer")
    splits = {"train": texts(60, 1), "validation": texts(20, 2), "test": texts(5, 3)}
    tokenizer = train_tokenizer([text for _, text in splits["train"]], vocab_size=320)
    tokenizer.save(folder)
    write_token_files(folder / "tokens", tokenizer, lambda split: splits[split], dataset_id="words")
    return folder


@pytest.fixture(scope="session")
def other_tokens_folder(tokens_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other documents in ids of the same tokenizer, as another tokenizer stage leaves them."""
    folder = tmp_path_factory.mktemp("other")
    tokenizer = Tokenizer.load(tokens_folder)
    tokenizer.save(folder)
    splits = {"train": texts(40, 4), "validation": texts(12, 5), "test": []}
    write_token_files(folder / "tokens", tokenizer, lambda split: splits[split], dataset_id="others")
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokens_folder: Path) -> Tokenizer:
    return Tokenizer.load(tokens_folder)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
