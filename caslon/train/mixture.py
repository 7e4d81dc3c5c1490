"""Several data sets to one sequence of rows: each row comes from one of them, in shares as near to the weights as whole rows get.

Unusual: shares are not drawn. Of every thousand rows each data set gets its fixed number, and only their order is random, so that
what a short run saw is what was asked for, and row 1,207 is still known without the rows before it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from caslon.errors import UserError
from caslon.train.batches import Batch, Ints, Row, TokenRows, random_order, row_numbers, rows_to_batch

BLOCK_ROWS = 1_000  # rows in which every data set gets its share: weights count to a thousandth
ORDER_KEY = 1  # keeps the order of rows apart from the order of documents


@dataclass(frozen=True)
class MixedBatches:
    """Rows of several data sets with weights. All have the same context, end token and masks."""

    parts: tuple[TokenRows, ...]
    weights: tuple[float, ...]
    seed: int

    @cached_property
    def counts(self) -> Ints:
        """How many of a block's rows each data set gets: `[parts]`; `UserError` for a weight too small for one."""
        exact = np.asarray(self.weights) / math.fsum(self.weights) * BLOCK_ROWS
        counts = np.floor(exact).astype(np.int64)
        short = BLOCK_ROWS - int(counts.sum())
        counts[np.argsort(counts - exact, kind="stable")[:short]] += 1  # the largest remainders
        if not counts.all():
            least = min(self.weights) / math.fsum(self.weights)
            raise UserError(
                f"a weight of {least:.2g} is less than one row of {BLOCK_ROWS:,}", fix="raise it, or leave the data out"
            )
        return counts

    @cached_property
    def rows_per_epoch(self) -> int:
        """How many rows show every target at least once: until the data set that takes longest is through."""
        counts: list[int] = self.counts.tolist()
        return max(-(-part.rows_per_epoch * BLOCK_ROWS // own) for part, own in zip(self.parts, counts, strict=True))

    def batch(self, step: int, rows: int) -> Batch:
        """Return the `rows` rows of a step; documents are numbered through all data sets."""
        cut = [self.row(number) for number in row_numbers(step, rows)]
        first = self.parts[0]
        return rows_to_batch(cut, first.context, first.documents.end_id, first.mask_documents)

    def row(self, number: int) -> Row:
        """Return a row of the endless sequence."""
        part, own = self.place(number)
        row = self.parts[part].row(own)
        before = sum(len(other.documents) for other in self.parts[:part])
        return Row(row.ids, [before + source for source in row.sources])

    def place(self, number: int) -> tuple[int, int]:
        """Return which data set a row comes from, and its number among that one's rows."""
        block, place = divmod(number, BLOCK_ROWS)
        parts, own = self._block(block)
        part = int(parts[place])
        return part, block * int(self.counts[part]) + int(own[place])

    def shares(self, rows: int) -> list[float]:
        """Return what share of the first `rows` rows comes from each data set."""
        blocks, rest = divmod(rows, BLOCK_ROWS)
        begun = np.bincount(self._block(blocks)[0][:rest], minlength=len(self.parts))
        found: list[float] = ((blocks * self.counts + begun) / rows).tolist()
        return found

    @cached_property
    def _block(self) -> Callable[[int], tuple[Ints, Ints]]:
        return lru_cache(maxsize=2)(self._ordered)  # two: a batch may reach into the next block

    def _ordered(self, block: int) -> tuple[Ints, Ints]:
        """Return of each row of a block its data set, and how many rows of that come before it in the block."""
        parts = np.repeat(np.arange(len(self.parts)), self.counts)
        parts = parts[random_order(BLOCK_ROWS, self.seed, ORDER_KEY, block)]
        own = np.empty(BLOCK_ROWS, dtype=np.int64)
        for part, count in enumerate(self.counts):
            own[parts == part] = np.arange(count)
        return parts, own


def mixed(parts: Sequence[TokenRows], weights: Sequence[float], seed: int) -> TokenRows | MixedBatches:
    """Return the rows of data sets with weights: of a single one, its own."""
    return parts[0] if len(parts) == 1 else MixedBatches(tuple(parts), tuple(weights), seed)
