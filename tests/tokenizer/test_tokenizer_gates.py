import json
from dataclasses import replace
from pathlib import Path

import pytest

from caslon.tokenizer.examine import Examination, Failure, Fit, battery, examine
from caslon.tokenizer.gates import FAIL, NOT_APPLICABLE, PASS, Gate, TrainingUse, gates
from caslon.tokenizer.lexicon import load_lexicon
from caslon.tokenizer.report import Extras, write_report
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import TrainingSettings, train_tokenizer


@pytest.fixture(scope="module")
def london(training_texts: list[str]) -> Tokenizer:
    chosen = TrainingSettings(vocab_size=1_600, lexicon=load_lexicon("london"))
    return train_tokenizer(training_texts, settings=chosen)


@pytest.fixture(scope="module")
def found(london: Tokenizer, training_texts: list[str]) -> Examination:
    return examine(london, training_texts[:5], seed=1)


def lines(tokenizer: Tokenizer, found: Examination, training: TrainingUse | None = None) -> dict[str, Gate]:
    return {line.test: line for line in gates(tokenizer, found, training)}


def sized(tokenizer: Tokenizer, vocab_size: int, displaced: int = 300) -> Tokenizer:
    """The tokenizer as one that says it has so many entries."""
    record = {**tokenizer.record, "vocab_size": vocab_size, "left_out_for_guaranteed": displaced}
    other = replace(tokenizer, record=record)
    object.__setattr__(other, "vocab_size", vocab_size)
    return other


def fitted(found: Examination, tokens: int, words: int = 1_000_000, used: int = 25_000) -> Examination:
    return replace(found, held_out=Fit(10, 5_000_000, 5_100_000, words, tokens, used, 30_000))


def test_the_battery_has_fifty_sentences_of_many_kinds(london: Tokenizer) -> None:
    sentences = battery(london)
    assert len(sentences) == len({sentence.text for sentence in sentences}) == 50
    kinds = {sentence.kind for sentence in sentences}
    assert kinds >= {
        "street scene of 1834", "a country gentleman", "the Thames", "a novel's opening", "a trial", "a sermon", "a letter",
        "accounts",
    }  # fmt: skip
    assert all(sentence.whole_words for sentence in sentences)


def test_a_tokenizer_without_the_words_has_none_whole(tokenizer: Tokenizer) -> None:
    assert not any(sentence.whole_words for sentence in battery(tokenizer))


def test_a_small_corpus_prints_the_table_with_reasons(london: Tokenizer, found: Examination) -> None:
    table = lines(london, found)
    assert table["exact round trip"].verdict == PASS
    assert table["unknown tokens"].measured == "0"
    assert table["lexicon words as one token, four forms each"] == Gate(
        "lexicon words as one token, four forms each", "100 %", "580 of 580 forms", PASS
    )
    fit = table["tokens per character"]
    assert fit.verdict == NOT_APPLICABLE
    assert "5,000,000 held-out characters" in fit.reason
    assert table["tokens per character against the GPT-2 table"].reason.startswith("no such table")
    assert not any(line.verdict == FAIL for line in table.values())


@pytest.mark.parametrize(
    ("vocab_size", "tokens", "verdict"),
    [
        (30_000, 1_250_000, PASS), (30_000, 1_250_100, FAIL), (16_000, 1_300_000, PASS), (16_000, 1_301_000, FAIL),
        (29_999, 1_300_000, PASS), (8_000, 1_400_000, PASS), (8_000, 1_401_000, FAIL), (4_000, 1_750_000, PASS),
        (4_000, 1_751_000, FAIL), (2_000, 1_750_000, NOT_APPLICABLE), (1_900, 1, NOT_APPLICABLE),
    ],
)  # fmt: skip
def test_bounds_of_tokens_per_character(
    london: Tokenizer, found: Examination, vocab_size: int, tokens: int, verdict: str
) -> None:
    line = lines(sized(london, vocab_size), fitted(found, tokens))["tokens per character"]
    assert line.verdict == verdict


def test_the_other_bounds_at_thirty_thousand(london: Tokenizer, found: Examination) -> None:
    large = sized(london, 30_000)
    good = lines(large, fitted(found, 1_200_000, words=900_000, used=22_500), TrainingUse(29_712, 197))
    assert good["tokens per word (fertility)"].verdict == PASS
    assert good["vocabulary used on held-out text"].verdict == PASS
    assert good["learned entries used by the training text"].measured == "29,515 of 29,712, 197 listed"
    bad = lines(large, fitted(found, 1_200_000, words=800_000, used=22_499))
    assert bad["tokens per word (fertility)"].verdict == FAIL
    assert bad["vocabulary used on held-out text"].verdict == FAIL


def test_the_reference_is_not_to_be_exceeded(london: Tokenizer, found: Examination) -> None:
    ours = fitted(found, 1_200_000)
    test = "tokens per character against the GPT-2 table"
    for theirs, verdict in ((1_200_000, PASS), (1_199_999, FAIL)):
        compared = replace(ours, reference=("gpt2", replace(ours.held_out, tokens=theirs)))
        assert lines(sized(london, 30_000), compared)[test].verdict == verdict


def test_what_is_not_exact_fails(london: Tokenizer, found: Examination) -> None:
    broken = replace(
        found, failures=(Failure("a", "b", 0),), miscounted=1, forged=("<|end|>",), unknown_tokens=2, changed_by_saving=3,
        whole_forms=579,
    )  # fmt: skip
    table = lines(london, broken)
    failing = [line.test for line in table.values() if line.verdict == FAIL]
    assert len(failing) == 6
    assert not broken.passed


def test_bounds_do_not_apply_to_other_kinds(tokenizer: Tokenizer, found: Examination, london: Tokenizer) -> None:
    assert "London lexicon" in lines(tokenizer, found)["tokens per character"].reason
    single = replace(london, record={**london.record, "digits": "single"})
    assert "learned digits" in lines(single, fitted(found, 1))["tokens per character"].reason


def test_the_report_in_three_forms_says_the_same(london: Tokenizer, found: Examination, tmp_path: Path) -> None:
    read = [{"source": "a.txt", "texts": 3, "bytes": 300, "texts_read": 1, "bytes_read": 100}]
    shown = replace(london, record={**london.record, "read": read, "reproducible": False})
    found = replace(found, failures=(Failure("one text", "another", 0),))
    extras = Extras(other_mode=("tags", found.held_out))
    table = write_report(tmp_path / "report.html", shown, found, extras)
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["passed"] is False
    assert numbers["gates"] == [line.to_json() for line in table]
    assert numbers["read"] == read
    assert numbers["other_mode"]["mode"] == "tags"
    html, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    for part in ("33.3%", "does not repeat itself", "580 of 580 forms", "Cheapside"):
        assert part in html, part
        assert part in text, part
    assert "one text" in html
    assert "| exact round trip | 100 % |" in text
