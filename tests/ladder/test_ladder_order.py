"""The order of the rungs on the small corpus, trained in full: a quarter of an hour on two cores."""

from pathlib import Path

import pytest

from caslon.ladder.climb import Sampling, climb
from caslon.ladder.rungs import all_rungs, chosen_rungs
from caslon.ladder.text import ladder_text
from caslon.observe.events import EventLog

RUNGS = ("unigram", "markov", "naive-bayes-2", "witten-bell-5", "mlp", "rnn", "lstm", "gpt2", "llama")
BEST_WITTEN_BELL = 2.4076


@pytest.mark.slow
@pytest.mark.promise(
    "pretraining",
    "on tiny Shakespeare unigram > Markov > naive Bayes > MLP and RNN > LSTM > transformer, which ends below the best n-gram",
)
def test_rungs_end_in_their_order(tiny_shakespeare: Path, tmp_path: Path) -> None:
    text = ladder_text(tiny_shakespeare, max_train_bytes=20_000_000, max_validation_bytes=500_000)
    rungs = chosen_rungs(RUNGS, all_rungs(seed=1))
    bits = {item.rung: item.bits_per_byte for item in climb(text, rungs, tmp_path, EventLog(None), Sampling(length=0))}
    assert bits["unigram"] > bits["markov"] > bits["naive-bayes-2"] > max(bits["mlp"], bits["rnn"])
    assert min(bits["mlp"], bits["rnn"]) > bits["lstm"] > min(bits["gpt2"], bits["llama"])
    assert max(bits["gpt2"], bits["llama"]) < BEST_WITTEN_BELL
