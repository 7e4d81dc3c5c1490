"""Rows of ids with spans cut out to the cross-entropy of what was cut: `seq2seq`, span corruption (arXiv:1910.10683).

The source has a sentinel where a span was, the target each sentinel with its span, and one more sentinel at the end. How much is
cut depends on a row's length alone, so rows of one length give sources and targets of one length; where, on (seed, row).

Legend: `B` rows, `S` tokens of a source, `T` tokens of a target.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caslon.errors import UserError
from caslon.model.encoder_decoder import EncoderDecoder
from caslon.train.batches import Batch, uniform
from caslon.train.objectives.head_loss import head_loss
from caslon.train.objectives.objective import LossSum

DRAW_KEY = 4  # keeps these draws apart from those of rows
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class SpanCorruption:
    """Cross-entropy of the spans that were cut out, by teacher forcing: the decoder sees the target one place behind."""

    sentinels: tuple[int, ...]
    pad_id: int  # fills rows up, and opens a target
    seed: int
    share: float = 0.15
    mean_span: float = 3.0
    chunk_tokens: int | None = None
    z_loss: float = 0.0
    name: str = "seq2seq"

    def spans_of(self, length: int) -> tuple[int, int]:
        """Return how many tokens are cut out of a row, and in how many spans."""
        if length < 2:
            return 0, 0
        cut = min(max(round(self.share * length), 1), length - 1)
        return cut, min(max(round(cut / self.mean_span), 1), cut, length - cut + 1)

    def refuse_too_few_sentinels(self, context: int) -> None:
        """Raise `UserError` when rows of this length have more spans than the tokenizer has sentinels."""
        needed = self.spans_of(context)[1] + 1
        if needed > len(self.sentinels):
            raise UserError(
                f"a row of {context} tokens needs {needed} sentinels, the tokenizer has {len(self.sentinels)}",
                fix=f"set tokenizer.sentinels to {max(needed, 100)}, or use a shorter context or longer spans",
            )

    def collate(self, batch: Batch, rows: range) -> Batch:
        """Return the rows as sources (`ids`) and targets."""
        lengths = batch.scored.sum(dim=1).tolist()
        width = batch.ids.size(1)
        draws = uniform(2 * len(lengths) * width, self.seed, DRAW_KEY, rows.start).reshape(len(lengths), 2, width)
        pairs = [
            self.corrupted(ids[:length].numpy(), *draw)
            for ids, length, draw in zip(batch.ids, lengths, draws, strict=True)
        ]
        sources, is_source = _table([source for source, _ in pairs], self.pad_id)
        targets, is_target = _table([target for _, target in pairs], self.pad_id)
        return replace(
            batch,
            ids=sources,
            targets=targets,
            scored=is_target,
            positions=torch.arange(sources.size(1)).expand_as(sources),
            document_ids=None if bool(is_source.all()) else is_source.long() - 1,  # -1: fills the row up
        )

    def corrupted(self, ids: Ids, *draws: NDArray[np.float64]) -> tuple[Ids, Ids]:
        """Return source and target of one row, its spans placed by two draws of at least its length."""
        cut, spans = self.spans_of(len(ids))
        # Of T5's own code the last token is always cut, for a row ends with a span; here it may also end, and begin, without.
        kept_lengths = _partition(len(ids) - cut + 2, spans + 1, draws[0])
        kept_lengths[0] -= 1
        cut_lengths = _partition(cut, spans, draws[1])
        source, target, place = list[Ids](), list[Ids](), 0
        for sentinel, kept, gone in zip(self.sentinels, kept_lengths[:-1], cut_lengths, strict=False):
            mark = np.array([sentinel], dtype=np.int64)
            source += [ids[place : place + kept], mark]
            target += [mark, ids[place + kept : place + kept + gone]]
            place += kept + gone
        source.append(ids[place:])
        return np.concatenate(source), np.concatenate([*target, np.array([self.sentinels[spans]], dtype=np.int64)])

    def restored(self, source: Sequence[int], target: Sequence[int]) -> list[int]:
        """Return the row a source and its target were made of."""
        spans: dict[int, list[int]] = {}
        for id in target:
            if id in self.sentinels:
                span = spans[id] = []
            else:
                span.append(id)
        return [id for one in source for id in spans.get(one, [one])]

    def count(self, batch: Batch) -> int:
        """Return the number of targets, sentinels among them."""
        return batch.target_count

    def loss(self, model: EncoderDecoder, batch: Batch) -> LossSum:
        """Return the summed nats of the targets."""
        start = torch.full_like(batch.targets[:, :1], self.pad_id)
        decoder_ids = torch.cat([start, batch.targets[:, :-1]], dim=1)
        attended = None if batch.document_ids is None else (batch.document_ids >= 0).long()
        states = model(batch.ids, decoder_ids, attended).flatten(0, 1)
        kept = batch.scored.flatten().nonzero().squeeze(1)
        targets = batch.targets.flatten()[kept]
        total, metrics = head_loss(
            states[kept], model.head_weight, targets, chunk_tokens=self.chunk_tokens, z_loss=self.z_loss
        )
        return LossSum(total, len(targets), metrics)

    def measures(self, nats: float, count: int, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the accuracy of first guesses."""
        return {"accuracy": float(sums["correct"]) / count} if "correct" in sums else {}


def _partition(total: int, parts: int, draws: NDArray[np.float64]) -> list[int]:
    """Return `parts` lengths of at least 1 that sum to `total`, each way equally likely."""
    if not parts:
        return []
    borders = np.sort(np.argsort(draws[: total - 1], kind="stable")[: parts - 1]) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], borders, [total]])).tolist()
    return lengths


def _table(rows: Sequence[Ids], fill: int) -> tuple[Tensor, Tensor]:
    """Return rows as one table, short ones filled up, and where it holds a row."""
    width = max(len(row) for row in rows)
    table = np.full((len(rows), width), fill, dtype=np.int64)
    held = np.zeros((len(rows), width), dtype=bool)
    for number, row in enumerate(rows):
        table[number, : len(row)], held[number, : len(row)] = row, True
    return torch.from_numpy(table), torch.from_numpy(held)
