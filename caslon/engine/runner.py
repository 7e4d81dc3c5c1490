"""Runs one step: the planned tokens of all sequences through the decoder as one row, and out come the logits asked for.

`N` tokens of the step (padded, see paged.py), `D` width, `V` vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caslon.engine.paged import PagedCache, StepAttention, padded_rows
from caslon.engine.scheduler import Chunk, StepPlan
from caslon.model.decoder import ROW_MULTIPLE, Decoder


@torch.no_grad()
def lay_out_for_decoding(decoder: Decoder) -> None:
    """Store every linear layer's weights column by column: the same numbers, the same results, read once per product.

    Otherwise the product of a few rows first copies the whole matrix into that order (measured: 4 rows of a
    4-million-parameter model 3.6 ms before, 2.3 ms after). Meant for a decoder that only the engine uses.
    """
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.t().contiguous().t()


@dataclass(frozen=True)
class StepOutput:
    """What a step computed.

    `next_logits` has rows for each chunk of `choosing` in turn: one for the token after its newest, then one more
    after each of its drafted tokens. `prompt_logits` has rows for scored prompts. `hidden` has the final hidden
    states [T, D] of each chunk whose sequence wants them.
    """

    choosing: list[Chunk]
    next_logits: Tensor
    scoring: list[tuple[Chunk, range]]
    prompt_logits: Tensor
    hidden: list[tuple[Chunk, Tensor]]


class Runner:
    """The one place where the engine calls the decoder."""

    def __init__(self, decoder: Decoder, cache: PagedCache, vocab_size: int, *, batch_invariant: bool) -> None:
        self.decoder = decoder
        self.cache = cache
        self.vocab_size = vocab_size
        self._row_multiple = ROW_MULTIPLE if batch_invariant else 1
        self._groups = decoder.config.num_attention_heads // decoder.config.num_key_value_heads

    def run(self, plan: StepPlan) -> StepOutput:
        """Compute a step; its keys and values are in the cache afterwards."""
        ids = [token for chunk in plan for token in chunk.tokens]
        positions = [position for chunk in plan for position in range(chunk.start, chunk.end)]
        attend = StepAttention(self.cache, plan, self._groups, self._row_multiple)
        hidden = self.decoder(self._row(ids), self._row(positions), attend)[0]  # [N, D]
        choosing, next_rows, scoring, prompt_rows = _rows_asked_for(plan)
        logits = self._logits(hidden, next_rows + prompt_rows)
        return StepOutput(
            choosing, logits[: len(next_rows)], scoring, logits[len(next_rows) :], _hidden_asked_for(plan, hidden)
        )

    def _row(self, numbers: list[int]) -> Tensor:
        padding = [0] * (padded_rows(len(numbers), self._row_multiple) - len(numbers))
        return torch.tensor([numbers + padding], device=self.decoder.device)

    def _logits(self, hidden: Tensor, rows: list[int]) -> Tensor:
        """Return float32 logits [rows, V] of rows of `hidden`. Ids that the tokenizer does not have are left out."""
        if not rows:
            return hidden.new_empty(0, self.vocab_size)
        padding = rows[-1:] * (padded_rows(len(rows), self._row_multiple) - len(rows))
        chosen = hidden.index_select(0, torch.tensor(rows + padding, device=hidden.device))
        return self.decoder.logits(chosen)[: len(rows), : self.vocab_size].float()


def _rows_asked_for(plan: StepPlan) -> tuple[list[Chunk], list[int], list[tuple[Chunk, range]], list[int]]:
    choosing: list[Chunk] = []
    next_rows: list[int] = []
    scoring, prompt_rows = [], []
    row = 0
    for chunk in plan:
        sequence = chunk.sequence
        if chunk.completes and sequence.wants_tokens:
            choosing.append(chunk)
            last = row + chunk.end - chunk.start
            next_rows += range(last - 1 - len(chunk.drafted), last)
        # the logits at a position score the token after it; after a preemption some are known already
        first = max(chunk.start, len(sequence.prompt_logprobs))
        last = min(chunk.end, len(sequence.prompt) - 1)
        if sequence.params.prompt_logprobs is not None and first < last:
            scoring.append((chunk, range(first, last)))
            prompt_rows += [row + position - chunk.start for position in range(first, last)]
        row += chunk.end - chunk.start
    return choosing, next_rows, scoring, prompt_rows


def _hidden_asked_for(plan: StepPlan, hidden: Tensor) -> list[tuple[Chunk, Tensor]]:
    found, row = [], 0
    for chunk in plan:
        end = row + chunk.end - chunk.start
        if chunk.sequence.wants_hidden:
            found.append((chunk, hidden[row:end]))
        row = end
    return found
