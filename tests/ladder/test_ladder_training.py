"""Networks of the ladder: whole probabilities, scoring that sees the past alone, and the package's loop as teacher."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from caslon.ladder.rung import SYMBOLS, bits_per_byte
from caslon.ladder.training import Kind, NetworkModel, NetworkSettings, network, train_network, windows
from caslon.observe.events import Event, EventLog, Metrics

KINDS: tuple[Kind, ...] = ("mlp", "rnn", "lstm", "gpt2", "llama")
SMALL = NetworkSettings(
    "mlp", width=32, embedding_width=16, back=4, layers=2, context=32, batch=8, steps=40, learning_rate=0.01
)


def untrained(kind: Kind) -> NetworkModel:
    settings = replace(SMALL, kind=kind)
    return NetworkModel(network(settings).eval(), settings.context)  # type: ignore[arg-type]


@pytest.mark.promise(
    "pretraining", "every network rung gives all byte strings together a probability of one, and none nothing"
)
@pytest.mark.parametrize("context", [b"", b"x", b"the king rode to town and saw a queen who sang of war", b"\xff\x00"])
@pytest.mark.parametrize("kind", KINDS)
def test_distributions_are_whole(kind: Kind, context: bytes) -> None:
    model = untrained(kind)
    shares = model.distribution(context)
    assert shares.shape == (SYMBOLS,)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert shares.min() > 0
    every = sum(float(model.probabilities(context, bytes([byte]))[0]) for byte in range(SYMBOLS))
    assert every == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_two_bytes_together_are_whole(kind: Kind) -> None:
    model = untrained(kind)
    first = model.probabilities(b"the", b"k")[0]
    pairs = [model.probabilities(b"the", b"k" + bytes([byte])) for byte in range(SYMBOLS)]
    assert sum(float(pair.prod()) for pair in pairs) == pytest.approx(first, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_byte_is_judged_by_the_bytes_before_it(kind: Kind) -> None:
    model = untrained(kind)
    text = bytes(range(65, 65 + 100))
    whole = model.probabilities(b"start", text)
    for changed_at in (0, 1, 40, 99):
        changed = bytearray(text)
        changed[changed_at] ^= 1
        other = model.probabilities(b"start", bytes(changed))
        assert other[:changed_at] == pytest.approx(whole[:changed_at], rel=1e-5)


@pytest.mark.parametrize(
    ("before", "text", "context"), [(1, 5, 8), (8, 100, 8), (3, 17, 4), (1, 1, 128), (128, 1000, 128)]
)
def test_windows_score_every_byte_once(before: int, text: int, context: int) -> None:
    found = windows(before + text, text, context)
    scored = [place for _, end, count in found for place in range(end - count, end)]
    assert scored == list(range(before, before + text))
    for start, end, count in found:
        assert end - 1 - start <= context
        assert end - count > start  # something is read before the first byte scored
        room = min(context, end - 1)
        assert end - 1 - start == room


@pytest.mark.parametrize("kind", KINDS)
def test_learns_through_the_training_loop(kind: Kind, small_text: bytes, tmp_path: Path) -> None:
    steps: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, Metrics) and "train/loss" in event.values:
            steps.append(event.values["train/loss"])

    model = train_network(small_text[:10_000], replace(SMALL, kind=kind), tmp_path / "work", EventLog(None, (note,)))
    assert steps
    assert bits_per_byte(model, small_text[:10_000], small_text[10_000:]) < 4.0
    assert not (tmp_path / "work").exists()


def test_the_same_seed_trains_the_same_network(small_text: bytes, tmp_path: Path) -> None:
    settings = replace(SMALL, kind="lstm", steps=5)
    torch.manual_seed(11)
    one = train_network(small_text, settings, tmp_path / "one", EventLog(None))
    torch.manual_seed(12)
    two = train_network(small_text, settings, tmp_path / "two", EventLog(None))
    assert np.array_equal(one.distribution(b"the k"), two.distribution(b"the k"))


def test_a_text_shorter_than_a_window_leaves_the_network_untrained(tmp_path: Path) -> None:
    model = train_network(b"short", SMALL, tmp_path / "work", EventLog(None))
    assert model.distribution(b"").sum() == pytest.approx(1.0)


def test_the_mlp_sees_as_many_bytes_as_it_says() -> None:
    model = untrained("mlp")
    assert np.array_equal(model.distribution(b"xxxxabcd"), model.distribution(b"yyyyabcd"))
    assert not np.array_equal(model.distribution(b"xxxxabcd"), model.distribution(b"xxxxbacd"))


def test_parameters_of_the_full_rungs() -> None:
    full = {kind: network(NetworkSettings(kind, width=128 if kind in ("gpt2", "llama") else 256)) for kind in KINDS}
    counts = {kind: sum(parameter.numel() for parameter in module.parameters()) for kind, module in full.items()}
    assert counts == {
        "mlp": 257 * 64 + (8 * 64 * 256 + 256) + 256 * 256,
        "rnn": 257 * 64 + (64 * 256 + 256 * 256 + 2 * 256) + 256 * 256,
        "lstm": 257 * 64 + 4 * (64 * 256 + 256 * 256 + 2 * 256) + 256 * 256,
        "gpt2": 842_496,
        "llama": 836_736,
    }
