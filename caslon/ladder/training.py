"""Training bytes and a network to a byte model: through the package's training loop, at random windows of the text.

Scoring reads windows that overlap by half, so that every byte but the first ones has at least half a window before it. What a
byte costs depends on the bytes before it alone, so the probabilities of all texts sum to one.

Legend: `B` windows, `T` bytes of a window.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from caslon.ladder.loop import loop_plan, train_by_loop
from caslon.ladder.networks import ByteNetwork, MultilayerPerceptron, Recurrent, built
from caslon.ladder.next_byte import NextByte
from caslon.ladder.rung import SYMBOLS, Floats
from caslon.model.config import DecoderConfig, Family
from caslon.model.decoder import Decoder
from caslon.observe.events import EventLog
from caslon.train.batches import Documents, WindowBatches
from caslon.train.objectives import NextToken

Kind = Literal["mlp", "rnn", "lstm", "gpt2", "llama"]

WINDOWS_AT_ONCE = 64
START = 0  # the byte that stands before a text without any context
SMALLEST_SHARE = 1e-12  # single precision rounds the smallest shares to nothing


class Network(Protocol):
    """What is trained: hidden states for ids, scores for hidden states."""

    def __call__(self, ids: Tensor) -> Tensor:
        """Return hidden states `[B, T, D]` for ids `[B, T]`."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores `[..., 256]`."""

    def parameters(self) -> Any:
        """Return the weights."""


@dataclass(frozen=True)
class NetworkSettings:
    """What is built and how it learns; `back` is the number of bytes an MLP sees, `layers` counts a transformer's."""

    kind: Kind
    width: int = 256
    embedding_width: int = 64
    back: int = 8
    layers: int = 4
    context: int = 128
    batch: int = 32
    steps: int = 1_500
    learning_rate: float = 3e-3
    optimizer: Literal["adamw", "muon"] = "adamw"
    precision: Literal["auto", "fp32"] = "fp32"
    seed: int = 1


def network(settings: NetworkSettings) -> nn.Module:
    """Return the untrained network, its weights from the seed alone."""
    width, embedding = settings.width, settings.embedding_width
    if settings.kind == "mlp":
        return built(lambda: MultilayerPerceptron(settings.back, embedding, width), settings.seed)
    if settings.kind in ("rnn", "lstm"):
        cell = nn.RNN if settings.kind == "rnn" else nn.LSTM
        return built(lambda: Recurrent(cell, embedding, width), settings.seed)
    decoder = Decoder(
        DecoderConfig.from_depth(
            settings.layers,
            family=cast(Family, settings.kind),
            vocab_size=SYMBOLS,
            context=settings.context,
            hidden_size=width,
        )
    )
    decoder.initialise(settings.seed)
    return decoder


def train_network(text: bytes, settings: NetworkSettings, folder: Path, events: EventLog) -> "NetworkModel":
    """Return the model trained on a text; `folder` is used for the loop's checkpoints and removed."""
    module = network(settings)
    if len(text) > settings.context:
        train_by_loop(
            module,
            NextByte() if isinstance(module, ByteNetwork) else NextToken(),
            WindowBatches(as_document(text), settings.context, settings.seed),
            loop_plan(
                steps=settings.steps,
                batch=settings.batch,
                context=settings.context,
                learning_rate=settings.learning_rate,
                optimizer=settings.optimizer,
                seed=settings.seed,
            ),
            folder,
            events,
            precision=settings.precision,
        )
    return NetworkModel(cast(Network, module.eval()), settings.context)


def as_document(text: bytes) -> Documents:
    """Return a text as one document of byte values."""
    ids = np.frombuffer(text, dtype=np.uint8)
    return Documents(ids, np.array([0, ids.size], dtype=np.int64), end_id=START)


@dataclass(frozen=True)
class NetworkModel:
    """A trained network that reads at most `context` bytes."""

    network: Network
    context: int

    @property
    def numbers(self) -> int:
        """How many parameters there are."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def probabilities(self, context: bytes, text: bytes) -> Floats:
        """Return the probability of each byte of `text` after `context` and the bytes before it."""
        symbols = np.frombuffer(self._before(context) + text, dtype=np.uint8).astype(np.int64)
        found = np.empty(len(text))
        for group in _like(windows(symbols.size, len(text), self.context)):
            shares = self._shares(torch.from_numpy(np.stack([symbols[start : end - 1] for start, end, _ in group])))
            for row, (_, end, scored) in zip(shares, group, strict=True):
                targets = symbols[end - scored : end]
                last = row[row.shape[0] - scored :]
                place = end - scored - (symbols.size - len(text))
                found[place : place + scored] = last[np.arange(scored), targets]
        return found

    def distribution(self, context: bytes) -> Floats:
        """Return the probability `[256]` of each byte to come next."""
        ids = np.frombuffer(self._before(context), dtype=np.uint8).astype(np.int64)
        last: Floats = self._shares(torch.from_numpy(ids)[None])[0, -1]
        return last

    def _before(self, context: bytes) -> bytes:
        return context[-self.context :] or bytes([START])

    @torch.no_grad()
    def _shares(self, ids: Tensor) -> Floats:
        """Return the distributions `[B, T, 256]`, which sum to one in double precision."""
        logits = self.network.logits(self.network(ids.to(next(self.network.parameters()).device)))
        shares = torch.softmax(logits.double(), dim=-1) + SMALLEST_SHARE
        return cast(Floats, (shares / shares.sum(dim=-1, keepdim=True)).cpu().numpy())


def windows(length: int, text: int, context: int) -> list[tuple[int, int, int]]:
    """Return `(start, end, scored)` of the windows over the last `text` of `length` bytes.

    A window reads the bytes from `start` to before `end - 1` and scores the last `scored` before `end`: at most half a context.
    """
    found = []
    done = length - text
    while done < length:
        end = min(length, done + max(1, context // 2))
        found.append((max(0, end - 1 - context), end, end - done))
        done = end
    return found


def _like(all_windows: list[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
    """Return windows of one length together, so many as are read at once."""
    groups: list[list[tuple[int, int, int]]] = []
    for window in all_windows:
        last = groups[-1] if groups else []
        if last and len(last) < WINDOWS_AT_ONCE and last[0][1] - last[0][0] == window[1] - window[0]:
            last.append(window)
        else:
            groups.append([window])
    return groups
