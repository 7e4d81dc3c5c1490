"""A text small enough that every rung learns from it in a moment."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

WORDS = ["the", "king", "rode", "to", "town", "and", "saw", "a", "queen", "who", "sang", "of", "war"]


@pytest.fixture(scope="session")
def small_text() -> bytes:
    """Twelve thousand bytes of lines of simple words."""
    rng = random.Random(1)
    return "".join(" ".join(rng.choices(WORDS, k=6)) + ".\n" for _ in range(430)).encode()


@pytest.fixture(scope="session")
def small_file(small_text: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "small.txt"
    path.write_bytes(small_text)
    return path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
