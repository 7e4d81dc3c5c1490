from caslon.tokenizer.sample import draw_sample

TEXTS = [
    (f"{source}{number}", source, "é" * (5 + number % 7))
    for source, many in (("a", 300), ("b", 100))
    for number in range(many)
]
SIZES = [(id, source, len(text.encode())) for id, source, text in TEXTS]
TOTAL = sum(size for _, _, size in SIZES)


def test_all_is_read_when_it_fits() -> None:
    sample = draw_sample(SIZES, max_bytes=TOTAL, seed=1)
    assert sample.whole
    assert list(sample.drawn(text for _, _, text in TEXTS)) == [text for _, _, text in TEXTS]
    assert [(share.source, share.texts_read) for share in sample.shares] == [("a", 300), ("b", 100)]


def test_every_source_gives_its_share_to_the_byte() -> None:
    sample = draw_sample(SIZES, max_bytes=1_001, seed=1)
    for share in sample.shares:
        assert share.bytes_read == share.bytes * 1_001 // TOTAL
        assert 0 < share.texts_read < share.texts
    read = sum(len(text.encode()) for text in sample.drawn(text for _, _, text in TEXTS))
    assert 1_001 - 2 - 2 <= read <= 1_001  # a character cut in two is left out, and shares are rounded down


def test_the_seed_decides_and_the_order_stays() -> None:
    texts = [text for _, _, text in TEXTS]
    one, again, other = (draw_sample(SIZES, max_bytes=900, seed=seed).bytes_to_read.tolist() for seed in (1, 1, 2))
    assert one == again != other
    drawn = list(draw_sample(SIZES, max_bytes=900, seed=1).drawn(texts))
    assert drawn == [
        text.encode()[:limit].decode(errors="ignore") for text, limit in zip(texts, one, strict=True) if limit
    ]


def test_one_long_text_is_read_in_part() -> None:
    sample = draw_sample([("x", "s", 1_000)], max_bytes=10, seed=1)
    assert list(sample.drawn(["a" * 1_000])) == ["a" * 10]


def test_no_texts() -> None:
    assert draw_sample([], max_bytes=10, seed=1).shares == ()
