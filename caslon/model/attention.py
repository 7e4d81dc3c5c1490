"""Who looks at whom: the ways in which the decoder's attention may be computed.

A decoder hands rotated queries, keys and values to an `Attend` and gets back the mixed values; what is masked, cached or
recorded is the callable's affair. Scores are divided by the square root of the head size ("Attention Is All You Need",
arXiv:1706.03762). Shapes: `B` sequences, `T` tokens, `H` query heads, `K` key heads (`H` is a multiple of `K`), `C` head size.
"""

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

# At 256 tokens, two threads and four heads of 64: 4 ms forward and back, 13 ms with torch's kernel. Memory grows with the square.
LONGEST_WRITTEN_OUT = 512

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""`(layer, queries [B, H, T, C], keys [B, K, T, C], values [B, K, T, C]) -> [B, H, T, C]`."""


def causal(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return plain causal attention: every token sees itself and all before it in its row."""
    length = queries.shape[2]
    if length == keys.shape[2] and _pays_written_out(queries):
        ahead = torch.full((length, length), -torch.inf, dtype=queries.dtype, device=queries.device).triu(1)
        return _written_out(queries, keys, values, ahead)
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, enable_gqa=_is_grouped(queries, keys))


def document_mask(document_ids: Tensor) -> Tensor:
    """Return `[B, 1, T, T]`, true where a token (row) may look at another (column): same document, not later."""
    length = document_ids.shape[1]
    same = document_ids[:, None, :, None] == document_ids[:, None, None, :]
    return same & torch.ones(length, length, dtype=torch.bool, device=document_ids.device).tril()


def document_attention(document_ids: Tensor, document_starts: Tensor | None = None) -> Attend:
    """Return causal attention that never crosses a document; `document_ids` is `[B, T]`, equal within a document.

    With `document_starts` (`[N + 1]` places in the flattened rows) it is flash attention of sequences of many lengths, which
    needs a GPU and 16-bit numbers; `document_ids` then says no more than how long a row is.
    """
    if document_starts is not None:
        return partial(_flash_attention, document_starts, document_ids.shape[1])
    return masked(document_mask(document_ids))


@cache
def _varlen() -> tuple[Callable[..., Tensor], dict[str, Any]]:
    """Return torch's flash attention of many lengths and what makes it causal. Its import takes a second (the compiler)."""
    from torch.nn.attention.varlen import varlen_attn

    # torch before 2.12 has a flag for what later versions say by the window.
    has_flag = "is_causal" in inspect.signature(varlen_attn).parameters
    return cast(Callable[..., Tensor], varlen_attn), {"is_causal": True} if has_flag else {"window_size": (-1, 0)}


def _flash_attention(starts: Tensor, longest: int, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return causal attention within each sequence of the flattened rows."""
    flat = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (queries, keys, values)]  # [B T, H or K, C]
    repeats = queries.shape[1] // keys.shape[1]
    if repeats > 1:
        flat[1:] = [tensor.repeat_interleave(repeats, dim=1) for tensor in flat[1:]]
    attention, causally = _varlen()
    mixed = attention(*flat, starts, starts, longest, longest, **causally)  # [B T, H, C]
    return mixed.view(queries.shape[0], -1, *mixed.shape[1:]).transpose(1, 2)


def masked(mask: Tensor) -> Attend:
    """Return attention under a boolean mask that broadcasts to `[B, H, T, S]`; true means that it may be looked at."""
    # Added once per batch, not once per layer: the kernels add a float mask to the scores.
    bias = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)

    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        added = bias.to(queries.dtype)
        if _pays_written_out(queries):
            return _written_out(queries, keys, values, added)
        grouped = _is_grouped(queries, keys)
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=added, enable_gqa=grouped)

    return attend


def _pays_written_out(queries: Tensor) -> bool:
    """Return whether training is faster with all scores kept: in bf16 on a CPU, where torch's kernel is slow, in short rows."""
    is_short = queries.shape[2] <= LONGEST_WRITTEN_OUT
    return queries.requires_grad and queries.dtype == torch.bfloat16 and queries.device.type == "cpu" and is_short


def _written_out(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """Return attention as two products around a softmax."""
    repeats = queries.shape[1] // keys.shape[1]
    if repeats > 1:
        keys, values = keys.repeat_interleave(repeats, dim=1), values.repeat_interleave(repeats, dim=1)
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.mT + bias  # [B, H, T, T]
    mixed: Tensor = scores.softmax(dim=-1) @ values
    return mixed


def attention_weights(
    queries: Tensor, keys: Tensor, mask: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """Return the shares `[B, H, T, S]` with which each token mixes the others, written out step by step."""
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
    scores = queries @ keys.transpose(-2, -1) * (queries.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1, dtype=torch.float32).to(queries.dtype)


def reference_attention(
    queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """Return attention `[B, H, T, C]` from its definition: slow, and what the fast kernels are tested against."""
    values = values.repeat_interleave(queries.shape[1] // values.shape[1], dim=1)
    return attention_weights(queries, keys, mask, scale=scale) @ values


def _is_grouped(queries: Tensor, keys: Tensor) -> bool:
    return queries.shape[1] != keys.shape[1]


class AttentionMaps:
    """An `Attend` that keeps every map: `maps[layer]` is `[B, H, T, T]`, whatever kernel is used elsewhere."""

    def __init__(self, document_ids: Tensor | None = None) -> None:
        self.maps: dict[int, Tensor] = {}
        self._mask = None if document_ids is None else document_mask(document_ids)

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the attention of one layer and keep its map."""
        mask = self._mask
        if mask is None:
            length = queries.shape[2]
            mask = torch.ones(length, length, dtype=torch.bool, device=queries.device).tril()
        self.maps[layer] = attention_weights(queries, keys, mask)
        return self.maps[layer] @ values.repeat_interleave(queries.shape[1] // values.shape[1], dim=1)
