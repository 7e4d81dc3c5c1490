import gzip
import lzma
import random

import pytest

from caslon.evaluate.compressors import COMPRESSORS, compressions


def test_sizes_are_those_of_the_libraries():
    train, test = b"the quick brown fox " * 200, b"jumps over the lazy dog " * 200
    found = {item.name: item for item in compressions(train, test)}
    assert list(found) == list(COMPRESSORS)
    assert found["gzip -9"].alone == len(gzip.compress(test, 9)) * 8 / len(test)
    sizes = [len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) for text in (train, train + test)]
    assert found["xz -9e"].given_train == pytest.approx((sizes[1] - sizes[0]) * 8 / len(test))


def test_noise_cannot_be_compressed_and_known_noise_can():
    noise = random.Random(3).randbytes(20_000)  # shorter than the window of gzip
    for item in compressions(noise, noise, ["gzip -9", "xz -9e", "zstd -19"]):
        assert item.alone > 7.9
        assert item.given_train is not None
        assert item.given_train < 0.2


def test_texts_of_equal_length_are_told_apart():
    random_bytes = random.Random(4).randbytes(5_000)
    item = compressions(b"a" * 5_000, random_bytes, ["gzip -9"])[0]
    assert item.alone > 7.9
    assert item.given_train is not None
    assert item.given_train > 7.5


def test_without_training_text_there_is_no_conditional_size():
    assert compressions(b"", b"text", ["gzip -9"])[0].given_train is None
