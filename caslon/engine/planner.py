"""A model's shape to the memory that answering with it takes, before a weight is read. Imports no torch.

Weights and key-value cache are exact: they equal the bytes of the tensors that are allocated. What a step needs besides is an
estimate from its largest intermediate results. Units: GB = 10^9 bytes, GiB = 2^30.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from caslon.compress.formats import WEIGHT_FORMATS, WeightFormat, matrix_bytes
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.size import parameter_counts
from caslon.settings import nearest

NumberKind = Literal["float32", "bfloat16", "float16"]
KvFormat = Literal["float32", "bfloat16", "float16", "int8", "int4"]
NUMBER_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
CODE_BITS: Mapping[str, int] = {"int8": 8, "int4": 4}
KV_SCALE_BYTES = 2  # bfloat16
RECENT_TOKENS = 64  # of a sequence, kept as they are where the others are quantised
FREE_MEMORY_SHARE = 0.25  # of a CPU's free memory for the cache: it is not the only guest there
DEVICE_MEMORY_SHARE = 0.9  # of a GPU's memory, for all
LOGIT_COPIES = 3  # logits, their float32 copy, and what the sampler makes of them

# The references' rules, shown beside the exact figures
RULE_BYTES_PER_PARAMETER = 2
RULE_BYTES_PER_TOKEN = 10**6

DEVICES: Mapping[str, int] = {
    "8 GB board": 8 * 10**9,
    "T4 16 GB": 16 * 10**9,
    "V100 16 GB": 16 * 10**9,
    "L4 24 GB": 24 * 10**9,
    "A10G 24 GB": 24 * 10**9,
    "A100 40 GB": 40 * 10**9,
    "A100 80 GB": 80 * 10**9,
    "H100 80 GB": 80 * 10**9,
    "H200 141 GB": 141 * 10**9,
}


def _llama(
    layers: int, width: int, heads: int, key_heads: int, inner: int, vocabulary: int, context: int
) -> DecoderConfig:
    return DecoderConfig(
        family="llama", vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=key_heads, intermediate_size=inner, max_position_embeddings=context,
        tie_word_embeddings=False, dtype="float16",
    )  # fmt: skip


SHAPES: Mapping[str, DecoderConfig] = {
    "gpt2": DecoderConfig(
        family="gpt2", vocab_size=50257, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=1024, dtype="float16",
    ),
    "llama2-7b": _llama(32, 4096, 32, 32, 11008, 32000, 4096),
    "llama2-13b": _llama(40, 5120, 40, 40, 13824, 32000, 4096),
    "llama2-70b": _llama(80, 8192, 64, 8, 28672, 32000, 4096),
    "llama3-8b": _llama(32, 4096, 32, 8, 14336, 128256, 8192),
    "llama3-70b": _llama(80, 8192, 64, 8, 28672, 128256, 8192),
    "mixtral-8x7b": DecoderConfig(
        family="mixtral", vocab_size=32000, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, intermediate_size=14336, max_position_embeddings=32768, tie_word_embeddings=False,
        dtype="bfloat16",
    ),
}  # fmt: skip


def shape_named(name: str) -> DecoderConfig:
    """Return a published shape; `UserError` with the names that are known."""
    if name not in SHAPES:
        guess = nearest(name, SHAPES)
        hint = f"did you mean {guess}? " if guess else ""
        raise UserError(f"unknown shape '{name}'", where="--shape", fix=f"{hint}known: {', '.join(SHAPES)}")
    return SHAPES[name]


def kv_block_bytes(config: DecoderConfig, kind: KvFormat, block_tokens: int) -> int:
    """Return the bytes of a block of the cache: 2 x layers x KV heads x head size x bytes a value x tokens, and scales.

    Quantised keys have a scale for each channel of a block, values one for each token and head.
    """
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * block_tokens
    if kind in NUMBER_BYTES:
        return numbers * NUMBER_BYTES[kind]
    scales = config.num_hidden_layers * config.num_key_value_heads * (config.head_dim + block_tokens)
    return numbers * CODE_BITS[kind] // 8 + scales * KV_SCALE_BYTES


def kv_recent_bytes(config: DecoderConfig, kind: KvFormat, dtype: NumberKind, block_tokens: int, sequences: int) -> int:
    """Return the bytes in which a quantised cache keeps the newest tokens of each sequence as they are; 0 for others."""
    if kind in NUMBER_BYTES:
        return 0
    return sequences * kv_block_bytes(config, dtype, RECENT_TOKENS + 2 * block_tokens)


def kv_bytes(
    config: DecoderConfig,
    kind: KvFormat,
    tokens: int,
    *,
    sequences: int = 1,
    block_tokens: int = 16,
    dtype: NumberKind = "float16",
) -> int:
    """Return the bytes of the cache of so many sequences of so many tokens, each rounded up to whole blocks."""
    blocks = sequences * -(-tokens // block_tokens)
    recent = kv_recent_bytes(config, kind, dtype, block_tokens, sequences)
    return blocks * kv_block_bytes(config, kind, block_tokens) + recent


def weight_bytes(config: DecoderConfig, kind: Literal["auto"] | WeightFormat, dtype: NumberKind) -> int:
    """Return the bytes of the weights in memory, scales included. Embeddings, head, norms, biases and routers stay in `dtype`."""
    counts = parameter_counts(config)
    number = NUMBER_BYTES[dtype]
    if kind == "auto":
        return counts.trained * number
    matrices = [(rows, columns, config.num_hidden_layers * count) for rows, columns, count in layer_matrices(config)]
    quantised = sum(rows * columns * count for rows, columns, count in matrices)
    kept = (counts.trained - quantised) * number
    return kept + sum(matrix_bytes(kind, rows, columns).total * count for rows, columns, count in matrices)


def layer_matrices(config: DecoderConfig) -> list[tuple[int, int, int]]:
    """Return `(outputs, inputs, how many)` of the matrices of one layer that may be quantised."""
    width, inner = config.hidden_size, config.intermediate_size
    query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    experts = config.num_local_experts or 1
    ups = 2 if config.is_gated else 1
    return [
        (query, width, 1), (key, width, 2), (width, query, 1), (inner, width, ups * experts), (width, inner, experts),
    ]  # fmt: skip


def step_bytes(config: DecoderConfig, dtype: NumberKind, step_tokens: int, sequences: int) -> int:
    """Return about how much the intermediate results of the largest step take."""
    query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    attention = 3 * query + 4 * key
    widest = max(attention, 3 * config.intermediate_size)
    number = NUMBER_BYTES[dtype]
    stream = step_tokens * (3 * config.hidden_size + widest) * number
    return stream + LOGIT_COPIES * min(step_tokens, sequences) * config.vocab_size * NUMBER_BYTES["float32"]


def written_out_bytes(config: DecoderConfig, kind: Literal["auto"] | WeightFormat) -> int:
    """Return what the largest quantised matrix takes while torch multiplies by it: written out, and once more in its order."""
    largest = max(rows * columns for rows, columns, _ in layer_matrices(config))
    return 0 if kind == "auto" else 2 * largest * NUMBER_BYTES["float32"]


@dataclass(frozen=True)
class MemoryPlan:
    """What answering takes, in bytes."""

    weights: int
    kv: int
    activations: int

    @property
    def total(self) -> int:
        """All together."""
        return self.weights + self.kv + self.activations

    def fits(self, device_bytes: int) -> bool:
        """Return whether it fits into the share of a device's memory that may be filled."""
        return self.total <= DEVICE_MEMORY_SHARE * device_bytes


@dataclass(frozen=True)
class MemoryQuestion:
    """A model and how it shall be used."""

    config: DecoderConfig
    context: int
    sequences: int = 1
    weights: Literal["auto"] | WeightFormat = "auto"
    kv: KvFormat = "float16"
    dtype: NumberKind = "float16"
    block_tokens: int = 16
    step_tokens: int = 512

    def plan(self) -> MemoryPlan:
        """Return the memory it takes."""
        return MemoryPlan(
            weights=weight_bytes(self.config, self.weights, self.dtype),
            kv=kv_bytes(
                self.config, self.kv, self.context,
                sequences=self.sequences, block_tokens=self.block_tokens, dtype=self.dtype,
            ),
            activations=step_bytes(self.config, self.dtype, self.step_tokens, self.sequences)
            + written_out_bytes(self.config, self.weights),
        )  # fmt: skip

    def largest_context(self, device_bytes: int) -> int:
        """Return the longest context, in whole blocks, at which all sequences fit a device; 0 where none does."""
        blocks = _largest(lambda count: self._fits(device_bytes, context=count * self.block_tokens))
        return blocks * self.block_tokens

    def largest_sequences(self, device_bytes: int) -> int:
        """Return how many sequences of the context fit a device; 0 where none does."""
        return _largest(lambda count: self._fits(device_bytes, sequences=count))

    def _fits(self, device_bytes: int, **changes: int) -> bool:
        return replace(self, **changes).plan().fits(device_bytes)  # type: ignore[arg-type]


def _largest(fits: Callable[[int], bool]) -> int:
    """Return the largest number from 1 on that fits, by doubling and halving; 0 where 1 does not."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def block_count(
    config: DecoderConfig,
    settings: EngineSettings,
    *,
    context: int,
    kind: KvFormat,
    dtype: NumberKind,
    spare_bytes: float,
) -> int:
    """Return how many blocks the cache gets: as asked, or what `max_running` longest answers need and memory allows."""
    block = kv_block_bytes(config, kind, settings.block_tokens)
    recent = kv_recent_bytes(config, kind, dtype, settings.block_tokens, settings.max_running)
    if settings.kv_memory_gib is not None:
        count = (int(settings.kv_memory_gib * 2**30) - recent) // block
    else:
        held = min(context, settings.most_held_tokens or context)
        useful = settings.max_running * -(-held // settings.block_tokens)
        count = min(useful, (int(spare_bytes) - recent) // block)
    if count < 1:
        raise UserError(
            f"the key-value cache has no room for one block of {block:,} bytes"
            + (f" beside the {recent:,} bytes of the newest tokens" if recent else ""),
            where="kv_memory_gib",
            fix="give it more memory",
        )
    return count


def check_memory(
    config: DecoderConfig, settings: EngineSettings, *, kind: KvFormat, dtype: NumberKind, free_bytes: int
) -> None:
    """Raise `UserError`, with both numbers and what would fit, where a model needs more memory than is free.

    Counted are weights, one step, and the cache that was asked for, or one block of it where its size is left open.
    """
    context = settings.max_model_tokens or config.max_position_embeddings

    def needed(weights: Literal["auto"] | WeightFormat) -> int:
        question = MemoryQuestion(config, settings.block_tokens, 1, weights, kind, dtype, settings.block_tokens)
        plan = replace(question, step_tokens=min(settings.max_step_tokens, context)).plan()
        asked = int((settings.kv_memory_gib or 0) * 2**30)
        return plan.weights + plan.activations + max(plan.kv, asked)

    need = needed(settings.weights)
    if need <= free_bytes:
        return
    smaller = ((other, needed(other)) for other in WEIGHT_FORMATS if settings.weights == "auto")
    fitting = next(((other, size) for other, size in smaller if size <= free_bytes), None)
    raise UserError(
        f"the model needs {_gb(need)}, {_gb(free_bytes)} are free",
        where="memory",
        fix=f"try --weights {fitting[0]}: {_gb(fitting[1])}" if fitting else "free memory, or take a smaller model",
    )


def free_memory_bytes() -> int:
    """Return the memory that can be had without swapping; all there is where the system does not say (macOS)."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 10**8 else f"{size / 1e6:.1f} MB"
