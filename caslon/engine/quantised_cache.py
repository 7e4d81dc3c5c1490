"""A key-value cache in eight or four bits, but for each sequence's newest 64 tokens, and the attention over it.

Which version of a key a token sees depends on positions alone: blocks whose tokens are all older than that token's newest 64
are seen quantised, the rest as they were computed. So an answer does not depend on how its prompt was cut into chunks, but
for roundings of sums that differ in the last digit. The newest
tokens of a sequence lie in a ring of their own; blocks that another prompt filled could not be continued from there, so this
cache reuses no prefixes.

Shapes: `N` tokens of the step, `T` tokens of one sequence in it, `H` query heads, `K` key heads, `C` head size, `L` layers.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from caslon.engine.kv_codes import Codes, coded_keys, coded_values, decoded
from caslon.engine.planner import RECENT_TOKENS
from caslon.engine.request import Sequence
from caslon.engine.scheduler import StepPlan
from caslon.model.attention import Attend
from caslon.model.config import DecoderConfig


class QuantisedCache:
    """Codes of all blocks of all layers, and a ring of newest tokens for each of `sequences` running ones."""

    def __init__(
        self,
        config: DecoderConfig,
        blocks: int,
        block_tokens: int,
        bits: int,
        dtype: torch.dtype,
        device: torch.device,
        sequences: int,
    ) -> None:
        self.block_tokens, self.bits, self.dtype, self.device = block_tokens, bits, dtype, device
        layers, heads, size = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
        self.ring_tokens = RECENT_TOKENS + 2 * block_tokens  # a block for drafted tokens that may be taken back
        codes = (2, layers, blocks, block_tokens, heads, size * bits // 8)
        self._codes = torch.zeros(codes, dtype=torch.int8 if bits == 8 else torch.uint8, device=device)
        self._key_scales = torch.zeros((layers, blocks, 1, heads, size), dtype=torch.bfloat16, device=device)
        self._value_scales = torch.zeros((layers, blocks, block_tokens, heads, 1), dtype=torch.bfloat16, device=device)
        self._recent = torch.zeros((layers, 2, sequences, self.ring_tokens, heads, size), dtype=dtype, device=device)
        self._rings: dict[Sequence, int] = {}
        self._free_rings = list(range(sequences))

    @property
    def bytes(self) -> int:
        """Return the size of the cache."""
        return sum(part.nbytes for part in (self._codes, self._key_scales, self._value_scales, self._recent))

    def attention(self, plan: StepPlan, query_groups: int, row_multiple: int) -> Attend:
        """Return the attention of one step, which also stores the new keys and values."""
        spans, row = [], 0
        for chunk in plan:
            spans.append(self._span(chunk.sequence, row, chunk.start, chunk.end))
            row += chunk.end - chunk.start

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            mixed = torch.zeros_like(queries)
            for span in spans:
                rows = slice(span.row, span.row + span.tokens)
                mixed[:, :, rows] = self._attend(layer, span, queries[:, :, rows], keys[0, :, rows], values[0, :, rows])
            return mixed

        return attend

    def quantised_blocks(self, position: int) -> int:
        """Return how many blocks the token at a position sees quantised."""
        return max(0, (position + 1 - RECENT_TOKENS) // self.block_tokens)

    def _span(self, sequence: Sequence, row: int, start: int, end: int) -> "_Span":
        before, after = self.quantised_blocks(start - 1), self.quantised_blocks(end - 1)
        first = before * self.block_tokens
        positions = torch.arange(start, end)[:, None]
        seen = torch.clamp((positions + 1 - RECENT_TOKENS) // self.block_tokens, min=0)
        kept = torch.arange(first, end)[None]
        from_codes = torch.arange(after * self.block_tokens)[None] // self.block_tokens < seen
        from_kept = (kept <= positions) & (kept // self.block_tokens >= seen)
        return _Span(
            row=row,
            tokens=end - start,
            ring=self._ring(sequence),
            earlier=(torch.arange(first, start) % self.ring_tokens).to(self.device),
            places=(torch.arange(max(first, end - self.ring_tokens), end) % self.ring_tokens).to(self.device),
            new_blocks=torch.tensor(sequence.blocks[before:after], dtype=torch.long, device=self.device),
            blocks=torch.tensor(sequence.blocks[:after], dtype=torch.long, device=self.device),
            mask=torch.cat((from_codes, from_kept), 1).to(self.device),
        )

    def _attend(self, layer: int, span: "_Span", queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the mixed values [1, H, T, C] of one sequence's tokens."""
        ring = self._recent[layer, :, span.ring]  # [2, ring, K, C]
        new = torch.stack((keys, values)).transpose(1, 2)  # [2, T, K, C]
        kept = torch.cat((ring[:, span.earlier], new), 1)
        self._store(layer, span.new_blocks, kept)
        ring[:, span.places] = kept[:, len(kept[0]) - len(span.places) :]
        stored = torch.stack(
            (
                decoded(Codes(self._codes[0, layer, span.blocks], self._key_scales[layer, span.blocks]), self.dtype),
                decoded(Codes(self._codes[1, layer, span.blocks], self._value_scales[layer, span.blocks]), self.dtype),
            )
        ).flatten(1, 2)  # [2, blocks x tokens, K, C]
        whole = torch.cat((stored, kept), 1).transpose(1, 2)[:, None]  # [2, 1, K, W, C]
        grouped = queries.shape[1] != whole.shape[2]
        return F.scaled_dot_product_attention(queries, whole[0], whole[1], attn_mask=span.mask, enable_gqa=grouped)

    def _store(self, layer: int, blocks: Tensor, kept: Tensor) -> None:
        """Quantise the oldest of the kept tokens into blocks that became old enough."""
        if not len(blocks):
            return
        old = kept[:, : len(blocks) * self.block_tokens]
        old = old.view(2, len(blocks), self.block_tokens, *old.shape[2:])
        keys, values = coded_keys(old[0], self.bits), coded_values(old[1], self.bits)
        self._codes[0, layer, blocks], self._key_scales[layer, blocks] = keys
        self._codes[1, layer, blocks], self._value_scales[layer, blocks] = values

    def _ring(self, sequence: Sequence) -> int:
        if sequence not in self._rings:
            for ended in [other for other in self._rings if not other.blocks]:  # ended, or preempted and begun anew
                self._free_rings.append(self._rings.pop(ended))
            self._rings[sequence] = self._free_rings.pop()
        return self._rings[sequence]


@dataclass(frozen=True)
class _Span:
    """The tokens of one sequence in a step: where they lie, and what they see."""

    row: int
    tokens: int
    ring: int
    earlier: Tensor  # places in the ring of the tokens before, from the first that is not seen quantised by all
    places: Tensor  # places in the ring for the newest tokens
    new_blocks: Tensor  # blocks that are quantised in this step
    blocks: Tensor  # all blocks that are quantised after this step
    mask: Tensor  # [T, quantised + kept], true where a token looks
