"""Word vectors and labelled texts to a recurrent network that reads a whole text and says its label.

Two shapes, both over frozen vectors: one RNN layer read forwards, and two LSTM layers read both ways. Texts of a batch are
packed, so padding is never read. Trained by the package's loop.

Legend: `B` texts, `T` words of the longest, `D` width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from caslon.ladder.labelled import Labelled
from caslon.ladder.word_vectors import PADDING, WordVectors
from caslon.train.batches import Batch, random_order
from caslon.train.objectives.objective import LossSum

WIDTH = 256
LSTM_LAYERS = 2
LONGEST_WORDS = 400
TEXTS_AT_ONCE = 64

Cell = Literal["rnn", "lstm"]


class TextClassifier(nn.Module):
    """The probability of the second of two labels, from the state after the last word (of both directions)."""

    checkpoint_every = 0  # the loop may set it; these networks are too small to need it

    def __init__(self, cell: Cell, vectors: Tensor) -> None:
        super().__init__()
        width = vectors.size(1)
        self.embed_tokens = nn.Embedding(vectors.size(0), width, padding_idx=PADDING, _weight=vectors)
        self.embed_tokens.weight.requires_grad_(False)
        if cell == "rnn":
            self.recurrent: nn.RNNBase = nn.RNN(width, WIDTH, batch_first=True)
        else:
            self.recurrent = nn.LSTM(width, WIDTH, num_layers=LSTM_LAYERS, bidirectional=True, batch_first=True)
        self.directions = 2 if self.recurrent.bidirectional else 1
        self.head = nn.Linear(self.directions * WIDTH, 1)

    def forward(self, ids: Tensor) -> Tensor:
        """Return one score a text `[B]` for ids `[B, T]`, padded behind their end."""
        lengths = (ids != PADDING).sum(dim=1)
        packed = pack_padded_sequence(self.embed_tokens(ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
        state = self.recurrent(packed)[1]
        last = (state[0] if isinstance(state, tuple) else state)[-self.directions :]  # [directions, B, D]
        return cast(Tensor, self.head(last.transpose(0, 1).flatten(1)).squeeze(1))

    @property
    def trained_parameters(self) -> int:
        """How many parameters learn: all but the frozen vectors."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)

    @property
    def device(self) -> torch.device:
        """The device the weights lie on."""
        return self.head.weight.device


@dataclass(frozen=True)
class TextBatches:
    """Every text once an epoch, shuffled by (seed, epoch); a row's one target stands at its first place."""

    texts: Sequence[Sequence[int]]
    labels: Sequence[int]
    seed: int

    @property
    def rows_per_epoch(self) -> int:
        """How many texts there are."""
        return len(self.texts)

    def batch(self, step: int, rows: int) -> Batch:
        """Return the texts `step * rows` to `(step + 1) * rows - 1` of the endless sequence of epochs."""
        places = [divmod(number, len(self.texts)) for number in range(step * rows, (step + 1) * rows)]
        orders = {epoch: random_order(len(self.texts), self.seed, epoch) for epoch, _ in places}
        return self.of([int(orders[epoch][row]) for epoch, row in places])

    def of(self, numbers: Sequence[int]) -> Batch:
        """Return these texts as a batch."""
        ids = padded([self.texts[number] for number in numbers])
        targets, scored = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
        targets[:, 0] = torch.tensor([self.labels[number] for number in numbers])
        scored[:, 0] = True
        positions = torch.arange(ids.size(1)).expand_as(ids)
        return Batch(ids, targets, scored, positions, None, tuple(sorted(numbers)))


def padded(texts: Sequence[Sequence[int]]) -> Tensor:
    """Return texts `[B, T]` with padding behind their end; too long ones keep their beginning."""
    cut = [text[:LONGEST_WORDS] for text in texts]
    ids = np.full((len(cut), max(map(len, cut))), PADDING, dtype=np.int64)
    for row, text in zip(ids, cut, strict=True):
        row[: len(text)] = text
    return torch.from_numpy(ids)


@dataclass(frozen=True)
class LabelOfText:
    """The objective: cross-entropy of the label."""

    name: str = "label_of_text"

    def collate(self, batch: Batch, rows: range) -> Batch:
        """Return the rows as they are."""
        return batch

    def count(self, batch: Batch) -> int:
        """Return the number of texts."""
        return batch.target_count

    def loss(self, model: TextClassifier, batch: Batch) -> LossSum:
        """Return the summed nats of the labels."""
        targets = batch.targets[batch.scored].float()
        return LossSum(F.binary_cross_entropy_with_logits(model(batch.ids), targets, reduction="sum"), len(targets))

    def measures(self, nats: float, count: int, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return nothing beside the loss."""
        return {}


@torch.no_grad()
def answers(
    model: TextClassifier, vectors: WordVectors, texts: Sequence[Labelled], labels: Sequence[str]
) -> Iterator[str]:
    """Yield the label the model gives to each text."""
    model.eval()
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = padded([vectors.ids(item.words) for item in texts[start : start + TEXTS_AT_ONCE]])
        for score in model(part.to(model.device)).tolist():
            yield labels[int(score > 0)]
