"""A trained model of bytes as the ladder sees it: a probability for every byte of every text, and texts written from those.

Every model gives a byte string the product of what it gives each byte after those before it. Each of these distributions sums
to one over the 256 bytes and none is zero, so a text never seen has a finite price, and the prices of all models compare.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from caslon.observe.events import EventLog

SYMBOLS = 256

Floats = NDArray[np.float64]


class ByteModel(Protocol):
    """A model trained on bytes."""

    @property
    def numbers(self) -> int:
        """How many counts or parameters it holds."""
        ...

    def probabilities(self, context: bytes, text: bytes) -> Floats:
        """Return the probability of each byte of `text` after `context` and the bytes before it."""
        ...

    def distribution(self, context: bytes) -> Floats:
        """Return the probability `[256]` of each byte to come next."""
        ...


@dataclass(frozen=True)
class Reach:
    """What a kind of model can use: how many bytes it looks back, and which regularities of a language that opens to it."""

    bytes_back: int
    syntax: str
    long_range: str = "no"


@dataclass(frozen=True)
class Work:
    """Where a model may put files while it is trained, and who hears how far it is."""

    folder: Path
    events: EventLog


@dataclass(frozen=True)
class Rung:
    """One kind of model: its name, what it can use, how it is trained, and every setting its result depends on."""

    name: str
    reach: Reach
    train: Callable[[bytes, Work], ByteModel]
    settings: Mapping[str, Any] = field(default_factory=dict)
    holds: str = "counts"


def bits_per_byte(model: ByteModel, context: bytes, text: bytes) -> float:
    """Return the mean bits a byte of `text` costs after `context`."""
    return float(-np.log2(model.probabilities(context, text)).mean())


def written(model: ByteModel, prompt: bytes, length: int, seed: int) -> bytes:
    """Return `length` bytes the model writes after a prompt, each drawn from its distribution: write like this author."""
    random = np.random.Generator(np.random.PCG64(seed))
    text = bytearray(prompt)
    for _ in range(length):
        shares = np.cumsum(model.distribution(bytes(text)))
        text.append(min(int(np.searchsorted(shares, random.random() * shares[-1], side="right")), SYMBOLS - 1))
    return bytes(text[len(prompt) :])
