import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.errors import UserError
from caslon.tokenizer.patterns import DIGITS, cut_of, digit_groups
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import TrainingSettings, train_tokenizer

NUMBERS = ("0", "1", "10", "100", "999", "1000")


def trained(digits: str, texts: list[str], pattern: str = "gpt2", algorithm: str = "bpe") -> Tokenizer:
    chosen = TrainingSettings(vocab_size=1_800, digits=digits, pattern=pattern, algorithm=algorithm)
    return train_tokenizer([*texts, "1666 and 1834, 10l. 5s. 6d., 3,141.59 " * 20], settings=chosen)


@pytest.fixture(scope="module")
def modes(training_texts: list[str]) -> dict[str, Tokenizer]:
    return {digits: trained(digits, training_texts) for digits in DIGITS}


def cuts(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.token_bytes(id).decode() for id in tokenizer.encode(text)]


def test_token_counts_of_numbers(modes: dict[str, Tokenizer]) -> None:
    assert [len(modes["single"].encode(number)) for number in NUMBERS] == [1, 1, 2, 3, 3, 4]
    for digits in ("groups3", "groups3_right"):
        assert [len(modes[digits].encode(number)) for number in NUMBERS] == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
@pytest.mark.parametrize("digits", ["groups3", "groups3_right"])
def test_every_string_of_one_to_three_digits_is_one_token(
    training_texts: list[str], digits: str, algorithm: str
) -> None:
    tokenizer = trained(digits, training_texts, algorithm=algorithm)
    groups = digit_groups()
    assert len(groups) == len(set(groups)) == 1_110
    assert all(len(tokenizer.encode(group)) == 1 for group in groups)
    assert sum(len(tokenizer.encode(str(number))) == 1 for number in range(1_000)) == 1_000


def test_groups_start_on_the_side_they_are_named_after(modes: dict[str, Tokenizer]) -> None:
    assert cuts(modes["groups3"], "12345") == ["123", "45"]
    assert cuts(modes["groups3_right"], "12345") == ["12", "345"]
    assert cuts(modes["groups3_right"], "1234567") == ["1", "234", "567"]
    assert cuts(modes["groups3_right"], "123456") == ["123", "456"]
    assert cuts(modes["single"], "12345") == list("12345")


def test_runtimes_know_the_pattern_by_name(modes: dict[str, Tokenizer]) -> None:
    names = {digits: tokenizer.record["pre_tokenizer"] for digits, tokenizer in modes.items()}
    assert names == {"none": "gpt-2", "single": "smollm", "groups3": "llama-bpe", "groups3_right": None}


def test_llama3_and_groups_from_the_left_imply_each_other(training_texts: list[str]) -> None:
    assert cut_of("gpt2", "groups3") == cut_of("llama3", "none") == cut_of("llama3", "groups3")
    for digits in ("single", "groups3_right"):
        with pytest.raises(UserError, match="from the left"):
            cut_of("llama3", digits)
    with pytest.raises(UserError, match="no pattern 'gpt3'"):
        cut_of("gpt3", "none")
    with pytest.raises(UserError, match="no digit mode 'pairs'"):
        cut_of("gpt2", "pairs")


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from("0123456789 ٣Ⅷ²a.,\n"), max_size=40))
def test_numbers_come_back_in_every_mode(modes: dict[str, Tokenizer], text: str) -> None:
    for tokenizer in modes.values():
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_a_megabyte_of_one_letter_takes_less_than_ten_seconds(training_texts: list[str], algorithm: str) -> None:
    tokenizer = trained("none", training_texts, algorithm=algorithm)
    start = time.process_time()
    ids = tokenizer.encode("a" * 1_000_000)
    assert time.process_time() - start < 10
    assert tokenizer.decode(ids) == "a" * 1_000_000


@pytest.mark.parametrize("digits", DIGITS)
@pytest.mark.parametrize(
    "text", ["1" * 100_000, " " * 100_000, "\n " * 50_000, ". \t" * 30_000], ids=["1", "space", "lines", "mixed"]
)
def test_no_pattern_takes_quadratic_time(modes: dict[str, Tokenizer], digits: str, text: str) -> None:
    start = time.process_time()
    assert modes[digits].decode(modes[digits].encode(text)) == text
    assert time.process_time() - start < 2  # where time grew with the square of the length, it would be minutes
