"""The older classifiers: exact sizes, padding that is no word, and accuracy on unseen texts beside the majority."""

import gzip
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from caslon.cli import app
from caslon.errors import UserError
from caslon.ladder.classify import classify
from caslon.ladder.labelled import Labelled, NaiveBayesClassifier, labelled_texts, majority_label, words_of
from caslon.ladder.recurrent_classifier import Cell, TextBatches, TextClassifier, padded
from caslon.ladder.word_vectors import FIRST_WORD, PADDING, UNKNOWN, word_vectors
from caslon.observe.events import EventLog

GOOD, BAD = ("fine", "lovely", "moving"), ("dull", "poor", "tired")
PLAIN = ("the", "film", "a", "plot", "and", "actors")


def made(count: int, seed: int) -> list[Labelled]:
    """Return texts of plain words with one telling word; two thirds are good."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        label = rng.choice(["good", "good", "bad"])
        words = [*rng.choices(PLAIN, k=rng.randint(2, 9)), rng.choice(GOOD if label == "good" else BAD)]
        rng.shuffle(words)
        found.append(Labelled(tuple(words), label))
    return found


@pytest.mark.promise(
    "pretraining", "the RNN classifier trains 91,905 parameters and the LSTM 2,310,657 over frozen vectors"
)
@pytest.mark.parametrize(("cell", "count"), [("rnn", 91_905), ("lstm", 2_310_657)])
def test_trained_parameters(cell: Cell, count: int) -> None:
    model = TextClassifier(cell, torch.randn(50, 100))
    assert model.trained_parameters == count
    assert not model.embed_tokens.weight.requires_grad


@pytest.mark.promise("pretraining", "no real word has the padding index, and padding changes no answer")
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_padding_is_no_word(cell: Cell) -> None:
    texts = made(200, 1)
    vectors = word_vectors(texts, 100, 50)
    assert min(vectors.rows.values()) == FIRST_WORD
    assert PADDING not in {row for item in texts for row in vectors.ids(item.words)}
    assert vectors.ids(["never", "seen"]) == [UNKNOWN, UNKNOWN]
    assert not vectors.vectors[PADDING].any()
    model = TextClassifier(cell, torch.from_numpy(vectors.vectors)).eval()
    short, long = vectors.ids(["lovely", "film"]), vectors.ids(PLAIN * 3)
    alone = model(padded([short]))
    beside = model(padded([long, short]))[1:]
    assert alone.tolist() == pytest.approx(beside.tolist(), abs=1e-6)


def test_vectors_of_words_used_alike_lie_together() -> None:
    vectors = word_vectors(made(800, 2), 8, 50)
    lovely, moving, film = (vectors.vectors[vectors.rows[word]] for word in ("lovely", "moving", "film"))
    assert lovely @ moving > lovely @ film
    assert np.linalg.norm(lovely) == pytest.approx(1.0, abs=1e-5)


def test_naive_bayes_worked_by_hand() -> None:
    texts = [Labelled(("a", "b"), "x"), Labelled(("a",), "x"), Labelled(("c",), "y")]
    model = NaiveBayesClassifier.of(texts)
    assert model.prior["x"] == pytest.approx(math.log(2 / 3))
    assert model.words["x"]["a"] == pytest.approx(math.log((2 + 1) / (3 + 3)))
    assert model.words["y"]["a"] == pytest.approx(math.log(1 / (1 + 3)))
    assert model.label_of(["a", "unheard"]) == "x"
    assert model.label_of(["c", "c", "c"]) == "y"
    assert majority_label(texts) == "x"


def test_every_text_is_seen_once_an_epoch() -> None:
    batches = TextBatches([[2, 3], [4], [5, 6, 7]], [0, 1, 1], seed=3)
    first = batches.batch(0, 3)
    assert sorted(zip(first.ids[:, 0].tolist(), first.targets[:, 0].tolist(), strict=True)) == [(2, 0), (4, 1), (5, 1)]
    assert first.target_count == 3


@pytest.mark.promise("pretraining", "classifiers are judged on unseen texts only, beside the majority")
def test_accuracy_is_of_unseen_texts_beside_the_majority(tmp_path: Path) -> None:
    train, test = made(120, 1), made(60, 2)
    found = classify(train, test, tmp_path, EventLog(None), epochs=1, seed=1)
    results = {item["classifier"]: item for item in found["classifiers"]}
    assert list(results) == ["majority", "naive Bayes", "RNN", "LSTM"]
    share = sum(item.label == "good" for item in test) / len(test)
    assert results["majority"]["accuracy"] == pytest.approx(share, abs=1e-4)
    assert results["naive Bayes"]["accuracy"] > share
    assert all(item["right"] == pytest.approx(item["accuracy"] * 60, abs=0.01) for item in results.values())
    turned = [Labelled(item.words, "bad" if item.label == "good" else "good") for item in test]
    against = classify(train, turned, tmp_path, EventLog(None), epochs=1, seed=1)["classifiers"][1]
    assert against["right"] == 60 - results["naive Bayes"]["right"]  # the test labels decide, not the training's


def write(path: Path, texts: list[Labelled]) -> Path:
    if ".jsonl" in path.suffixes:
        lines = [json.dumps({"text": " ".join(item.words), "label": item.label}) for item in texts]
    else:
        lines = [f"{item.label} {' '.join(item.words)}" for item in texts]
    data = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["texts.jsonl", "texts.jsonl.gz", "texts.txt", "texts.txt.gz"])
def test_labelled_files(tmp_path: Path, name: str) -> None:
    texts = made(20, 1)
    assert labelled_texts(write(tmp_path / name, texts)) == texts


@pytest.mark.parametrize("content", ["good\nbad film", "good film\ngood plot", ""])
def test_files_without_labels_or_texts_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "texts.txt"
    path.write_text(content)
    with pytest.raises(UserError):
        labelled_texts(path)


def test_words_are_small_letters_and_marks() -> None:
    assert words_of("It's FINE, really.") == ("it's", "fine", ",", "really", ".")


def test_three_labels_are_refused(tmp_path: Path) -> None:
    three = [*made(10, 1), Labelled(("so", "so"), "middling")]
    with pytest.raises(UserError, match="two labels"):
        classify(three, three, tmp_path, EventLog(None), epochs=1, seed=1)


def test_the_command(tmp_path: Path) -> None:
    train, test = write(tmp_path / "train.txt", made(40, 1)), write(tmp_path / "test.txt", made(20, 2))
    result = CliRunner().invoke(app, ["ladder", "classify", str(train), str(test), "--epochs", "1"])
    assert result.exit_code == 0, result.output
    assert "majority" in result.stdout
    assert "2,310,657 parameters" in result.stdout


@pytest.mark.slow
@pytest.mark.promise("pretraining", "on real sentences every older classifier beats the majority on the test split")
def test_real_sentences(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "qa" / "sst2"
    train, test = labelled_texts(folder / "train.txt.gz"), labelled_texts(folder / "test.txt.gz")
    found = {
        item["classifier"]: item["accuracy"]
        for item in classify(train, test, tmp_path, EventLog(None), epochs=4, seed=1)["classifiers"]
    }
    assert found["naive Bayes"] > 0.75
    assert min(found["RNN"], found["LSTM"]) > found["majority"] + 0.1
