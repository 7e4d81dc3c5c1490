from collections import Counter, defaultdict

import numpy as np
import pytest

from caslon.evaluate.ngram import bits_per_byte, packed_grams, witten_bell


def by_definition(train: bytes, test: bytes, order: int) -> list[float]:
    """The definition with dictionaries, one byte at a time."""
    followers: dict[bytes, Counter[int]] = defaultdict(Counter)
    for length in range(order):
        for place in range(length, len(train)):
            followers[train[place - length : place]][train[place]] += 1
    text = train + test
    values = []
    for place in range(len(train), len(text)):
        p = 1 / 256
        for length in range(min(order, place + 1)):
            seen = followers.get(text[place - length : place])
            if seen:
                p = (seen[text[place]] + len(seen) * p) / (seen.total() + len(seen))
        values.append(p)
    return values


def test_worked_by_hand():
    # Training "aab": N = 3, two distinct bytes. p(a) = (2 + 2/256) / 5. After "b" (end of training) nothing was seen: skipped.
    order_two = witten_bell(b"aab", b"ab", [2])[2]
    p_a = (2 + 2 / 256) / 5
    p_b = (1 + 2 / 256) / 5
    after_a = (1 + 2 * p_b) / (2 + 2)  # "a" is followed by one "a" and one "b"
    assert order_two.tolist() == pytest.approx([p_a, after_a])


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
def test_equals_the_definition(order):
    random = np.random.default_rng(order)
    train = bytes(random.choice([0, 97, 98, 99, 255], size=400).astype(np.uint8))
    test = bytes(random.choice([0, 97, 98, 100, 255], size=150).astype(np.uint8))
    assert witten_bell(train, test, [order])[order].tolist() == pytest.approx(by_definition(train, test, order))


@pytest.mark.parametrize("train", [b"", b"a", b"ab"])
def test_training_text_shorter_than_the_context(train):
    assert witten_bell(train, b"abcab", [4])[4].tolist() == pytest.approx(by_definition(train, b"abcab", 4))


def test_without_training_every_byte_costs_eight_bits():
    assert bits_per_byte(witten_bell(b"", b"whatever", [3])[3]) == 8.0


def test_probabilities_of_all_bytes_sum_to_one():
    train = b"the cat sat on the mat, the cat sat"
    total = sum(witten_bell(train, bytes([symbol]), [4])[4][0] for symbol in range(256))
    assert total == pytest.approx(1.0)


def test_orders_of_one_call_equal_orders_alone():
    train, test = b"abracadabra" * 5, b"abrakadabra"
    together = witten_bell(train, test, [2, 4])
    assert sorted(together) == [2, 4]
    assert np.array_equal(together[2], witten_bell(train, test, [2])[2])


def test_grams_sort_as_bytes_do():
    grams = packed_grams(b"\x01\x02\xff\x00", 3)
    assert grams.tolist() == [0x0102FF, 0x02FF00]
    assert packed_grams(b"ab", 3).size == 0
