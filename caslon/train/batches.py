"""Token files or conversations into batches: which ids a step sees, as a pure function of (seed, step).

No iterator and no random state: a resumed run asks for batch 1,207 and gets it. Unusual: a row is cut out of the shuffled
documents by position, so nothing is concatenated in memory. Rows are numbered without end, and a step takes the next `rows` of
them; of several processes each takes its part of those, so the batch is the same whatever their number.

A row of the packed mode is `T` inputs and the `T` ids after them; rows overlap by one id, so each id of the data set is a target
exactly once an epoch. The end token that closes a document is, as an input, the first position of the next one.

Legend: `B` rows of a batch, `T` tokens of a row.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caslon.errors import UserError
from caslon.train.conversations import Conversation

Ids = NDArray[np.integer]
Ints = NDArray[np.int64]
WORD = (1 << 64) - 1  # the largest number of 64 bits


@dataclass(frozen=True)
class Batch:
    """Rows of ids with the ids to predict. `scored` marks the targets that enter the loss; all tensors are `[B, T]`."""

    ids: Tensor
    targets: Tensor
    scored: Tensor
    positions: Tensor
    document_ids: Tensor | None  # None: attention may cross documents
    sources: tuple[int, ...]  # documents (or conversations) with a token in here, for messages
    counted: int | None = None  # scored targets, counted before the batch left the CPU: asking a GPU is waiting for it
    document_starts: Tensor | None = None  # [N + 1] places in the flattened rows, likewise; on a GPU only
    labels: Tensor | None = None  # [B] what is to be said of a whole row

    @property
    def target_count(self) -> int:
        """How many targets enter the loss."""
        return int(self.scored.sum()) if self.counted is None else self.counted

    def split(self, rows: int) -> Iterator["Batch"]:
        """Yield micro-batches of at most `rows` rows."""
        for start in range(0, self.ids.size(0), rows):
            part = slice(start, start + rows)
            yield Batch(
                self.ids[part],
                self.targets[part],
                self.scored[part],
                self.positions[part],
                None if self.document_ids is None else self.document_ids[part],
                self.sources,
                labels=None if self.labels is None else self.labels[part],
            )

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; the copy goes on while the caller does something else."""
        if device.type == "cpu":
            return self

        def moved(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        return Batch(
            ids=moved(self.ids),
            targets=moved(self.targets),
            scored=moved(self.scored),
            positions=moved(self.positions),
            document_ids=None if self.document_ids is None else moved(self.document_ids),
            sources=self.sources,
            counted=self.target_count,
            document_starts=None if self.document_ids is None else moved(document_starts(self.document_ids)),
            labels=None if self.labels is None else moved(self.labels),
        )


def document_starts(document_ids: Tensor) -> Tensor:
    """Return where documents begin in the flattened rows of `[B, T]` document ids, and their end, as `[N + 1]` int32.

    `N` is rounded up to a power of two by empty documents at the end, so that kernels see few different lengths.
    """
    first = torch.ones_like(document_ids, dtype=torch.bool)
    first[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    starts = first.flatten().nonzero().flatten().to(torch.int32)
    length = 1 << (len(starts) - 1).bit_length()
    padded = torch.full((length + 1,), document_ids.numel(), dtype=torch.int32)
    padded[: len(starts)] = starts
    return padded


class Batches(Protocol):
    """Where a training loop gets its rows from."""

    @property
    def rows_per_epoch(self) -> int:
        """How many rows show every target once."""
        ...

    def batch(self, step: int, rows: int) -> Batch:
        """Return the `rows` rows of the 0-based `step`."""
        ...


def row_numbers(step: int, rows: int) -> range:
    """Return which rows of the endless sequence a step of `rows` rows sees."""
    return range(step * rows, (step + 1) * rows)


@dataclass(frozen=True)
class Documents:
    """Documents in one array of ids, each closed by the end token; document `i` is `ids[starts[i]:starts[i + 1]]`."""

    ids: Ids
    starts: Ints
    end_id: int
    vocab_size: int = 1 << 32  # ids from here on are refused where they are met

    def __len__(self) -> int:
        return len(self.starts) - 1

    def checked(self, row: "Row") -> "Row":
        """Return a row whose ids are all below the vocabulary's size; `UserError` names the first other one's place."""
        if int(row.ids.max()) < self.vocab_size:
            return row
        for number in row.sources:
            start = int(self.starts[number])
            ids = self.ids[start : int(self.starts[number + 1])]
            if len(wrong := np.flatnonzero(ids >= self.vocab_size)):
                place = int(wrong[0])
                raise UserError(
                    f"id {ids[place]} at position {start + place} is outside the vocabulary of {self.vocab_size}",
                    where=f"document {number} of the token files",
                    fix="run the tokenizer stage again",
                )
        raise AssertionError("a row's ids come from its documents")


@dataclass(frozen=True)
class Row:
    """At most `context + 1` ids, and the documents they come from."""

    ids: Ids
    sources: Sequence[int]


def random_order(count: int, *key: int) -> Ints:
    """Return a permutation of `range(count)` drawn from `key` alone, the same with every version of NumPy."""
    raw = np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
    return np.argsort(raw, kind="stable")


def uniform(count: int, *key: int) -> NDArray[np.float64]:
    """Return numbers in [0, 1) drawn from `key` alone, the same with every version of NumPy."""
    raw = np.random.Philox(np.random.SeedSequence(key)).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class TokenRows(ABC):
    """Rows cut out of documents: what packed rows and windows share."""

    documents: Documents
    context: int
    seed: int
    mask_documents: bool = True

    @cached_property
    def rows_per_epoch(self) -> int:
        """How many rows hold as many targets as the data set has ids."""
        return -(-int(self.documents.starts[-1]) // self.context)

    def batch(self, step: int, rows: int) -> Batch:
        """Return the `rows` rows of a step."""
        cut = [self.row(number) for number in row_numbers(step, rows)]
        return rows_to_batch(cut, self.context, self.documents.end_id, self.mask_documents)

    @abstractmethod
    def row(self, number: int) -> Row:
        """Return a row of the endless sequence."""


@dataclass(frozen=True)
class PackedBatches(TokenRows):
    """Every document once an epoch, shuffled by (seed, epoch), without padding but in the last row of an epoch."""

    @cached_property
    def _epoch(self) -> Callable[[int], tuple[Ints, Ints]]:
        return lru_cache(maxsize=2)(self._shuffled)  # two: a batch may reach into the next epoch

    def _shuffled(self, epoch: int) -> tuple[Ints, Ints]:
        """Return the documents' order and where each begins in the epoch's stream, behind the leading end token."""
        order = random_order(len(self.documents), self.seed, epoch)
        lengths = np.diff(self.documents.starts)[order]
        return order, 1 + np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])

    def row(self, number: int) -> Row:
        """Return a row of the endless sequence of epochs."""
        epoch, row = divmod(number, self.rows_per_epoch)
        order, begins = self._epoch(epoch)
        start = row * self.context
        stop = min(start + self.context + 1, int(begins[-1]))
        pieces: list[Ids] = [np.array([self.documents.end_id])] if start == 0 else []
        sources = []
        place = max(start, 1)
        index = int(np.searchsorted(begins, place, side="right")) - 1
        while place < stop:
            document = int(order[index])
            first = int(self.documents.starts[document]) + place - int(begins[index])
            length = min(stop, int(begins[index + 1])) - place
            pieces.append(self.documents.ids[first : first + length])
            sources.append(document)
            place += length
            index += 1
        return self.documents.checked(Row(np.concatenate(pieces), sources))


@dataclass(frozen=True)
class WindowBatches(TokenRows):
    """Windows at random places of the data set, in corpus order, as nanoGPT draws them: each from (seed, its number)."""

    mask_documents: bool = False

    def row(self, number: int) -> Row:
        """Return the window of a number."""
        places = len(self.documents.ids) - self.context
        start = scrambled(self.seed, number) % places
        first, last = np.searchsorted(self.documents.starts, [start, start + self.context], side="right") - 1
        ids = self.documents.ids[start : start + self.context + 1]
        return self.documents.checked(Row(ids, range(int(first), int(last) + 1)))


def scrambled(seed: int, number: int) -> int:
    """Return 64 bits that look random, from two numbers: the finaliser of SplitMix64 over each (doi:10.1145/2714064.2660195)."""
    value = seed & WORD
    for part in (number, 0):
        value = (value + (part + 1) * 0x9E3779B97F4A7C15) & WORD
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & WORD
        value ^= value >> 31
    return value


def rows_to_batch(rows: Sequence[Row], context: int, end_id: int, mask_documents: bool) -> Batch:
    """Return rows of at most `context + 1` ids as a batch; short rows are filled with unscored end tokens."""
    table = np.full((len(rows), context + 1), end_id, dtype=np.int64)
    scored = np.zeros((len(rows), context), dtype=bool)
    for number, row in enumerate(rows):
        table[number, : len(row.ids)] = row.ids
        scored[number, : len(row.ids) - 1] = True
    ids = table[:, :-1]
    positions = np.broadcast_to(np.arange(context), ids.shape)
    document_ids = None
    if mask_documents:
        ends = ids == end_id
        document_ids = torch.from_numpy(np.cumsum(ends, axis=1))
        positions = positions - np.maximum.accumulate(np.where(ends, positions, 0), axis=1)
    return Batch(
        ids=torch.from_numpy(ids.copy()),
        targets=torch.from_numpy(table[:, 1:].copy()),
        scored=torch.from_numpy(scored),
        positions=torch.from_numpy(positions.copy()),
        document_ids=document_ids,
        sources=tuple(sorted({source for row in rows for source in row.sources})),
    )


@dataclass(frozen=True)
class ConversationBatches:
    """Whole conversations packed into rows; none sees another, and none is cut."""

    conversations: tuple[Conversation, ...]
    context: int
    pad_id: int
    seed: int

    @cached_property
    def packed(self) -> tuple[tuple[int, ...], ...]:
        """Which conversations share a row: the same in every epoch, which only changes the order of rows."""
        return best_fit([len(item.ids) - 1 for item in self.conversations], self.context)

    @property
    def rows_per_epoch(self) -> int:
        """How many rows hold every conversation once."""
        return len(self.packed)

    @cached_property
    def _epoch(self) -> Callable[[int], Ints]:
        return lru_cache(maxsize=2)(lambda epoch: random_order(len(self.packed), self.seed, epoch))

    def batch(self, step: int, rows: int) -> Batch:
        """Return the `rows` rows of a step of the endless sequence of epochs."""
        places = [divmod(number, self.rows_per_epoch) for number in row_numbers(step, rows)]
        return self._join([self.packed[int(self._epoch(epoch)[row])] for epoch, row in places])

    def _join(self, rows: Sequence[Sequence[int]]) -> Batch:
        shape = (len(rows), self.context)
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        targets = np.full(shape, self.pad_id, dtype=np.int64)
        scored = np.zeros(shape, dtype=bool)
        positions = np.zeros(shape, dtype=np.int64)
        documents = np.full(shape, -1, dtype=np.int64)
        for number, row in enumerate(rows):
            place = 0
            for item in (self.conversations[index] for index in row):
                part = slice(place, place + len(item.ids) - 1)
                ids[number, part], targets[number, part] = item.ids[:-1], item.ids[1:]
                scored[number, part] = item.scored[1:]
                positions[number, part] = np.arange(len(item.ids) - 1)
                documents[number, part] = place
                place = part.stop
            positions[number, place:] = np.arange(self.context - place)
        return Batch(
            ids=torch.from_numpy(ids),
            targets=torch.from_numpy(targets),
            scored=torch.from_numpy(scored),
            positions=torch.from_numpy(positions),
            document_ids=torch.from_numpy(documents),
            sources=tuple(sorted({index for row in rows for index in row})),
        )


def best_fit(lengths: Sequence[int], room: int) -> tuple[tuple[int, ...], ...]:
    """Return groups of indices whose lengths fit in `room`: each, longest first, goes where it leaves the least room."""
    groups: list[list[int]] = []
    by_room: dict[int, list[int]] = {}  # room left -> groups that have exactly that much
    for index in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        need = lengths[index]
        assert need <= room, "too long conversations are taken out before"
        left = next((size for size in range(need, room + 1) if by_room.get(size)), None)
        if left is None:
            groups.append([])
            number, left = len(groups) - 1, room
        else:
            number = by_room[left].pop()
        groups[number].append(index)
        by_room.setdefault(left - need, []).append(number)
    return tuple(tuple(group) for group in groups)
