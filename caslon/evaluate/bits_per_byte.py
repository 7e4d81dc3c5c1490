"""A model and token ids to bits per byte: total nats / (ln 2 x UTF-8 bytes), the only score compared over tokenizers.

Documents are scored apart, each after the end token that closes the one before it, as in training. Every token is predicted once,
the first included; the end token itself carries no bytes and is not scored. A document longer than the context of L tokens is
read in windows that move by `stride` tokens, so that each token has at least L - stride + 1 tokens before it where they exist.
With `stride = L` this is lm-evaluation-harness' rolling rule.

Shapes: `B` windows, `T` tokens, `D` width, `V` vocabulary, `S` scored tokens.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caslon.evaluate.intervals import FEWEST_UNITS, Interval, ratio_interval

TOKENS_AT_ONCE = 8_192
LOGITS_AT_ONCE = 16 << 20  # numbers in one matrix of logits: 64 MiB in float32
BLOCK_TOKENS = 2_000  # units of the interval when there are few documents

Ids = NDArray[np.integer]
Floats = NDArray[np.float64]
Report = Callable[[int, int], None]


class LanguageModel(Protocol):
    """What scoring asks of a model: the two calls of `Decoder`."""

    def __call__(self, ids: Tensor) -> Tensor:
        """Return hidden states `[B, T, D]` for ids `[B, T]`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores `[..., V]` for hidden states `[..., D]`."""


@dataclass(frozen=True)
class Window:
    """One forward pass over part of a document: positions `start` to `end` are read, and the last `scored` targets count."""

    document: int
    start: int
    end: int
    scored: int


@dataclass(frozen=True)
class DocumentScore:
    """What one document cost: nats over tokens and bytes."""

    document: int
    nats: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        """The score of this document alone."""
        return self.nats / math.log(2) / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class TextScore:
    """The score of many documents together, with everything it was computed from."""

    nats: float
    tokens: int
    bytes: int
    documents: tuple[DocumentScore, ...]
    interval: Interval | None

    @property
    def bits_per_byte(self) -> float:
        """Bits the model needs for one byte of text."""
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """exp(mean nats per token): comparable only between models with one tokenizer."""
        return math.exp(self.nats / self.tokens)


def windows(length: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """Return `(start, end, scored)` of the windows over `length` tokens: inputs `start..end` of start token + document."""
    assert 1 <= stride <= context, "a window moves by at least one token and leaves none out"
    found = []
    done = 0
    while done < length:
        end = min(length, context if done == 0 else done + stride)
        found.append((max(0, end - context), end, end - done))
        done = end
    return found


def score_documents(
    model: LanguageModel,
    documents: Sequence[Ids],
    document_bytes: Sequence[int],
    *,
    start_id: int,
    context: int,
    stride: int = 0,
    token_bytes: Sequence[int] = (),
    device: str = "cpu",
    report: Report = lambda _done, _total: None,
) -> TextScore:
    """Return the score of documents given as ids without their end token.

    `stride` 0 is half the context. `token_bytes` (bytes of each id of the vocabulary) are needed for an interval over blocks,
    when there are fewer than 20 documents. `report` hears how many of all targets are done.
    """
    nats = [np.zeros(len(ids)) for ids in documents]
    todo = [
        Window(number, *window)
        for number, ids in enumerate(documents)
        for window in windows(len(ids), context, stride or max(1, context // 2))
    ]
    done, total = 0, sum(len(ids) for ids in documents)
    with torch.no_grad():
        for batch in _batches(todo):
            for window, values in zip(batch, _window_nats(model, documents, batch, start_id, device), strict=True):
                nats[window.document][window.end - window.scored : window.end] = values
            done += sum(window.scored for window in batch)
            report(done, total)
    return _text_score(documents, nats, document_bytes, token_bytes)


def _batches(todo: Sequence[Window]) -> Iterator[list[Window]]:
    """Yield windows of like length together, so that little is padding and no batch is large."""
    batch: list[Window] = []
    for window in sorted(todo, key=lambda item: (item.start - item.end, item.document, item.start)):
        longest = batch[0].end - batch[0].start if batch else 0
        if batch and (len(batch) + 1) * longest > TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _window_nats(
    model: LanguageModel, documents: Sequence[Ids], batch: Sequence[Window], start_id: int, device: str
) -> Iterator[Floats]:
    """Yield the nats of the scored targets of each window."""
    longest = batch[0].end - batch[0].start
    ids = np.full(
        (len(batch), longest), start_id, dtype=np.int64
    )  # padding stands on the right, where no target sees it
    rows: list[int] = []
    places: list[int] = []
    targets = []
    for row, window in enumerate(batch):
        document = documents[window.document]
        length = window.end - window.start
        first = 1 if window.start == 0 else 0  # the row begins with the start token, which is there already
        ids[row, first:length] = document[window.start - 1 + first : window.end - 1]
        rows += [row] * window.scored
        places += range(length - window.scored, length)
        targets.append(np.asarray(document[window.end - window.scored : window.end], dtype=np.int64))
    hidden = model(torch.from_numpy(ids).to(device))[rows, places]  # [S, D]
    nats = _nats_of_targets(model, hidden, torch.from_numpy(np.concatenate(targets)).to(device))
    start = 0
    for window in batch:
        yield nats[start : start + window.scored]
        start += window.scored


def _nats_of_targets(model: LanguageModel, hidden: Tensor, targets: Tensor) -> Floats:
    """Return -log p of each target. Logits of a few rows at a time keep a large vocabulary from filling the memory."""
    parts = []
    start, rows = 0, 1
    while start < targets.numel():
        logits = model.logits(hidden[start : start + rows]).float()  # [S, V]
        parts.append(torch.nn.functional.cross_entropy(logits, targets[start : start + rows], reduction="none"))
        start, rows = start + rows, max(1, LOGITS_AT_ONCE // logits.size(-1))
    return torch.cat(parts).double().cpu().numpy()


def _text_score(
    documents: Sequence[Ids], nats: Sequence[Floats], document_bytes: Sequence[int], token_bytes: Sequence[int]
) -> TextScore:
    scores = tuple(
        DocumentScore(number, math.fsum(values), len(values), int(size))
        for number, (values, size) in enumerate(zip(nats, document_bytes, strict=True))
    )
    return TextScore(
        nats=math.fsum(score.nats for score in scores),
        tokens=sum(score.tokens for score in scores),
        bytes=sum(score.bytes for score in scores),
        documents=scores,
        interval=_interval(scores, documents, nats, token_bytes),
    )


def _interval(
    scores: Sequence[DocumentScore], documents: Sequence[Ids], nats: Sequence[Floats], token_bytes: Sequence[int]
) -> Interval | None:
    """Return the interval over documents or, when they are few, over blocks of 2,000 tokens."""
    if len(scores) >= FEWEST_UNITS or not len(token_bytes):
        bits = [score.nats / math.log(2) for score in scores]
        return ratio_interval(bits, [score.bytes for score in scores], unit="documents")
    sizes = np.asarray(token_bytes)[np.concatenate([np.asarray(ids, dtype=np.int64) for ids in documents])]
    bits_of_tokens = np.concatenate(list(nats)) / math.log(2)
    starts = np.arange(0, sizes.size, BLOCK_TOKENS)
    return ratio_interval(
        np.add.reduceat(bits_of_tokens, starts),
        np.add.reduceat(sizes, starts),
        unit=f"blocks of {BLOCK_TOKENS:,} tokens",
    )


def chosen_documents(document_bytes: Sequence[int], max_bytes: int, seed: int) -> list[int]:
    """Return the documents to score: all (`max_bytes` 0), or drawn at random until they fill `max_bytes`, in their order."""
    if not max_bytes:
        return list(range(len(document_bytes)))
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(document_bytes))
    filled = np.cumsum(np.asarray(document_bytes, dtype=np.int64)[order])
    count = max(1, int(np.searchsorted(filled, max_bytes, side="right")))
    return sorted(int(number) for number in order[:count])
