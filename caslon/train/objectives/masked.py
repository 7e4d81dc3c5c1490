"""Rows of ids with some hidden to the cross-entropy of what was hidden: `mlm`, for encoders (arXiv:1810.04805).

Of the tokens that are not special 15 % are chosen; of those 80 % become the mask token, 10 % a random one and 10 % stay. What is
chosen follows from (seed, row), so every epoch hides others and a resumed run the same ones.

Legend: `B` rows, `T` tokens of a row, `V` vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from caslon.model.encoder import Encoder
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.batches import Batch, uniform
from caslon.train.objectives.head_loss import head_loss
from caslon.train.objectives.objective import LossSum

HIDDEN_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the chosen tokens
DRAW_KEY, PAIR_KEY = 2, 3  # keep these draws apart from those of rows
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What masking must know of each id, as arrays `[V]`."""

    mask_id: int
    end_id: int
    ordinary: NDArray[np.int64]  # the ids that are not special
    is_ordinary: Flags
    begins_inside: Flags  # the token's first byte is of a word
    ends_inside: Flags

    @staticmethod
    def of(tokenizer: Tokenizer, mask_token: str) -> "Vocabulary":
        """Return it for a tokenizer; `UserError` when that has no mask token."""
        size, special = tokenizer.vocab_size, tokenizer.special_ids
        texts = [b"" if id in special else tokenizer.token_bytes(id) for id in range(size)]
        is_ordinary = np.array([id not in special for id in range(size)])
        return Vocabulary(
            mask_id=tokenizer.id_of(mask_token),
            end_id=tokenizer.end_of_text_id,
            ordinary=np.flatnonzero(is_ordinary),
            is_ordinary=is_ordinary,
            begins_inside=np.array([_is_of_word(text[:1]) for text in texts]),
            ends_inside=np.array([_is_of_word(text[-1:]) for text in texts]),
        )


def _is_of_word(byte: bytes) -> bool:
    return byte.isalnum() or byte >= b"\x80"  # part of a character beyond ASCII


@dataclass(frozen=True)
class MaskedTokens:
    """Cross-entropy of the hidden tokens, with the next-sentence task where `next_sentence` is set."""

    vocabulary: Vocabulary
    seed: int
    share: float = 0.15
    whole_words: bool = False
    next_sentence: bool = False
    chunk_tokens: int | None = None
    z_loss: float = 0.0
    name: str = "mlm"

    def collate(self, batch: Batch, rows: range) -> Batch:
        """Return the rows with tokens hidden, which are the scored targets."""
        if self.next_sentence:
            batch = self._in_pairs(batch, rows)
        ids, draws = batch.ids.numpy(), uniform(3 * batch.ids.numel(), self.seed, DRAW_KEY, rows.start)
        choice, action, other = draws.reshape(3, *ids.shape)
        candidates = batch.scored.numpy() & self.vocabulary.is_ordinary[ids]
        if self.whole_words:
            choice = choice.ravel()[self._first_of_word(ids)].reshape(ids.shape)
        chosen = candidates & (choice < self.share)
        if not chosen.any():  # a batch of a few tokens: a step needs one target at least
            chosen = candidates & (choice == np.where(candidates, choice, 2.0).min())
        hidden = np.where(chosen & (action < HIDDEN_SHARE), self.vocabulary.mask_id, ids)
        drawn = self.vocabulary.ordinary[(other * len(self.vocabulary.ordinary)).astype(np.int64)]
        is_random = chosen & (action >= HIDDEN_SHARE) & (action < HIDDEN_SHARE + RANDOM_SHARE)
        return replace(
            batch,
            ids=torch.from_numpy(np.where(is_random, drawn, hidden)),
            targets=batch.ids,
            scored=torch.from_numpy(chosen),
        )

    def _first_of_word(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return for each place of the flattened rows that of the first token of its word."""
        goes_on = np.zeros(ids.shape, dtype=bool)
        goes_on[:, 1:] = self.vocabulary.ends_inside[ids[:, :-1]] & self.vocabulary.begins_inside[ids[:, 1:]]
        places = np.arange(ids.size)
        return np.maximum.accumulate(np.where(goes_on.ravel(), 0, places))

    def _in_pairs(self, batch: Batch, rows: range) -> Batch:
        """Return rows in two parts, each opened by the end token; in half of the rows the second is another row's."""
        ids = batch.ids.clone()
        count, half = ids.size(0), ids.size(1) // 2
        is_other = torch.from_numpy(uniform(count, self.seed, PAIR_KEY, rows.start) < 0.5) & torch.tensor(count > 1)
        following = torch.arange(count).roll(-1)
        ids[:, half:] = torch.where(is_other[:, None], batch.ids[following, half:], batch.ids[:, half:])
        ids[:, 0] = ids[:, half] = self.vocabulary.end_id
        positions = torch.arange(ids.size(1)).expand_as(ids)
        return replace(batch, ids=ids, positions=positions, document_ids=None, labels=is_other.long())

    def count(self, batch: Batch) -> int:
        """Return the number of hidden tokens."""
        return batch.target_count

    def loss(self, model: Encoder, batch: Batch) -> LossSum:
        """Return the summed nats of the hidden tokens; the next-sentence task adds its gradient, not its value."""
        segments = None
        if batch.labels is not None:
            segments = (torch.arange(batch.ids.size(1), device=batch.ids.device) >= batch.ids.size(1) // 2).long()
            segments = segments.expand_as(batch.ids)
        hidden = model(batch.ids, batch.positions, batch.document_ids, segments)
        kept = batch.scored.flatten().nonzero().squeeze(1)
        states, weight = model.predictor(hidden.flatten(0, 1)[kept])
        targets = batch.targets.flatten()[kept]
        total, metrics = head_loss(states, weight, targets, chunk_tokens=self.chunk_tokens, z_loss=self.z_loss)
        if batch.labels is not None:
            logits = model.belongs_together(hidden).float()
            nats = F.cross_entropy(logits, batch.labels, reduction="sum")
            penalty = nats * (self.share * batch.ids.size(1))  # a row weighs as much as its hidden tokens together
            total = total + (penalty - penalty.detach())
            metrics["next_sentence"] = nats.detach()
            metrics["next_sentence_right"] = (logits.argmax(dim=1) == batch.labels).sum()
            metrics["rows"] = torch.tensor(len(batch.labels), device=logits.device)
        return LossSum(total, len(targets), metrics)

    def measures(self, nats: float, count: int, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the accuracy of first guesses, and loss and accuracy of the next-sentence task."""
        found = dict[str, float]()
        if "correct" in sums:
            found["accuracy"] = float(sums["correct"]) / count
        if "rows" in sums:
            found["next_sentence_loss"] = float(sums["next_sentence"]) / float(sums["rows"])
            found["next_sentence_accuracy"] = float(sums["next_sentence_right"]) / float(sums["rows"])
        return found
