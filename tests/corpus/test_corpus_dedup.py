import hashlib
import random

import numpy as np
import pytest
from made_documents import prose

from caslon.corpus.dedup import (
    Duplicate,
    Groups,
    Index,
    ShingleCache,
    contained_documents,
    exact_key,
    find_duplicates,
    fingerprint,
    jaccard,
    shingles,
)
from caslon.corpus.settings import NearDuplicateSettings
from caslon.corpus.text_words import words_of

SETTINGS = NearDuplicateSettings()


def find(
    texts: list[str], scores: list[float] | None = None, priorities: list[int] | None = None
) -> dict[int, Duplicate]:
    prints = [fingerprint(text, SETTINGS) for text in texts]
    rows = [np.frombuffer(found.signature or bytes(512), dtype="<u4") for found in prints]
    index = Index(
        ids=np.array([int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) for text in texts], dtype=np.uint64),
        priorities=np.array(priorities or [1] * len(texts), dtype=np.uint8),
        scores=np.array(scores or [90.0] * len(texts)),
        exact=np.array([np.frombuffer(found.exact[:16], dtype="<u8") for found in prints]),
        signatures=np.array(rows),
    )
    return find_duplicates(index, lambda number: shingles(words_of(texts[number]), 5), SETTINGS)


def pair(overlap: float, size: int, seed: int) -> tuple[str, str]:
    """Two texts of nonsense words whose sets of 5-word runs have about this Jaccard similarity."""
    random_numbers = random.Random(seed)
    words = [f"w{random_numbers.randrange(10**9)}" for _ in range(size)]
    shared = round(2 * size * overlap / (1 + overlap))
    tail = [f"v{random_numbers.randrange(10**9)}" for _ in range(size - shared)]
    return " ".join(words), " ".join(words[:shared] + tail)


def true_jaccard(first: str, second: str) -> float:
    one, other = ({tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in (first.split(), second.split()))
    return len(one & other) / len(one | other)


def test_exact_key_forgets_case_punctuation_and_spacing() -> None:
    first, second = "The King, of ENGLAND!", "the  king of\nengland"
    assert exact_key(first) == exact_key(second)
    assert exact_key("!!") != exact_key("??")


def test_jaccard_is_intersection_over_union_of_word_runs() -> None:
    first, second = pair(0.85, 200, 1)
    measured = jaccard(shingles(words_of(first), 5), shingles(words_of(second), 5))
    assert measured == pytest.approx(true_jaccard(first, second))
    assert jaccard(shingles([], 5), shingles(["a"], 5)) == 0.0
    assert len(shingles(["a", "b"], 5)) == 1


def test_recall_and_precision_on_generated_pairs() -> None:
    texts, truth = [], []
    for seed in range(300):
        size = 60 + seed * 3
        first, second = pair(0.70 + 0.29 * (seed % 30) / 29, size, seed)
        texts += [first, second]
        truth.append(true_jaccard(first, second))
    leaving = find(texts)
    found = [bool({2 * number, 2 * number + 1} & set(leaving)) for number in range(len(truth))]
    high = [hit for hit, similarity in zip(found, truth, strict=True) if similarity >= 0.9]
    middle = [hit for hit, similarity in zip(found, truth, strict=True) if 0.82 <= similarity < 0.9]
    low = [hit for hit, similarity in zip(found, truth, strict=True) if similarity < 0.8]
    assert len(high) > 50 and sum(high) / len(high) >= 0.99
    assert len(middle) > 20 and sum(middle) / len(middle) >= 0.95
    assert len(low) > 50 and not any(low)


def test_the_better_copy_stays_then_the_source_then_the_id() -> None:
    text = prose(1, 6)
    copies = [text, text + " One more word."]
    by_score = find(copies, scores=[80.0, 95.0])
    assert set(by_score) == {0} and by_score[0].kept == 1
    by_priority = find(copies, priorities=[0, 2])
    assert set(by_priority) == {1}
    by_id = find(copies)
    smaller = min((0, 1), key=lambda number: hashlib.sha256(copies[number].encode()).hexdigest())
    assert set(by_id) == {1 - smaller}


def test_the_result_does_not_depend_on_the_order() -> None:
    texts = [prose(seed, 5) for seed in range(12)]
    texts += [text + " An addition." for text in texts[:5]] + texts[:2] + [texts[7].upper()]
    scores = {text: 80.0 + number for number, text in enumerate(dict.fromkeys(texts))}
    expected = None
    for seed in range(5):
        order = list(range(len(texts)))
        random.Random(seed).shuffle(order)
        shuffled = [texts[number] for number in order]
        leaving = find(shuffled, scores=[scores[text] for text in shuffled])
        kept = sorted(text for number, text in enumerate(shuffled) if number not in leaving)
        expected = expected or kept
        assert kept == expected
    assert expected is not None and len(expected) == 12


def test_a_chain_of_similar_texts_removes_only_what_is_like_a_kept_one() -> None:
    words = [f"w{number}" for number in range(1300)]
    texts = [" ".join(words[start : start + 1000]) for start in (0, 100, 200, 300)]
    leaving = find(texts, scores=[95.0, 94.0, 93.0, 92.0])
    assert set(leaving) == {1, 3}
    assert leaving[1].kept == 0 and leaving[3].kept == 2
    for number, duplicate in leaving.items():
        assert duplicate.jaccard == pytest.approx(true_jaccard(texts[number], texts[duplicate.kept]))
        assert duplicate.jaccard >= 0.8


def test_texts_without_words_are_not_alike() -> None:
    assert find(["!!! ???", "--- ...", prose(1)]) == {}


def test_many_exact_copies_leave_one() -> None:
    leaving = find([prose(1)] * 5 + [prose(2)])
    assert len(leaving) == 4
    assert len({duplicate.kept for duplicate in leaving.values()}) == 1
    assert all(duplicate.exact for duplicate in leaving.values())


def test_the_cache_reads_again_what_it_dropped() -> None:
    reads: list[int] = []

    def read(number: int) -> np.ndarray:
        reads.append(number)
        return np.arange(10, dtype=np.uint64)

    cache = ShingleCache(read, limit=25)
    for number in (1, 2, 2, 3, 1):
        cache.get(number)
    assert reads == [1, 2, 3, 1]


def test_groups_join_and_take_the_smallest_number() -> None:
    groups = Groups()
    groups.join(3, 4)
    groups.join(2, 3)
    groups.join(8, 9)
    assert {groups.find(number) for number in (2, 3, 4)} == {2}
    assert groups.find(9) == 8
    assert groups.find(7) == 7


def contained(texts: list[str], threshold: float = 0.5) -> dict[int, Duplicate]:
    settings = NearDuplicateSettings(contained=threshold)
    prints = [fingerprint(text, settings) for text in texts]
    return contained_documents(
        [found.sketch for found in prints],
        np.array([found.shingles for found in prints]),
        np.arange(len(texts)),
        lambda number: shingles(words_of(texts[number]), 5),
        threshold,
    )


def nonsense(seed: int, size: int) -> list[str]:
    random_numbers = random.Random(seed)
    return [f"w{random_numbers.randrange(10**9)}" for _ in range(size)]


def test_a_part_of_a_larger_text_leaves_and_the_larger_stays() -> None:
    whole, other = nonsense(1, 6_000), nonsense(2, 3_000)
    part = whole[1_000:3_000]
    found = contained([" ".join(part), " ".join(whole), " ".join(other)])
    assert set(found) == {0}
    assert (found[0].kept, found[0].exact) == (1, False)
    assert found[0].contained == pytest.approx(1.0)
    assert found[0].jaccard == pytest.approx(1_996 / 5_996, abs=0.01)


@pytest.mark.parametrize(("share", "leaves"), [(0.3, False), (0.45, False), (0.55, True), (0.9, True)])
def test_the_wanted_share_decides(share: float, leaves: bool) -> None:
    whole = nonsense(3, 8_000)
    mixed = whole[: round(3_000 * share)] + nonsense(4, round(3_000 * (1 - share)))
    assert bool(contained([" ".join(whole), " ".join(mixed)])) is leaves


def test_what_every_text_repeats_contains_nothing() -> None:
    formula = nonsense(5, 400)
    texts = [" ".join(formula + nonsense(10 + number, 300)) for number in range(40)]
    assert contained(texts) == {}


def test_without_the_setting_nothing_is_sketched() -> None:
    assert len(fingerprint(" ".join(nonsense(6, 2_000)), SETTINGS).sketch) == 0
