"""Runs one step in compiled code: the plan as arrays of numbers in, the logits asked for out.

What a token computes depends on nothing but its own sequence and position, bit by bit: each sum is taken in the order of its own
terms, whatever the number of rows beside it, the cut of the prompt or the size of blocks.
"""

import ctypes
import math
import weakref
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from caslon.engine.native.adapters import PackedAdapters
from caslon.engine.native.library import AdaptedRows, Step
from caslon.engine.native.model import PackedModel
from caslon.engine.runner import StepOutput, hidden_asked_for, rows_asked_for
from caslon.engine.scheduler import StepPlan
from caslon.model.decoder import Decoder


class NativeRunner:
    """The kernels, a decoder packed for them, and their key-value cache."""

    kernels = "compiled"

    def __init__(self, library: ctypes.CDLL, decoder: Decoder, blocks: int, block_tokens: int, vocab_size: int) -> None:
        config = decoder.config
        self._library = library
        self._threads = torch.get_num_threads()
        self._team = library.caslon_team(self._threads)
        self._finalizer = weakref.finalize(self, library.caslon_dismiss, self._team)
        self._packed = PackedModel(library, decoder)
        self._vocab_size = vocab_size
        self._block_tokens = block_tokens
        shape = (config.num_hidden_layers, 2, blocks, config.num_key_value_heads, block_tokens * config.head_dim)
        size = math.prod(shape) * self._packed.dtype.itemsize
        # Memory that the system hands over page by page as it is written: an idle server holds none of it.
        self._cache = torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(self._packed.dtype)
        self._blocks = blocks
        self._adapters = PackedAdapters(config.num_hidden_layers)
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._logits = torch.empty(0)

    @property
    def cache_bytes(self) -> int:
        """Return the size of the key-value cache."""
        return self._cache.nbytes

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Let torch choose tokens in one thread: its others would watch for more, where the kernels' own have to compute next."""
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(self._threads)

    def run(self, plan: StepPlan) -> StepOutput:
        """Compute a step; its keys and values are in the cache afterwards. The logits hold until the next step."""
        choosing, next_rows, scoring, prompt_rows = rows_asked_for(plan)
        wanting, hidden_rows = hidden_asked_for(plan)
        scored = len(next_rows) + len(prompt_rows)
        logits, hidden = self._computed(plan, [*next_rows, *prompt_rows, *hidden_rows], scored, bool(wanting))
        parts = torch.split(hidden[scored:], [chunk.end - chunk.start for chunk in wanting])
        return StepOutput(
            choosing,
            logits[: len(next_rows), : self._vocab_size],
            scoring,
            logits[len(next_rows) :, : self._vocab_size],
            list(zip(wanting, parts, strict=True)) if wanting else [],
        )

    def _computed(self, plan: StepPlan, rows: list[int], scored: int, with_hidden: bool) -> tuple[Tensor, Tensor]:
        """Return the logits [scored, V] of the first rows, and the final hidden states [rows, D] of all if asked for."""
        lengths = [chunk.end - chunk.start for chunk in plan]
        ids = array("i", [token for chunk in plan for token in chunk.tokens])
        places = array("i", [place for chunk in plan for place in range(chunk.start, chunk.end)])
        width = max(len(chunk.sequence.blocks) for chunk in plan)
        tables = array("i", [0]) * (width * len(plan))
        for number, chunk in enumerate(plan):
            blocks = chunk.sequence.blocks
            tables[number * width : number * width + len(blocks)] = array("i", blocks)
        firsts = array("i", [0, *accumulate(lengths[:-1])])
        starts = array("i", [chunk.start for chunk in plan])
        tokens, asked = array("i", lengths), array("i", rows)
        logits = self._logits_of(scored)
        hidden = torch.empty(len(rows) if with_hidden else 0, self._packed.structure.width)
        adapted = self._adapters.rows_of(plan)
        groups = [self._adapters.structure_of(adapter, own) for adapter, own in adapted.items()]
        adapters = (AdaptedRows * len(groups))(*groups)
        step = Step(
            tokens=len(ids),
            spans=len(plan),
            table_width=width,
            outputs=len(rows),
            scored=scored,
            block_tokens=self._block_tokens,
            threads=self._threads,
            ids=_address(ids),
            places=_address(places),
            span_rows=_address(firsts),
            span_tokens=_address(tokens),
            span_starts=_address(starts),
            tables=_address(tables),
            output_rows=_address(asked),
            hidden=hidden.data_ptr() if with_hidden else None,
            logits=logits.data_ptr(),
            cache=self._cache.data_ptr(),
            cache_blocks=self._blocks,
            adapters=ctypes.addressof(adapters),
            adapter_count=len(groups),
        )
        model = ctypes.addressof(self._packed.structure)
        needed = self._library.caslon_scratch_bytes(model, ctypes.addressof(step))
        if needed > self._scratch.nbytes:
            self._scratch = torch.empty(needed, dtype=torch.uint8)
        step.scratch = self._scratch.data_ptr()
        self._library.caslon_step(model, ctypes.addressof(step), self._team)
        return logits, hidden

    def _logits_of(self, rows: int) -> Tensor:
        size = rows * self._packed.structure.vocabulary
        if size > self._logits.numel():
            self._logits = torch.empty(size)
        return self._logits[:size].view(rows, -1) if rows else self._logits.new_empty(0, self._vocab_size)


def _address(numbers: "array[int]") -> int:
    return numbers.buffer_info()[0]
