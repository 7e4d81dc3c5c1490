import json
import pickle
import random
import time
from collections import Counter

import pytest
from made_documents import document, prose

from caslon.corpus.bias import LEXICONS, BiasCounts, decade_of, lexicon, log_likelihood
from caslon.corpus.document import Document
from caslon.corpus.text_words import words_of

PLANTED = {
    "he": 40,
    "his": 17,
    "she": 9,
    "they": 4,
    "woman": 12,
    "jew": 3,
    "papist": 5,
    "villain": 7,
    "london": 21,
    "paris": 14,
}


def planted_documents() -> list[Document]:
    """Return twenty documents with every planted word the stated number of times among other words."""
    numbers = random.Random(5)
    words = [word for word, count in PLANTED.items() for _ in range(count)]
    words += [
        numbers.choice(("window", "garment", "ship", "shed", "herring", "womanhood", "manor")) for _ in range(868)
    ]
    numbers.shuffle(words)
    return [
        document(" ".join(words[start : start + 50]).capitalize() + ".", path=f"{start}.txt", year=1720 + start // 50)
        for start in range(0, len(words), 50)
    ]


def counted(documents: list[Document]) -> BiasCounts:
    counts = BiasCounts()
    for made in documents:
        counts.add(made.origin.source, decade_of(made.year), Counter(words_of(made.text)))
        counts.companions(made)
    return counts


def test_planted_words_give_exactly_the_planted_counts() -> None:
    report = counted(planted_documents()).to_json()
    assert report["words"] == 1000
    assert report["documents"] == 20
    assert {word: count for name in LEXICONS for word, count in report["counts"][name].items()} == PLANTED
    everywhere = report["all"]
    assert everywhere["per_million"]["pronouns"] == {"masculine": 57000.0, "feminine": 9000.0, "plural": 4000.0}
    assert everywhere["per_million"]["identity"]["women"] == 12000.0
    assert everywhere["masculine_per_feminine"] == pytest.approx(57 / 9, abs=1e-4)
    assert report["places"]["london_share"] == 0.6
    assert {name: part["words"] for name, part in report["decades"].items()} == {"1720": 500, "1730": 500}
    assert report["sources"] == {"source": everywhere}
    json.dumps(report)


def test_parts_merge_to_the_whole_in_any_order() -> None:
    documents = planted_documents()
    whole = counted(documents).to_json()
    first, second = counted(documents[13:]), counted(documents[:13])
    merged = pickle.loads(pickle.dumps(first))
    merged.merge(second)
    assert merged.to_json() == whole
    second.merge(first)
    assert second.to_json() == whole


def test_companions_are_what_stands_beside_a_term_more_than_elsewhere() -> None:
    counts = BiasCounts()
    for seed in range(20):
        text = f"{prose(seed)} The weary woman spun flax by the window. {prose(seed + 100)} The bold gentleman fought a duel."
        made = document(text, path=f"{seed}.txt")
        counts.add("source", None, Counter(words_of(text)))
        counts.companions(made)
    report = counts.to_json()
    companions = {row["word"]: [one["word"] for one in row["companions"]] for row in report["identity_terms"]}
    assert set(companions["woman"][:3]) == {"weary", "spun", "flax"}
    assert set(companions["gentleman"][:3]) == {"bold", "fought", "duel"}
    assert list(report["decades"]) == ["undated"]


def test_log_likelihood_is_dunnings() -> None:
    # Rayson and Garside 2000, by hand: 12 in 1,000 words against 4 in 1,000
    assert log_likelihood(12, 1000, 4, 1000) == pytest.approx(2 * (12 * 0.4054651 + 4 * -0.6931472), abs=1e-5)
    assert log_likelihood(5, 100, 5, 100) == pytest.approx(0.0)


def test_slurs_come_with_examples_of_the_smallest_ids() -> None:
    documents = [document(f"{prose(seed)} He was called a Papist by all.", path=f"{seed}.txt") for seed in range(9)]
    for order in (documents, documents[::-1]):
        (row,) = counted(order).to_json()["slurs"]
        assert (row["word"], row["group"], row["count"]) == ("papist", "religion", 9)
        assert [example["document"] for example in row["examples"]] == sorted(made.id for made in documents)[:3]
        assert all("called a Papist by" in example["text"] for example in row["examples"])


@pytest.mark.parametrize("name", LEXICONS)
def test_lexicons_are_single_words_in_lower_case_with_a_group(name: str) -> None:
    words = lexicon(name)
    assert len(words) > 10
    assert all(words_of(word) == [word] and group for word, group in words.items())


def test_identity_terms_are_no_slurs() -> None:
    assert not lexicon("identity").keys() & lexicon("slurs").keys()


def test_an_empty_corpus_has_a_report() -> None:
    report = BiasCounts().to_json()
    assert report["words"] == 0
    assert report["all"]["masculine_per_feminine"] is None


def test_a_look_is_fast() -> None:
    documents = [document(prose(seed, paragraphs=200), path=f"{seed}.txt") for seed in range(10)]
    begun = time.process_time()
    counts = BiasCounts()
    for made in documents:
        counts.companions(made)
    size = sum(len(made.text) for made in documents)
    assert size / (time.process_time() - begun) > 3e6
