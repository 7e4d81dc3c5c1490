"""A seed and a step to the state of every random generator, and those states to tensors and back.

Every step begins with generators seeded from (seed, step), so training draws the same numbers wherever it is resumed. The states
are kept in checkpoints all the same: whoever reads one finds them, and code that draws between steps goes on where it was.
"""

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

PREFIX = "random."
SEED_MULTIPLIER = 1_000_003  # keeps (seed, step) pairs apart


def seed_all(seed: int, step: int) -> None:
    """Seed the generators of Python, NumPy and torch, on the CPU and every GPU, from a run's seed and a step."""
    mixed = (seed * SEED_MULTIPLIER + step) % 2**63
    random.seed(mixed)
    np.random.seed(mixed % 2**32)
    torch.manual_seed(mixed)


def random_states() -> dict[str, Tensor]:
    """Return the states of all generators by name."""
    _, python, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    found = {
        "python": torch.tensor(python, dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor([*map(int, keys), position, has_gauss], dtype=torch.int64),
        "numpy_gauss": torch.tensor([cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    for number in range(torch.cuda.device_count()):
        found[f"cuda.{number}"] = torch.cuda.get_rng_state(number)
    return {PREFIX + name: state for name, state in found.items()}


def restore_random_states(states: Mapping[str, Tensor]) -> None:
    """Take over states that `random_states()` returned; those of GPUs this machine lacks are left out."""
    found = {name.removeprefix(PREFIX): state for name, state in states.items() if name.startswith(PREFIX)}
    gauss = found["python_gauss"].tolist()
    random.setstate((3, tuple(found["python"].tolist()), gauss[0] if gauss else None))
    *keys, position, has_gauss = found["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, float(found["numpy_gauss"])))
    torch.set_rng_state(found["torch"])
    for number in range(torch.cuda.device_count()):
        if f"cuda.{number}" in found:
            torch.cuda.set_rng_state(found[f"cuda.{number}"], number)
