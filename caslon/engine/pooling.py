"""A text's hidden states to one vector of length one, however many steps the text took.

The mean over all tokens, or the last token's state, which is the only one of a decoder that has seen the whole text. A decoder's
first token has seen nothing but itself, so there is no pooling by the first.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from caslon.engine.request import InvalidParameter

PoolingKind = Literal["mean", "last"]


class Pooled:
    """What is known of a text's vector so far. States computed twice, after a preemption, count once."""

    def __init__(self, kind: PoolingKind) -> None:
        if kind not in get_args(PoolingKind):
            raise InvalidParameter("pooling", kind, " or ".join(get_args(PoolingKind)))
        self._kind = kind
        self._tokens = 0
        self._sum = torch.zeros(1)
        self._last = torch.zeros(1)

    def add(self, start: int, states: Tensor) -> None:
        """Take the states [T, D] of the tokens from position `start` on."""
        new = states[max(0, self._tokens - start) :].float()
        if len(new):
            self._sum = self._sum + new.sum(0)
            self._last = new[-1].clone()
            self._tokens += len(new)

    def vector(self) -> Tensor:
        """Return the vector [D] in float32, of length one, on the CPU."""
        return unit(self._last if self._kind == "last" else self._sum).cpu()


def unit(vectors: Tensor) -> Tensor:
    """Return vectors [..., D] with length one."""
    return torch.nn.functional.normalize(vectors, dim=-1)
