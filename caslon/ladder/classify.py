"""Labelled texts to learn from and others to be judged by: the older classifiers beside the majority, on unseen texts only."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caslon.errors import UserError
from caslon.ladder.labelled import Labelled, NaiveBayesClassifier, majority_label, right_answers
from caslon.observe.events import EventLog, Started

if TYPE_CHECKING:
    from caslon.ladder.recurrent_classifier import Cell

VECTOR_WIDTH = 100
MOST_WORDS = 8_000
BATCH = 32
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class ClassifierResult:
    """What one classifier got right among texts it had not seen."""

    classifier: str
    numbers: int
    holds: str
    train_seconds: float
    right: int
    accuracy: float


@dataclass(frozen=True)
class Trained:
    """A classifier's size and its answers to the test texts."""

    numbers: int
    holds: str
    answers: Sequence[str]


def classify(
    train: Sequence[Labelled], test: Sequence[Labelled], folder: Path, events: EventLog, *, epochs: int, seed: int
) -> dict[str, Any]:
    """Return the result of every classifier on the test texts. `UserError` unless both have the same two labels."""
    labels = sorted({item.label for item in train})
    if len(labels) != 2 or {item.label for item in test} - set(labels):
        found = ", ".join(sorted({item.label for item in (*train, *test)}))
        raise UserError(f"the classifiers tell two labels apart, not these: {found}", fix="keep texts with two labels")
    majority = majority_label(train)
    ways: dict[str, Callable[[], Trained]] = {
        "majority": lambda: Trained(1, "label", [majority] * len(test)),
        "naive Bayes": lambda: _naive_bayes(train, test),
        "RNN": lambda: _recurrent("rnn", train, test, labels, folder, events, epochs, seed),
        "LSTM": lambda: _recurrent("lstm", train, test, labels, folder, events, epochs, seed),
    }
    results = []
    for name, way in ways.items():
        events.emit(Started(name))
        events.note(name)
        began = time.perf_counter()
        trained = way()
        seconds = time.perf_counter() - began
        right = right_answers(trained.answers, test)
        accuracy = round(right / len(test), 4)
        results.append(ClassifierResult(name, trained.numbers, trained.holds, round(seconds, 2), right, accuracy))
    return {
        "train_texts": len(train),
        "test_texts": len(test),
        "test_labels": dict(sorted(Counter(item.label for item in test).items())),
        "classifiers": [asdict(result) for result in results],
    }


def _naive_bayes(train: Sequence[Labelled], test: Sequence[Labelled]) -> Trained:
    model = NaiveBayesClassifier.of(train)
    return Trained(model.numbers, "counts", [model.label_of(item.words) for item in test])


def _recurrent(
    cell: "Cell",
    train: Sequence[Labelled],
    test: Sequence[Labelled],
    labels: Sequence[str],
    folder: Path,
    events: EventLog,
    epochs: int,
    seed: int,
) -> Trained:
    import torch

    from caslon.ladder.loop import loop_plan, train_by_loop
    from caslon.ladder.networks import built
    from caslon.ladder.recurrent_classifier import LONGEST_WORDS, LabelOfText, TextBatches, TextClassifier, answers
    from caslon.ladder.word_vectors import word_vectors

    vectors = word_vectors(train, VECTOR_WIDTH, MOST_WORDS)
    model = built(lambda: TextClassifier(cell, torch.from_numpy(vectors.vectors)), seed)
    batches = TextBatches(
        [vectors.ids(item.words) for item in train], [labels.index(item.label) for item in train], seed
    )
    plan = loop_plan(
        steps=max(2, epochs * len(train) // BATCH),
        batch=BATCH,
        context=LONGEST_WORDS,
        learning_rate=LEARNING_RATE,
        optimizer="adamw",
        seed=seed,
    )
    train_by_loop(model, LabelOfText(), batches, plan, folder / cell, events)
    return Trained(model.trained_parameters, "parameters", list(answers(model, vectors, test, labels)))
