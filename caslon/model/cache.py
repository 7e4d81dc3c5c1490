"""The plainest generation there is: a dense key-value cache and the most probable token, one at a time.

The engine's paged, batched generation is tested against this, so it is written to be obviously right, not fast.
"""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from caslon.errors import UserError
from caslon.model.decoder import Decoder


class PlainCache:
    """An `Attend` that remembers all keys and values it has seen, `[B, K, tokens so far, C]` for each layer."""

    def __init__(self) -> None:
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    @property
    def length(self) -> int:
        """How many tokens are remembered: the position of the next one."""
        return self._keys[0].shape[2] if self._keys else 0

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return attention of the new tokens over the remembered and the new ones, which are remembered then."""
        if layer in self._keys:
            keys = torch.cat((self._keys[layer], keys), dim=2)
            values = torch.cat((self._values[layer], values), dim=2)
        self._keys[layer], self._values[layer] = keys, values
        new, total = queries.shape[2], keys.shape[2]
        mask = torch.ones(new, total, dtype=torch.bool, device=queries.device).tril(total - new)
        grouped = queries.shape[1] != keys.shape[1]
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=grouped)


@torch.inference_mode()
def greedy_decode(
    decoder: Decoder, ids: Sequence[int], new_tokens: int, *, stop_ids: Collection[int] = ()
) -> list[int]:
    """Return up to `new_tokens` most probable ids after a prompt; a stop id ends the list and is part of it."""
    limit = decoder.config.max_position_embeddings
    if len(ids) + new_tokens - 1 > limit:
        raise UserError(
            f"a prompt of {len(ids)} tokens and {new_tokens} new ones do not fit the model's {limit} positions",
            fix=f"ask for at most {max(0, limit + 1 - len(ids))} new tokens",
        )
    was_training = decoder.training
    decoder.eval()
    cache = PlainCache()
    fresh, found = list(ids), list[int]()
    while len(found) < new_tokens:
        positions = torch.arange(cache.length, cache.length + len(fresh), device=decoder.device)[None]
        hidden = decoder(torch.tensor([fresh], device=decoder.device), positions, cache)
        fresh = [int(decoder.logits(hidden[0, -1]).argmax())]
        found += fresh
        if fresh[0] in stop_ids:
            break
    decoder.train(was_training)
    return found
