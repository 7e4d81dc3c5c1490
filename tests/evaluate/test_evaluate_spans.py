import random

import pytest

from caslon.evaluate.spans import TrainingText, copied_spans, coverage

WORDS = [f"w{number}" for number in range(60)]


def some_text(seed: int, words: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def naive_spans(documents: dict[str, str], text: str, fewest: int) -> set[tuple[str, int]]:
    """All maximal word runs of `text` that stand in a document, by trying every one."""
    words = []
    place = 0
    for word in text.split(" "):
        words.append((place, place + len(word)))
        place += len(word) + 1
    found: list[tuple[int, int]] = []
    for first in range(len(words)):
        last = first
        while last < len(words) and any(text[words[first][0] : words[last][1]] in body for body in documents.values()):
            last += 1
        if last - first >= fewest and all(last > other for _, other in found):
            found.append((first, last))
    return {(text[words[first][0] : words[last - 1][1]], words[first][0]) for first, last in found}


@pytest.fixture(scope="module")
def documents() -> dict[str, str]:
    return {f"d{number}": some_text(number, 400) for number in range(30)}


@pytest.fixture(scope="module")
def training(documents) -> TrainingText:
    return TrainingText(documents.items())


def test_planted_spans_are_found_with_their_documents(documents, training):
    for seed in range(40):
        choose = random.Random(seed)
        name = choose.choice(list(documents))
        words = documents[name].split(" ")
        at = choose.randrange(len(words) - 12)
        planted = " ".join(words[at : at + 12])
        text = f"entirely new words: {planted} and more new words"
        spans = copied_spans(training, text)
        assert spans[0].text == planted
        assert (spans[0].document_id, spans[0].words, spans[0].count) == (name, 12, 1)
        assert documents[name][spans[0].offset :].startswith(planted)
        assert text[spans[0].start :].startswith(planted)


def test_spans_equal_a_naive_search(documents, training):
    for seed in range(30):
        parts = [
            documents[f"d{seed}"][100:160],
            some_text(1000 + seed, 10),
            documents["d3"][7:90],
            "é",
            documents["d4"][:50],
        ]
        text = " ".join(" ".join(parts).split())
        spans = copied_spans(training, text, fewest_words=4)
        assert {(span.text, span.start) for span in spans} == naive_spans(documents, text, 4)


def test_no_span_crosses_documents():
    training = TrainingText([("a", "one two three four five"), ("b", "six seven eight nine ten")])
    assert copied_spans(training, "one two three four five six seven eight nine ten", fewest_words=6) == []
    assert [span.words for span in copied_spans(training, "five four three two one", fewest_words=1)] == [1] * 5


def test_a_span_is_counted_wherever_it_stands():
    training = TrainingText([("a", "x alpha beta gamma y"), ("b", "alpha beta gamma"), ("c", "alpha beta")])
    span = copied_spans(training, "the alpha beta gamma", fewest_words=3)[0]
    assert (span.count, span.document_id, span.offset) == (2, "a", 2)


def test_offsets_count_characters_not_bytes():
    body = "ééé 漢字 one two three four"
    training = TrainingText([("a", "first"), ("b", body)])
    span = copied_spans(training, "ü one two three four", fewest_words=4)[0]
    assert (span.document_id, span.offset, span.start) == ("b", body.index("one"), 2)


def test_a_span_ends_with_a_whole_word():
    training = TrainingText([("a", "one two three fourteen")])
    assert copied_spans(training, "one two three fourty", fewest_words=2)[0].text == "one two three"


def test_nothing_to_search():
    assert copied_spans(TrainingText([]), "one two three", fewest_words=1) == []
    assert copied_spans(TrainingText([("a", "one two")]), "", fewest_words=1) == []


def test_coverage_counts_each_character_once():
    training = TrainingText([("a", "one two three"), ("b", "two three four")])
    text = "one two three four"
    spans = copied_spans(training, text, fewest_words=3)
    assert len(spans) == 2
    assert coverage(text, spans) == 1.0
    assert coverage("", []) == 0.0
