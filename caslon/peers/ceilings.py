"""What this machine could do at most, measured in the same run, and the share of it that the engine reaches.

The ceiling of products is the fastest of several 1,536 x 1,536 ones by torch in the number format of the comparison, that of
memory the fastest of several sums over 400 MB. Counted is what a load needs at least: two operations for each weight of a layer
and prompt token, attention at half (it looks back only), one row of the head; of a written token, each weight that is
multiplied, once.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from caslon.engine.planner import NUMBER_BYTES, NumberKind, layer_matrices, weight_bytes
from caslon.model.config import DecoderConfig
from caslon.peers.peer import parsed_spec

SIDE = 1536
READ_BYTES = 400_000_000
TRIES = 12


@dataclass(frozen=True)
class Ceilings:
    """Operations of matrix products, and bytes from memory, per second."""

    flops: float
    bytes: float

    def or_more(self, other: "Ceilings") -> "Ceilings":
        """Return the higher of two measurements: what slows one down is not the machine."""
        return Ceilings(max(self.flops, other.flops), max(self.bytes, other.bytes))


def measured_ceilings(dtype: str, threads: int) -> Ceilings:
    """Measure both, with as many threads as the programs get."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = (torch.randn(SIDE, SIDE).to(getattr(torch, dtype)) for _ in range(2))
        read = torch.zeros(READ_BYTES // 4)
        return Ceilings(2 * SIDE**3 / _fastest(lambda: left @ right), READ_BYTES / _fastest(read.sum))
    finally:
        torch.set_num_threads(before)


def shares(
    config: DecoderConfig, bytes_of_token: int, figures: Mapping[str, float], ceilings: Ceilings
) -> Iterator[tuple[str, float, str]]:
    """Yield each load that has a ceiling, the share of it that was reached, and what the ceiling is of."""
    for load, rate in figures.items():
        if load.startswith("prefill"):
            tokens = int(load.removeprefix("prefill ").replace(",", ""))
            yield load, prefill_flops(config, tokens) * rate / tokens / ceilings.flops, "matrix products"
        elif load == "decode, batch 1":
            yield load, bytes_of_token * rate / ceilings.bytes, "memory"


def read_bytes(config: DecoderConfig, options: str, dtype: str) -> int:
    """Return the bytes of weights that a written token reads: all but an embedding table of its own, of which it reads a row."""
    spec = parsed_spec(f"caslon:{options}" if options else "caslon")
    kind = cast(Any, spec.options.get("weights", "auto"))
    number = cast(NumberKind, spec.options.get("dtype", dtype))
    table = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size * NUMBER_BYTES[number]
    return weight_bytes(config, kind, number) - table


def prefill_flops(config: DecoderConfig, tokens: int) -> int:
    """Return the operations that reading a prompt needs at least."""
    attention, network = layer_matrices(config)[:3], layer_matrices(config)[3:]
    used = config.num_experts_per_tok / config.num_local_experts if config.has_experts else 1
    weights = sum(rows * columns * count for rows, columns, count in attention)
    weights += round(used * sum(rows * columns * count for rows, columns, count in network))
    looks = 2 * tokens * config.num_attention_heads * config.head_dim
    return config.num_hidden_layers * tokens * (2 * weights + looks) + 2 * config.vocab_size * config.hidden_size


def _fastest(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(TRIES):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best
