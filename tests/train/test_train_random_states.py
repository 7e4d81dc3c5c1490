import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from caslon.train.random_states import random_states, restore_random_states, seed_all


def draws() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(1))]


@pytest.mark.promise("pretraining", "a checkpoint holds the random states of Python, NumPy and torch")
def test_states_in_a_file_give_the_same_numbers_again(tmp_path) -> None:
    seed_all(3, 17)
    draws()  # leaves a second normal number waiting in Python's and NumPy's generators
    save_file(random_states(), tmp_path / "states.safetensors")
    first = draws()
    seed_all(4, 1)
    assert draws() != first
    restore_random_states(load_file(tmp_path / "states.safetensors"))
    assert draws() == first


def test_steps_and_seeds_differ() -> None:
    found = set()
    for seed, step in ((1, 1), (1, 2), (2, 1)):
        seed_all(seed, step)
        found.add(tuple(draws()))
    assert len(found) == 3
