"""Byte values to hidden states by the networks that came before transformers: Bengio's MLP, Elman's RNN, the LSTM.

They answer the two calls a decoder answers, hidden states for ids and scores for hidden states, so the training loop and the
optimiser are the decoder's. Sources: Bengio et al. 2003 (MLP over concatenated embeddings), Elman 1990,
Hochreiter & Schmidhuber 1997.

Legend: `B` rows, `T` bytes of a row, `D` width, `E` embedding width, `K` bytes the MLP looks back.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caslon.ladder.rung import SYMBOLS

N = TypeVar("N", bound=nn.Module)

NOTHING = SYMBOLS  # the embedding that stands for places before the first byte


class ByteNetwork(nn.Module):
    """Embeddings, a body that turns them into hidden states, and a head for the 256 bytes."""

    checkpoint_every = 0  # the loop may set it; these networks are too small to need it

    def __init__(self, embedding_width: int, width: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(SYMBOLS + 1, embedding_width)
        self.lm_head = nn.Linear(width, SYMBOLS, bias=False)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the scores `[..., 256]` of the next byte for hidden states `[..., D]`."""
        return cast(Tensor, self.lm_head(hidden))

    @property
    def device(self) -> torch.device:
        """The device the weights lie on."""
        return self.lm_head.weight.device


class MultilayerPerceptron(ByteNetwork):
    """The last K embeddings side by side, through one hidden layer: order counts, but only K bytes of it."""

    def __init__(self, back: int, embedding_width: int, width: int) -> None:
        super().__init__(embedding_width, width)
        self.back = back
        self.hidden = nn.Linear(back * embedding_width, width)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the hidden states `[B, T, D]` for ids `[B, T]`."""
        padded = F.pad(ids, (self.back - 1, 0), value=NOTHING)
        windows = padded.unfold(1, self.back, 1)  # [B, T, K]
        return torch.tanh(self.hidden(self.embed_tokens(windows).flatten(2)))


class Recurrent(ByteNetwork):
    """A state that is carried from byte to byte, by tanh or by the gates of an LSTM."""

    def __init__(self, kind: Callable[..., nn.Module], embedding_width: int, width: int) -> None:
        super().__init__(embedding_width, width)
        self.recurrent = kind(embedding_width, width, batch_first=True)
        if isinstance(self.recurrent, nn.LSTM):  # remember at first; arXiv:1412.3555 and Gers et al. 2000
            nn.init.ones_(dict(self.recurrent.named_parameters())["bias_ih_l0"][width : 2 * width])

    def forward(self, ids: Tensor) -> Tensor:
        """Return the hidden states `[B, T, D]` for ids `[B, T]`, from an empty state at the beginning of each row."""
        return cast(Tensor, self.recurrent(self.embed_tokens(ids))[0])


def built(make: Callable[[], N], seed: int) -> N:
    """Return a network whose weights come from the seed; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
