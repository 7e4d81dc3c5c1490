"""The key-value cache in blocks, and the attention of one step over it.

Unusual: the arithmetic of a token depends on nothing but its own sequence and position, so its logits are equal bit by
bit whatever runs beside it and however its prompt was cut into chunks (float32, CPU). Three measured facts carry this:
- a row of a matrix product is the same in every product of 4, 8, 12, ... rows, and differs below (so rows are padded);
- rows of one fused attention call do not depend on each other;
- they do depend, by 1e-7, on how many keys the call is given (so a token at a given position always gets the same
  number of keys: the `window` of its position, the ones that lie after it masked).
Paged attention: arXiv:2309.06180. Shapes: `N` tokens of the step, `S` spans, `T` tokens of each, `W` keys, `H` query
heads, `K` key heads, `G` query heads per key head, `C` head size.
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from caslon.engine.request import Sequence
from caslon.engine.scheduler import StepPlan
from caslon.model.config import DecoderConfig

SMALLEST_WINDOW = 64
GATHERED_BYTES = 2 * 2**20  # per thread; what one attention call reads then stays in the processor's cache (measured:
# 32 sequences of 256 tokens 5.8 ms in one call, 3.4 ms in eight)


def padded_rows(rows: int, multiple: int) -> int:
    """Return `rows` rounded up; with `decoder.ROW_MULTIPLE` each row's result in a matrix product is its own affair."""
    return -(-rows // multiple) * multiple


def window(position: int) -> int:
    """Return how many keys the token at a position is given: 64, 128, ... 512, 640, ... in steps of an eighth or more.

    Coarser steps for longer contexts keep the number of different windows, and so of attention calls, small.
    """
    step = max(SMALLEST_WINDOW, (1 << position.bit_length()) // 8)
    return (position // step + 1) * step


class PagedCache:
    """Keys and values of all blocks of all layers, in one tensor."""

    def __init__(
        self, config: DecoderConfig, blocks: int, block_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (config.num_hidden_layers, 2, blocks, block_tokens, config.num_key_value_heads, config.head_dim)
        self.memory = torch.zeros(shape, dtype=dtype, device=device)
        self.block_tokens = block_tokens
        self.layers = [_Layer(layer.flatten(1, 2), layer.flatten(2)) for layer in self.memory]

    @property
    def bytes(self) -> int:
        """Return the size of the cache."""
        return self.memory.nbytes

    def attention(self, plan: StepPlan, query_groups: int, row_multiple: int) -> "StepAttention":
        """Return the attention of one step, which also stores the new keys and values."""
        return StepAttention(self, plan, query_groups, row_multiple)


@dataclass(frozen=True)
class _Layer:
    slots: Tensor  # [2, blocks x block_tokens, K, C], for writing
    blocks: Tensor  # [2, blocks, block_tokens x K x C], for reading


@dataclass(frozen=True)
class _Span:
    """Tokens of one sequence that lie side by side in the step and share a window."""

    sequence: Sequence
    row: int
    start: int


@dataclass(frozen=True)
class _Read:
    """Spans of equal length and window: one call of the attention kernel."""

    rows: Tensor  # [S x T] where the spans' tokens lie in the step; short spans repeat their last token
    blocks: Tensor  # [S x blocks per window]
    mask: Tensor  # [S, 1, T x G, W], 0 or minus infinity
    spans: int
    window: int


class StepAttention:
    """The `Attend` of one step: stores the new keys and values, then lets every token look at its own sequence."""

    def __init__(self, cache: PagedCache, plan: StepPlan, query_groups: int, row_multiple: int) -> None:
        self._row_multiple = row_multiple
        self._cache = cache
        self._groups = query_groups
        self._device = cache.memory.device
        self._slots = self._tensor(
            [slot for chunk in plan for slot in self._slots_of(chunk.sequence, chunk.start, chunk.end)]
        )
        spans: dict[tuple[int, int], list[_Span]] = defaultdict(list)
        row = 0
        for chunk in plan:
            start = chunk.start
            while start < chunk.end:
                keys = window(start)
                end = min(chunk.end, keys)
                spans[keys, end - start].append(_Span(chunk.sequence, row, start))
                row += end - start
                start = end
        self._reads = [
            self._read(part, keys, tokens)
            for (keys, tokens), group in spans.items()
            for part in self._split(group, keys)
        ]

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the mixed values [1, H, N, C]; rows beyond the step's tokens are padding and stay zero."""
        memory = self._cache.layers[layer]
        tokens = self._slots.numel()
        memory.slots[0].index_copy_(0, self._slots, keys[0].transpose(0, 1)[:tokens])
        memory.slots[1].index_copy_(0, self._slots, values[0].transpose(0, 1)[:tokens])
        flat = queries[0].transpose(0, 1)  # [N, H, C]
        mixed = torch.zeros_like(flat, memory_format=torch.contiguous_format)
        for read in self._reads:
            mixed.index_copy_(0, read.rows, self._attend(memory, read, flat.index_select(0, read.rows)))
        return mixed.transpose(0, 1).unsqueeze(0)

    def _attend(self, memory: _Layer, read: _Read, queries: Tensor) -> Tensor:
        """Return the mixed values [S x T, H, C] of the rows of one read."""
        spans, head_size = read.spans, queries.shape[-1]
        gathered = memory.blocks.index_select(1, read.blocks)  # [2, S x blocks, block_tokens x K x C]
        key_heads = queries.shape[1] // self._groups
        stored = gathered.view(2, spans, -1, key_heads, head_size)[:, :, : read.window].transpose(
            2, 3
        )  # [2, S, K, W, C]
        grouped = queries.view(spans, -1, key_heads, self._groups, head_size).transpose(1, 2)  # [S, K, T, G, C]
        asked = grouped.reshape(spans, key_heads, -1, head_size)  # [S, K, T x G, C]
        mixed = F.scaled_dot_product_attention(asked, stored[0], stored[1], attn_mask=read.mask)
        return mixed.view(grouped.shape).transpose(1, 2).reshape(queries.shape)

    def _split(self, spans: list[_Span], keys: int) -> list[list[_Span]]:
        """Return the spans in groups that read no more at once than a CPU's cache can hold."""
        if self._device.type != "cpu":
            return [spans]
        memory = self._cache.memory
        bytes_each = 2 * keys * memory.shape[-1] * memory.shape[-2] * memory.itemsize
        most = max(1, GATHERED_BYTES * torch.get_num_threads() // bytes_each)
        return [spans[first : first + most] for first in range(0, len(spans), most)]

    def _read(self, spans: list[_Span], keys: int, tokens: int) -> _Read:
        groups = self._groups
        rows_each = tokens
        while rows_each * groups % self._row_multiple:
            rows_each += 1
        steps = torch.arange(rows_each).clamp_(max=tokens - 1)  # [T]
        rows = torch.tensor([span.row for span in spans])[:, None] + steps  # [S, T]
        positions = torch.tensor([span.start for span in spans])[:, None] + steps  # [S, T]
        later = torch.arange(keys) > positions.repeat_interleave(groups, dim=1)[:, None, :, None]  # [S, 1, T x G, W]
        mask = torch.zeros(later.shape, dtype=self._cache.memory.dtype).masked_fill_(later, -torch.inf)
        blocks_each = -(-keys // self._cache.block_tokens)
        # what lies after a sequence's last block is masked; its last block stands there
        tables = [span.sequence.blocks[:blocks_each] for span in spans]
        blocks = [block for table in tables for block in table + table[-1:] * (blocks_each - len(table))]
        return _Read(rows.flatten().to(self._device), self._tensor(blocks), mask.to(self._device), len(spans), keys)

    def _slots_of(self, sequence: Sequence, start: int, end: int) -> list[int]:
        size = self._cache.block_tokens
        return [sequence.blocks[position // size] * size + position % size for position in range(start, end)]

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=self._device)
