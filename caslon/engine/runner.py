"""Runs one step: the planned tokens of all sequences through the decoder as one row, and out come the logits asked for.

`N` tokens of the step (padded, see paged.py), `D` width, `V` vocabulary.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from caslon.engine.adapters import adapted_rows, additions
from caslon.engine.paged import PagedCache, padded_rows
from caslon.engine.planner import CODE_BITS
from caslon.engine.quantised_cache import QuantisedCache
from caslon.engine.retained_cache import RetainedCache
from caslon.engine.scheduler import Chunk, StepPlan
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError
from caslon.model.attention import Attend
from caslon.model.config import DecoderConfig
from caslon.model.decoder import ROW_MULTIPLE, Decoder

_log = logging.getLogger(__name__)


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

    Its tensors hold until the next step. `next_logits` has rows for each chunk of `choosing` in turn: one for the token after
    its newest, then one more after each of its drafted tokens. `prompt_logits` has rows for scored prompts. `hidden` has the
    final hidden states [T, D] of each chunk whose sequence wants them.
    """

    choosing: list[Chunk]
    next_logits: Tensor
    scoring: list[tuple[Chunk, range]]
    prompt_logits: Tensor
    hidden: list[tuple[Chunk, Tensor]]


class Runner(Protocol):
    """What computes steps: a decoder and its key-value cache."""

    kernels: str  # "compiled" or "torch"

    @property
    def cache_bytes(self) -> int:
        """Return the size of the key-value cache."""

    def run(self, plan: StepPlan) -> StepOutput:
        """Compute a step; its keys and values are in the cache afterwards."""

    def between_steps(self) -> AbstractContextManager[None]:
        """Return the context in which torch chooses tokens."""


def why_not_compiled(
    config: DecoderConfig, device: torch.device, dtype: torch.dtype, settings: EngineSettings
) -> str | None:
    """Return why torch will compute a decoder and not the compiled kernels; None where these will."""
    from caslon.engine.native.library import KernelsMissing, library
    from caslon.engine.native.model import why_not

    if settings.kernels == "torch":
        return "torch was asked for"
    if not settings.cache_is_exact:
        return "the cache is quantised or forgets"
    try:
        library()
    except KernelsMissing as missing:
        return str(missing)
    return why_not(config, device, dtype)


def runner_for(decoder: Decoder, settings: EngineSettings, blocks: int, vocab_size: int) -> Runner:
    """Return the compiled kernels where they can compute the decoder, else torch; `UserError` if only the former will do."""
    dtype = decoder.model.embed_tokens.weight.dtype
    reason = why_not_compiled(decoder.config, decoder.device, dtype, settings)
    if reason is None:
        from caslon.engine.native.library import library
        from caslon.engine.native.runner import NativeRunner

        return NativeRunner(library(), decoder, blocks, settings.block_tokens, vocab_size)
    if settings.kernels == "compiled":
        raise UserError(f"the compiled kernels cannot be used: {reason}", where="kernels", fix='use kernels = "auto"')
    _log.info("torch computes, not the compiled kernels: %s", reason)
    cache = _cache_for(decoder, settings, blocks)
    return TorchRunner(decoder, cache, vocab_size, batch_invariant=settings.batch_invariant)


class KvCache(Protocol):
    """Keys and values of running sequences, in whatever form."""

    @property
    def bytes(self) -> int:
        """Return the size of the cache."""

    def attention(self, plan: StepPlan, query_groups: int, row_multiple: int) -> Attend:
        """Return the attention of one step, which also stores the new keys and values."""


def _cache_for(decoder: Decoder, settings: EngineSettings, blocks: int) -> KvCache:
    config, size = decoder.config, settings.block_tokens
    dtype, device = decoder.model.embed_tokens.weight.dtype, decoder.device
    if settings.kv_dtype != "auto":
        bits = CODE_BITS[settings.kv_dtype]
        return QuantisedCache(config, blocks, size, bits, dtype, device, settings.max_running)
    if not settings.kept.is_full:
        return RetainedCache(config, blocks, size, settings.kept, dtype, device)
    return PagedCache(config, blocks, size, dtype, device)


class TorchRunner:
    """The decoder itself over a paged cache: the reference, and what computes where the compiled kernels cannot."""

    kernels = "torch"

    def __init__(self, decoder: Decoder, cache: KvCache, vocab_size: int, *, batch_invariant: bool) -> None:
        lay_out_for_decoding(decoder)
        self.decoder = decoder
        self.cache = cache
        self.vocab_size = vocab_size
        self._row_multiple = ROW_MULTIPLE if batch_invariant else 1
        self._groups = decoder.config.num_attention_heads // decoder.config.num_key_value_heads

    def between_steps(self) -> AbstractContextManager[None]:
        """Return the context in which torch chooses tokens: as everything else."""
        return nullcontext()

    @property
    def cache_bytes(self) -> int:
        """Return the size of the key-value cache."""
        return self.cache.bytes

    def run(self, plan: StepPlan) -> StepOutput:
        """Compute a step; its keys and values are in the cache afterwards."""
        ids = [token for chunk in plan for token in chunk.tokens]
        positions = [position for chunk in plan for position in range(chunk.start, chunk.end)]
        attend = self.cache.attention(plan, self._groups, self._row_multiple)
        adapted = adapted_rows(plan, self._row_multiple, self.decoder.device)
        with additions(self.decoder, adapted):
            hidden = self.decoder(self._row(ids), self._row(positions), attend)[0]  # [N, D]
        choosing, next_rows, scoring, prompt_rows = rows_asked_for(plan)
        logits = self._logits(hidden, next_rows + prompt_rows)
        wanting, hidden_rows = hidden_asked_for(plan)
        states = torch.split(hidden[hidden_rows], [chunk.end - chunk.start for chunk in wanting]) if wanting else ()
        return StepOutput(
            choosing,
            logits[: len(next_rows)],
            scoring,
            logits[len(next_rows) :],
            list(zip(wanting, states, strict=True)),
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


def rows_asked_for(plan: StepPlan) -> tuple[list[Chunk], list[int], list[tuple[Chunk, range]], list[int]]:
    """Return the chunks to choose after and the rows of their logits, the prompts to score and the rows of theirs."""
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


def hidden_asked_for(plan: StepPlan) -> tuple[list[Chunk], list[int]]:
    """Return the chunks whose final hidden states are wanted, and the rows of these."""
    wanting: list[Chunk] = []
    rows: list[int] = []
    row = 0
    for chunk in plan:
        end = row + chunk.end - chunk.start
        if chunk.sequence.wants_hidden:
            wanting.append(chunk)
            rows += range(row, end)
        row = end
    return wanting, rows
