import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from caslon.errors import CaslonError, UserError
from caslon.tokenizer import special
from caslon.tokenizer.lexicon import load_lexicon
from caslon.tokenizer.train import TrainingSettings, train_tokenizer

PROGRAM = """
import os, re, sys
from caslon.tokenizer.train import train_tokenizer
texts = re.split(r"(?m)^(?=def )", open(re.__file__.replace("re/__init__", "typing")).read())
sys.stdout.write(train_tokenizer(texts, vocab_size=1200).digest)
if os.fork() == 0:
    train_tokenizer(["a fork after training"], vocab_size=300, warn=None).encode_batch(["is safe"])
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
"""


def test_any_number_of_threads_gives_the_same_tokenizer_and_a_fork_is_safe() -> None:
    digests = set()
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    for threads in ("1", "4"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env={**environment, "RAYON_NUM_THREADS": threads},
        )
        assert (done.returncode, done.stderr) == (0, "")
        digests.add(done.stdout)
    assert len(digests) == 1
    assert len(digests.pop()) == 64


def test_a_small_corpus_gives_its_true_size_and_a_warning(training_texts: list[str], tmp_path: Path) -> None:
    warnings: list[str] = []
    tokenizer = train_tokenizer(training_texts[:1], vocab_size=30_000, warn=warnings.append)
    assert 288 < tokenizer.vocab_size < 1_000
    assert tokenizer.record["vocab_size"] == tokenizer.vocab_size
    assert "of the 30,000 entries" in warnings[0]


def test_the_least_vocabulary_is_named_and_works(training_texts: list[str]) -> None:
    with pytest.raises(UserError, match="288 or more"):
        train_tokenizer(training_texts, vocab_size=287)
    assert train_tokenizer(training_texts, vocab_size=288).vocab_size == 288


@pytest.mark.parametrize("texts", [[], [""]])
def test_no_text_is_an_error(texts: list[str]) -> None:
    with pytest.raises(UserError, match="no text"):
        train_tokenizer(texts, vocab_size=300)


def test_special_spellings_in_text_are_counted_and_stay_text() -> None:
    warnings: list[str] = []
    tokenizer = train_tokenizer(["<|end|> <|end|> <|end|>", "other"] * 4, vocab_size=300, warn=warnings.append)
    assert warnings[-1] == "4 texts spell a special token; it is plain text there"
    assert tokenizer.id_of("<|end|>") == 9
    assert tokenizer.id_of("<|end|>") not in tokenizer.encode("<|end|>")


def test_rare_pairs_are_not_learned(training_texts: list[str]) -> None:
    often = train_tokenizer(training_texts, vocab_size=1_000, min_frequency=50)
    seldom = train_tokenizer(training_texts, vocab_size=1_000, min_frequency=2)
    assert often.vocab_size < seldom.vocab_size


def test_strict_size_is_an_error(training_texts: list[str]) -> None:
    with pytest.raises(CaslonError, match="of the 30,000 entries") as caught:
        train_tokenizer(training_texts[:1], vocab_size=30_000, strict_size=True)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_a_vocabulary_the_corpus_can_fill_has_the_size_asked_for(algorithm: str) -> None:
    text = Path(argparse.__file__).read_text(encoding="utf-8")
    settings = TrainingSettings(vocab_size=1_500, algorithm=algorithm, lexicon=load_lexicon("london"))
    assert train_tokenizer([text], settings=settings).vocab_size == 1_500


def test_names_take_the_reserved_places(training_texts: list[str]) -> None:
    settings = TrainingSettings(vocab_size=300, special_tokens=("<|letter|>", "<|verse-line|>"), sentinels=2)
    tokenizer = train_tokenizer(training_texts, settings=settings)
    assert [tokenizer.spelling_of(id) for id in range(17, 20)] == ["<|letter|>", "<|verse-line|>", "<|reserved_2|>"]
    assert [tokenizer.spelling_of(id) for id in range(31, 34)] == ["<|reserved_14|>", "<|extra_0|>", "<|extra_1|>"]
    assert not tokenizer.special_ids.intersection(tokenizer.encode("<|letter|> <|extra_0|>"))


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("",), "blank"),
        (("<|_|>",), "ill-formed"),
        (("<|a|>", "<|a|>"), "repeated"),
        (("<|end|>",), "repeated"),
        (("<|reserved_3|>",), "repeated"),
        (("<|extra_0|>",), "repeated"),
        (tuple(f"<|name{number}|>" for number in range(16)), "16 special tokens for 15"),
    ],
)
def test_special_tokens_that_cannot_be_had(names: tuple[str, ...], what: str) -> None:
    with pytest.raises(UserError, match=what):
        special.special_tokens(names)


def test_there_are_five_control_twelve_chat_and_fifteen_reserved_tokens() -> None:
    counts = [len(kind) for kind in (special.CONTROL_TOKENS, special.CHAT_TOKENS, special.RESERVED_TOKENS)]
    assert counts == [5, 12, 15]
    assert special.SPECIAL_TOKENS[:5] == ("<|startoftext|>", "<|endoftext|>", "<|pad|>", "<|unk|>", "<|mask|>")


@pytest.mark.parametrize(("field", "value"), [("algorithm", "bytes"), ("special_mode", "marks")])
def test_unknown_names_are_refused(training_texts: list[str], field: str, value: str) -> None:
    with pytest.raises(UserError, match=f"'{value}'"):
        train_tokenizer(training_texts, settings=TrainingSettings(**{field: value}))
