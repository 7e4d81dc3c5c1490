"""A key-value cache that forgets: each sequence keeps a bounded number of tokens, chosen by a policy. Answers change with it.

`window:N` keeps the first 4 tokens, on which attention rests whatever they say, and the newest N (StreamingLLM,
arXiv:2309.17453). `heavy_hitter:N` keeps N: the newest half, and of the others those that got the most attention so far,
summed over layers and heads (H2O, arXiv:2306.14048). Kept tokens stay in order and keep the positions at which their keys
were rotated. A sequence's tokens lie side by side in its blocks; they are moved together before a step whenever a block's
worth can be forgotten.

Shapes: `T` tokens of one sequence in the step, `W` tokens it holds, `H` query heads, `K` key heads, `C` head size.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from caslon.engine.request import Sequence
from caslon.engine.scheduler import StepPlan
from caslon.engine.settings import Retention
from caslon.model.attention import Attend
from caslon.model.config import DecoderConfig


@dataclass
class _Held:
    """What a sequence holds: the true positions [W] of its tokens in order, and the attention each got."""

    positions: Tensor
    attention: Tensor
    blocks: list[int]


class RetainedCache:
    """Keys and values of all blocks of all layers, of which each sequence uses as many as its policy needs."""

    def __init__(
        self,
        config: DecoderConfig,
        blocks: int,
        block_tokens: int,
        retention: Retention,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (config.num_hidden_layers, 2, blocks * block_tokens, config.num_key_value_heads, config.head_dim)
        self.memory = torch.zeros(shape, dtype=dtype, device=device)
        self.block_tokens, self.retention = block_tokens, retention
        self._held: dict[Sequence, _Held] = {}

    @property
    def bytes(self) -> int:
        """Return the size of the cache."""
        return self.memory.nbytes

    def positions(self, sequence: Sequence) -> list[int]:
        """Return the positions of the tokens that a running sequence holds."""
        return [int(position) for position in self._held[sequence].positions]

    def attention(self, plan: StepPlan, query_groups: int, row_multiple: int) -> Attend:
        """Return the attention of one step, which also stores the new keys and values."""
        self._held = {sequence: held for sequence, held in self._held.items() if sequence.blocks}
        spans, row = [], 0
        for chunk in plan:
            held = self._ready(chunk.sequence, chunk.start)
            new = torch.arange(chunk.start, chunk.end)
            held.positions = torch.cat((held.positions, new))
            held.attention = torch.cat((held.attention, torch.zeros(len(new))))
            spans.append((row, len(new), held, self._slots(held), self._mask(held.positions, new)))
            row += len(new)

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            mixed = torch.zeros_like(queries)
            for row, tokens, held, slots, mask in spans:
                rows = slice(row, row + tokens)
                new = torch.stack((keys[0, :, rows], values[0, :, rows])).transpose(1, 2)  # [2, T, K, C]
                self.memory[layer, :, slots[-tokens:]] = new
                stored = self.memory[layer][:, slots].transpose(1, 2)[:, None]  # [2, 1, K, W, C]
                mixed[:, :, rows] = self._attend(held, queries[:, :, rows], stored, mask)
            return mixed

        return attend

    def _attend(self, held: _Held, queries: Tensor, stored: Tensor, mask: Tensor) -> Tensor:
        grouped = queries.shape[1] != stored.shape[2]
        if self.retention.kind == "heavy_hitter":
            keys = stored[0].repeat_interleave(queries.shape[1] // stored.shape[2], dim=1)
            scores = (queries @ keys.mT) * queries.shape[-1] ** -0.5
            weights = scores.float().masked_fill(~mask, -torch.inf).softmax(-1)  # [1, H, T, W]
            held.attention += weights.sum((0, 1, 2)).cpu()
        return F.scaled_dot_product_attention(queries, stored[0], stored[1], attn_mask=mask, enable_gqa=grouped)

    def _ready(self, sequence: Sequence, start: int) -> _Held:
        """Return what a sequence holds of the tokens before `start`, moved together if it may forget a block's worth."""
        held = self._held.get(sequence)
        if held is None or start == 0:
            held = _Held(torch.empty(0, dtype=torch.long), torch.empty(0), sequence.blocks)
        known = held.positions < start  # drafted tokens that were not taken
        held.positions, held.attention = held.positions[known], held.attention[known]
        held.blocks = sequence.blocks
        if len(held.positions) >= self.retention.kept_tokens + self.block_tokens:
            self._forget(held, self._chosen(held))
        self._held[sequence] = held
        return held

    def _chosen(self, held: _Held) -> Tensor:
        """Return the places of the tokens that stay, in order."""
        count, keep = len(held.positions), self.retention
        places = torch.arange(count)
        if keep.kind == "window":
            return places[(held.positions < keep.first_tokens) | (places >= count - keep.tokens)]
        newest = keep.tokens - keep.tokens // 2
        older = held.attention[: count - newest].topk(keep.tokens - newest).indices
        return torch.cat((older.sort().values, places[count - newest :]))

    def _forget(self, held: _Held, stay: Tensor) -> None:
        slots = self._slots(held)
        moved = self.memory[:, :, slots[stay.to(slots.device)]]
        self.memory[:, :, slots[: len(stay)]] = moved
        held.positions, held.attention = held.positions[stay], held.attention[stay]

    def _mask(self, positions: Tensor, new: Tensor) -> Tensor:
        """Return [T, W], true where a new token looks: nothing later, in a window nothing that has left it."""
        seen = positions[None] <= new[:, None]
        if self.retention.kind == "window":
            in_window = positions[None] > new[:, None] - self.retention.tokens
            seen &= in_window | (positions[None] < self.retention.first_tokens)
        return seen.to(self.memory.device)

    def _slots(self, held: _Held) -> Tensor:
        places = torch.arange(len(held.positions))
        blocks = torch.tensor(held.blocks)
        return (blocks[places // self.block_tokens] * self.block_tokens + places % self.block_tokens).to(
            self.memory.device
        )
