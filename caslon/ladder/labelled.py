"""Labelled texts to a verdict on new ones by counting: naive Bayes over words, beside the guess that knows no words at all.

Reads JSON lines with `text` and `label`, or plain lines that begin with their label; both may be gzipped.
"""

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from caslon.errors import UserError

_WORD = re.compile(r"[\w']+|[^\w\s]")


@dataclass(frozen=True)
class Labelled:
    """A text in words, and its label."""

    words: tuple[str, ...]
    label: str


def labelled_texts(path: Path) -> list[Labelled]:
    """Return the labelled texts of a file; `UserError` names the line that has no label or no text."""
    if not path.is_file():
        raise UserError("no such file", where=str(path))
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    is_json = ".jsonl" in path.suffixes
    found = []
    for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), start=1):
        label, text = _json_line(line) if is_json else line.strip().partition(" ")[::2]
        words = words_of(text)
        if not label or not words:
            raise UserError(
                "a line needs a label and a text", where=f"{path}, line {number}", fix="remove or repair it"
            )
        found.append(Labelled(words, label))
    if len({item.label for item in found}) < 2:
        raise UserError("all texts have one label: there is nothing to learn", where=str(path))
    return found


def _json_line(line: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
        return str(record["label"]), str(record["text"])
    except (ValueError, KeyError, TypeError):
        return "", ""


def words_of(text: str) -> tuple[str, ...]:
    """Return a text's words and marks, in small letters."""
    return tuple(_WORD.findall(text.lower()))


def majority_label(texts: Sequence[Labelled]) -> str:
    """Return the commonest label, the first in order among equals: what a classifier without eyes would always say."""
    counts = Counter(item.label for item in texts)
    return min(counts, key=lambda label: (-counts[label], label))


@dataclass(frozen=True)
class NaiveBayesClassifier:
    """Logarithms of each label's prior and of each word under it, add one; words never seen in training say nothing."""

    prior: Mapping[str, float]
    words: Mapping[str, Mapping[str, float]]

    @staticmethod
    def of(texts: Sequence[Labelled]) -> "NaiveBayesClassifier":
        """Return the classifier trained on texts."""
        vocabulary = {word for item in texts for word in item.words}
        labels = Counter(item.label for item in texts)
        counts: dict[str, Counter[str]] = {label: Counter() for label in labels}
        for item in texts:
            counts[item.label].update(item.words)
        words = {}
        for label, found in counts.items():
            total = found.total() + len(vocabulary)
            words[label] = {word: math.log((found[word] + 1) / total) for word in vocabulary}
        return NaiveBayesClassifier({label: math.log(n / len(texts)) for label, n in labels.items()}, words)

    @property
    def numbers(self) -> int:
        """How many logarithms it holds."""
        return len(self.prior) + sum(len(words) for words in self.words.values())

    def label_of(self, words: Sequence[str]) -> str:
        """Return the likeliest label of a text."""
        scores = {
            label: prior + sum(self.words[label].get(word, 0.0) for word in words)
            for label, prior in self.prior.items()
        }
        return min(scores, key=lambda label: (-scores[label], label))


def right_answers(answers: Iterator[str] | Sequence[str], texts: Sequence[Labelled]) -> int:
    """Return how many answers are the texts' labels."""
    return sum(answer == item.label for answer, item in zip(answers, texts, strict=True))
