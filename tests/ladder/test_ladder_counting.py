"""Counting models: exact figures on the small corpus, and probabilities that are whole whatever the text."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from caslon.ladder.counting import CountedModel, discount, kneser_ney, laplace, uniform, witten_bell
from caslon.ladder.naive_bayes import NaiveBayes
from caslon.ladder.rung import SYMBOLS, ByteModel, bits_per_byte, written

Train = Callable[[bytes], ByteModel]
MODELS: dict[str, Train] = {
    "uniform": uniform,
    "unigram": partial(laplace, order=1),
    "Markov": partial(laplace, order=2),
    "Laplace 3": partial(laplace, order=3),
    **{f"naive Bayes {k}": partial(NaiveBayes.of, k=k) for k in (2, 4, 8)},
    **{f"Witten-Bell {n}": partial(witten_bell, order=n) for n in (3, 5, 8)},
    **{f"Kneser-Ney {n}": partial(kneser_ney, order=n) for n in (1, 3, 5, 8)},
}
TEXT = b"the cat sat on the mat, the cat ate the rat; \x00\xff the end of the cat" * 3
EXACT = {
    "uniform": (uniform, 8.0000),
    "unigram": (partial(laplace, order=1), 4.8295),
    "Markov": (partial(laplace, order=2), 3.5969),
    "naive Bayes, 2 bytes": (partial(NaiveBayes.of, k=2), 3.3939),
    "naive Bayes, 4 bytes": (partial(NaiveBayes.of, k=4), 3.4571),
    "naive Bayes, 8 bytes": (partial(NaiveBayes.of, k=8), 3.7004),
    "Witten-Bell 3": (partial(witten_bell, order=3), 2.9564),
    "Witten-Bell 4": (partial(witten_bell, order=4), 2.5590),
    "Witten-Bell 5": (partial(witten_bell, order=5), 2.4076),
    "Witten-Bell 6": (partial(witten_bell, order=6), 2.4498),
    "Witten-Bell 7": (partial(witten_bell, order=7), 2.5668),
}


@pytest.mark.promise("pretraining", "counting models reach the exact bits per byte on tiny Shakespeare, to 0.001")
@pytest.mark.parametrize("name", EXACT)
def test_exact_figures_on_tiny_shakespeare(name: str, tiny_shakespeare: Path) -> None:
    text = tiny_shakespeare.read_bytes()
    train, validation = text[:1_003_854], text[1_003_854:]
    build, expected = EXACT[name]
    assert bits_per_byte(build(train), train, validation) == pytest.approx(expected, abs=1e-3)


@pytest.mark.promise(
    "pretraining", "every counting model gives all byte strings together a probability of one, and none nothing"
)
@pytest.mark.parametrize("train", [TEXT, b"", b"a", b"ab"])
@pytest.mark.parametrize("context", [TEXT, b"", b"x", b"never seen \xfe", b"th"])
@pytest.mark.parametrize("name", MODELS)
def test_distributions_are_whole(name: str, context: bytes, train: bytes) -> None:
    model = MODELS[name](train)
    shares = model.distribution(context)
    assert shares.shape == (SYMBOLS,)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert shares.min() > 0


@pytest.mark.parametrize("name", MODELS)
def test_a_text_has_the_product_of_its_bytes(name: str) -> None:
    model = MODELS[name](TEXT)
    text = b"the \xfe rat sat"
    one_by_one = [model.distribution(TEXT[:9] + text[:place])[byte] for place, byte in enumerate(text)]
    assert model.probabilities(TEXT[:9], text).tolist() == pytest.approx(one_by_one)


def kneser_ney_by_definition(train: bytes, context: bytes, byte: int, order: int) -> float:
    """The definition with sets, one byte: continuation counts below the highest order."""
    value = 1 / SYMBOLS
    for length in range(1, order + 1):
        before = context[len(context) - (length - 1) :]
        if len(before) < length - 1:
            break
        runs = [train[i : i + length] for i in range(len(train) - length + 1)]
        if length < order:
            longer = {train[i : i + length + 1] for i in range(len(train) - length)}
            runs = [run[1:] for run in longer]
        followers = [run[-1] for run in runs if run[:-1] == before]
        if followers:
            counts = [runs.count(run) for run in set(runs)]
            once, twice = counts.count(1), counts.count(2)
            taken = min(max(once / (once + 2 * twice) if once else 0.0, 0.1), 0.9)
            kept = max(followers.count(byte) - taken, 0)
            value = (kept + taken * len(set(followers)) * value) / len(followers)
    return value


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_kneser_ney_equals_its_definition(order: int) -> None:
    train, context = TEXT[:70], b"the ca"
    found = kneser_ney(train, order).distribution(context)
    wanted = [kneser_ney_by_definition(train, context, byte, order) for byte in range(SYMBOLS)]
    assert found.tolist() == pytest.approx(wanted)


def test_a_byte_with_one_context_is_no_guess_elsewhere() -> None:
    """The reason for Kneser-Ney: `rancisco` is frequent, but only after `F`."""
    train = b"San Francisco. " * 20 + b"my glasses, the glass, a lens. "
    after_unseen = b"reading ~"
    by_count = witten_bell(train, 3).distribution(after_unseen)
    by_contexts = kneser_ney(train, 3).distribution(after_unseen)
    assert by_contexts[ord("F")] < by_count[ord("F")]


def test_discount_without_single_or_double_runs_keeps_something_for_the_unseen() -> None:
    model = kneser_ney(b"abababababab", 1)
    assert discount(model.levels[0].table) == 0.1
    assert model.distribution(b"")[ord("z")] > 0


def test_numbers_are_the_counts_held() -> None:
    assert uniform(b"").numbers == 0
    assert laplace(b"abca", 1).numbers == 3
    assert witten_bell(b"abca", 2).numbers == 3 + 3
    assert NaiveBayes.of(b"abca", 2).numbers == 256 + 2 * 256 * 256


def test_the_same_seed_writes_the_same() -> None:
    model = witten_bell(TEXT, 4)
    text = written(model, b"the", 50, seed=1)
    assert len(text) == 50
    assert written(model, b"the", 50, seed=1) == text
    assert written(model, b"the", 50, seed=2) != text


def test_an_empty_text_costs_nothing_to_ask() -> None:
    assert CountedModel().probabilities(b"abc", b"").size == 0
