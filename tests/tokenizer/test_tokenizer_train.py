import os
import subprocess
import sys
from pathlib import Path

import pytest

from caslon.errors import UserError
from caslon.tokenizer.train import train_tokenizer

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
