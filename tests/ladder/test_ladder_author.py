"""Writing like an author: every step is one the author took."""

from collections import Counter

import pytest

from caslon.ladder.author import Author

TEXT = b"the cat sat on the mat, the cat ate the rat; the end of the cat"


@pytest.mark.promise(
    "pretraining", "the Markov chain writes like its author: only pairs of bytes that stand in the text"
)
def test_only_pairs_of_the_author() -> None:
    text = b"th" + Author.of(TEXT, 1).write(b"th", 500, seed=1)
    author = {TEXT[i : i + 2] for i in range(len(TEXT) - 1)}
    assert {text[i : i + 2] for i in range(len(text) - 1)} <= author


def test_pairs_are_as_frequent_as_the_author_made_them() -> None:
    text = Author.of(TEXT, 1).write(b"t", 20_000, seed=3)
    after = Counter(text[i + 1] for i in range(len(text) - 1) if text[i] == ord("t"))
    mine = Counter(TEXT[i + 1] for i in range(len(TEXT) - 1) if TEXT[i] == ord("t"))
    for byte, count in mine.items():
        assert after[byte] / after.total() == pytest.approx(count / mine.total(), abs=0.03)


def test_a_longer_memory_copies_longer_runs() -> None:
    text = Author.of(TEXT, 3).write(b"the", 200, seed=1)
    assert all((b"the" + text)[i : i + 4] in TEXT for i in range(200))


def test_bytes_never_written_are_forgotten() -> None:
    assert len(Author.of(TEXT, 3).write(b"\xff\xfe\xfd", 20, seed=1)) == 20
    assert Author.of(b"a", 2).write(b"", 3, seed=1) == b"aaa"


def test_the_same_seed_writes_the_same() -> None:
    author = Author.of(TEXT, 2)
    assert author.write(b"a", 50, seed=4) == author.write(b"a", 50, seed=4) != author.write(b"a", 50, seed=5)
