"""The bag of words: gradients by hand against torch's, learning, and whole probabilities."""

import numpy as np
import pytest
import torch

from caslon.ladder import cbow, cbow_autograd
from caslon.ladder.cbow import Cbow, CbowSettings, bags, initial_weights, loss_and_gradients

TEXT = b"the cat sat on the mat, the cat ate the rat; the end of the cat " * 40


def case(context: int) -> tuple[dict[str, cbow.Real], np.ndarray, np.ndarray]:
    symbols = np.frombuffer(TEXT, dtype=np.uint8)
    places = np.random.default_rng(0).integers(context, symbols.size, 64)
    weights = initial_weights(24, 3, np.float64)
    weights["b1"] = np.random.default_rng(1).normal(size=24)
    return weights, symbols, places


@pytest.mark.promise(
    "pretraining", "the bag of words' hand-written back-propagation equals autograd's gradients to 1e-6"
)
@pytest.mark.parametrize("context", [1, 2, 5])
def test_gradients_equal_autograd(context: int) -> None:
    weights, symbols, places = case(context)
    loss, gradients = loss_and_gradients(weights, bags(symbols, places, context).astype(np.float64), symbols[places])
    contexts = np.stack([symbols[places - back] for back in range(1, context + 1)], axis=1).astype(np.int64)
    other_loss, other = cbow_autograd.loss_and_gradients(
        weights, torch.from_numpy(contexts), torch.from_numpy(symbols[places].astype(np.int64))
    )
    assert loss == pytest.approx(other_loss, abs=1e-6)
    for name, gradient in gradients.items():
        assert np.abs(gradient - other[name]).max() < 1e-6, name
        assert np.abs(gradient).max() > 1e-4, name


@pytest.mark.promise("pretraining", "ReLU's gradient is masked by the activation, not passed through ReLU")
def test_negative_gradients_pass_an_active_relu() -> None:
    weights, symbols, places = case(2)
    bag = bags(symbols, places, 2).astype(np.float64)
    before_relu, shares = cbow.forward(weights, bag)
    shares[np.arange(places.size), symbols[places]] -= 1.0
    to_hidden = shares / places.size @ weights["W2"].T
    through_relu = np.maximum(to_hidden, 0.0)  # the mistake
    _, gradients = loss_and_gradients(weights, bag, symbols[places])
    active = before_relu > 0
    assert gradients["b1"] == pytest.approx(np.where(active, to_hidden, 0.0).sum(axis=0))
    assert np.abs(gradients["b1"] - through_relu.sum(axis=0)).max() > 1e-3


def test_learns_and_repeats() -> None:
    settings = CbowSettings(context=2, width=16, steps=150, batch=128, learning_rate=0.02)
    model = Cbow.of(TEXT, settings)
    untrained = Cbow(initial_weights(16, 1), 2)
    bits = [-np.log2(item.probabilities(TEXT, TEXT[:200])).mean() for item in (untrained, model)]
    assert bits[0] > 7.5
    assert bits[1] < 2.5
    again = Cbow.of(TEXT, settings)
    assert all(np.array_equal(model.weights[name], again.weights[name]) for name in model.weights)


@pytest.mark.parametrize("context", [TEXT, b"", b"x", b"\xff\xfe\xfd"])
def test_distributions_are_whole(context: bytes) -> None:
    model = Cbow.of(TEXT, CbowSettings(context=3, width=8, steps=20, batch=32))
    shares = model.distribution(context)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert shares.min() > 0
    every = [model.probabilities(context, bytes([byte]))[0] for byte in range(256)]
    assert every == pytest.approx(shares.tolist(), rel=1e-4)


def test_the_order_of_the_context_is_forgotten() -> None:
    model = Cbow.of(TEXT, CbowSettings(context=2, width=8, steps=20, batch=32))
    assert model.distribution(b"th").tolist() == pytest.approx(model.distribution(b"ht").tolist())
