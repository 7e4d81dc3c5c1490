"""Training bytes to a continuous bag of words: the next byte from the mean of the embeddings of the C before it, in NumPy alone.

h = relu(mean E[x] + b1), p = softmax(h W2 + b2) (after word2vec, arXiv:1301.3781). Back-propagation is written out. The gradient
behind ReLU is masked by where ReLU was active; the gradient itself put through ReLU, as some courses do, is another one.
The mean forgets the order of the bytes, which is what the model is there to show.

Legend: `B` rows, `V` bytes, `D` width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caslon.ladder.rung import SYMBOLS, Floats

Real = NDArray[np.floating]
Weights = Mapping[str, Real]
Progress = Callable[[int, int], None]

AT_ONCE = 16_384
INITIAL_STD = 0.1
BETAS, EPSILON = (0.9, 0.999), 1e-8  # Adam, arXiv:1412.6980
SMALLEST_SHARE = 1e-12  # single precision rounds the smallest shares to nothing
LAST_RATE = 0.05  # of the first; the rate falls linearly


@dataclass(frozen=True)
class CbowSettings:
    """How large the model is and how long it learns."""

    context: int = 4
    width: int = 128
    steps: int = 3_000
    batch: int = 512
    learning_rate: float = 0.005
    seed: int = 1


def initial_weights(width: int, seed: int, dtype: type[np.floating] = np.float32) -> dict[str, Real]:
    """Return `E [V, D]`, `b1 [D]`, `W2 [D, V]`, `b2 [V]`, drawn from the seed."""
    random = np.random.Generator(np.random.PCG64(seed))
    drawn = {
        "E": random.normal(0.0, 1.0, (SYMBOLS, width)),
        "b1": np.zeros(width),
        "W2": random.normal(0.0, INITIAL_STD, (width, SYMBOLS)),
        "b2": np.zeros(SYMBOLS),
    }
    return {name: value.astype(dtype) for name, value in drawn.items()}


def bags(symbols: NDArray[np.uint8], places: NDArray[np.int64], context: int) -> Real:
    """Return `[B, V]`: the share of each byte among the (at most `context`) bytes before each place; none gives zeros."""
    bag = np.zeros((places.size, SYMBOLS), dtype=np.float32)
    rows = np.arange(places.size)
    for back in range(1, context + 1):
        there = places >= back
        bag[rows[there], symbols[places[there] - back]] += 1.0
    bag /= np.maximum(bag.sum(axis=1, keepdims=True), 1.0)
    return bag


def forward(weights: Weights, bag: Real) -> tuple[Real, Real]:
    """Return the hidden layer before ReLU `[B, D]` and the probabilities of the next byte `[B, V]`."""
    before_relu = bag @ weights["E"] + weights["b1"]
    score = np.maximum(before_relu, 0.0) @ weights["W2"] + weights["b2"]
    score -= score.max(axis=1, keepdims=True)
    shares = np.exp(score)
    shares /= shares.sum(axis=1, keepdims=True)
    return before_relu, shares


def loss_and_gradients(weights: Weights, bag: Real, targets: NDArray[np.uint8]) -> tuple[float, dict[str, Real]]:
    """Return the mean cross-entropy in nats and its exact gradient for every weight."""
    before_relu, shares = forward(weights, bag)
    rows = np.arange(targets.size)
    loss = float(-np.log(shares[rows, targets]).mean())
    to_score = shares.copy()
    to_score[rows, targets] -= 1.0
    to_score /= targets.size
    hidden = np.maximum(before_relu, 0.0)
    to_hidden = to_score @ weights["W2"].T
    to_before_relu = to_hidden * (before_relu > 0)  # masked by the activation
    return loss, {
        "E": bag.T @ to_before_relu,
        "b1": to_before_relu.sum(axis=0),
        "W2": hidden.T @ to_score,
        "b2": to_score.sum(axis=0),
    }


@dataclass(frozen=True)
class Cbow:
    """A trained model."""

    weights: Weights
    context: int

    @staticmethod
    def of(text: bytes, settings: CbowSettings, report: Progress = lambda _done, _total: None) -> "Cbow":
        """Return the model trained on random places of a text with Adam. `report` hears the steps."""
        symbols = np.frombuffer(text, dtype=np.uint8)
        weights = initial_weights(settings.width, settings.seed)
        random = np.random.Generator(np.random.PCG64([settings.seed, 1]))
        mean = {name: np.zeros_like(value) for name, value in weights.items()}
        square = {name: np.zeros_like(value) for name, value in weights.items()}
        for step in range(settings.steps if symbols.size else 0):
            places = random.integers(0, symbols.size, settings.batch)
            _, gradients = loss_and_gradients(weights, bags(symbols, places, settings.context), symbols[places])
            rate = settings.learning_rate * (1 - (1 - LAST_RATE) * step / settings.steps)
            for name, gradient in gradients.items():
                _adam(weights[name], gradient, mean[name], square[name], rate, step)
            report(step + 1, settings.steps)
        return Cbow(weights, settings.context)

    @property
    def numbers(self) -> int:
        """How many parameters there are."""
        return sum(value.size for value in self.weights.values())

    def probabilities(self, context: bytes, text: bytes) -> Floats:
        """Return the probability of each byte of `text` after `context` and the bytes before it."""
        before = context[-self.context :]
        symbols = np.frombuffer(before + text, dtype=np.uint8)
        parts = []
        for start in range(len(before), symbols.size, AT_ONCE):
            places = np.arange(start, min(start + AT_ONCE, symbols.size))
            parts.append(self._shares(symbols, places)[np.arange(places.size), symbols[places]])
        return np.concatenate([np.empty(0), *parts])

    def distribution(self, context: bytes) -> Floats:
        """Return the probability `[256]` of each byte to come next."""
        symbols = np.frombuffer(context, dtype=np.uint8)
        return self._shares(symbols, np.array([symbols.size])).ravel()

    def _shares(self, symbols: NDArray[np.uint8], places: NDArray[np.int64]) -> Floats:
        """Return the distributions `[B, V]` at these places, which sum to one in double precision."""
        _, shares = forward(self.weights, bags(symbols, places, self.context))
        exact = shares.astype(np.float64) + SMALLEST_SHARE
        exact /= exact.sum(axis=1, keepdims=True)
        return exact


def _adam(weight: Real, gradient: Real, mean: Real, square: Real, rate: float, step: int) -> None:
    """Change a weight in place by one step of Adam."""
    mean += (1 - BETAS[0]) * (gradient - mean)
    square += (1 - BETAS[1]) * (gradient**2 - square)
    corrected = square / (1 - BETAS[1] ** (step + 1))
    weight -= rate / (1 - BETAS[0] ** (step + 1)) * mean / (np.sqrt(corrected) + EPSILON)
