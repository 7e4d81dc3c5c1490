from caslon.evaluate.baselines import baselines, best

TRAIN, TEST = b"the cat sat on the mat. " * 40, b"the cat sat on the hat. " * 10


def test_rungs_in_order_with_and_without_training_text():
    found = baselines(TRAIN, TEST, ngram_orders=(2, 4), compressors=("gzip -9",))
    assert [rung.name for rung in found] == ["uniform", "2-gram", "4-gram", "gzip -9"]
    assert (found[0].alone, found[0].given_train) == (8.0, None)
    assert best(found).name in ("4-gram", "gzip -9")


def test_without_training_text_nothing_is_given():
    found = baselines(b"", TEST, ngram_orders=(2,), compressors=("gzip -9",))
    assert [rung.name for rung in found] == ["uniform", "gzip -9"]
    assert found[1].given_train is None
