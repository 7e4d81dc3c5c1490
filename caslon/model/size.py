"""What a shape costs, worked out before anything is built: parameters, FLOP, memory, files. Imports no torch.

Counts are exact and equal those of the built decoder; FLOP follow PaLM's appendix B (arXiv:2204.02311) with causal attention
counted at half; memory is weights, gradients and optimiser exactly, activations from what the decoder's operations keep.
"""

from dataclasses import dataclass
from typing import Literal

from caslon.model.config import DecoderConfig

Optimizer = Literal["adamw", "muon"]
FLOAT_BYTES = 4
ADAMW_STATE_BYTES = 2 * FLOAT_BYTES  # two moments
MUON_STATE_BYTES = FLOAT_BYTES  # one momentum buffer
LOSS_COPIES = 2  # logits of a chunk and their gradient


@dataclass(frozen=True)
class ParameterCounts:
    """How many numbers a decoder holds, by the part they play."""

    embedding: int  # the token table; it is also the head when tied
    positions: int  # GPT-2's learned table
    matrices: int  # two-dimensional weights of the layers: what Muon trains
    vectors: int  # norms and biases
    head: int  # 0 when tied
    stored_zeros: int  # biases written for readers that expect them, and not trained
    idle: int = 0  # weights of the experts that a token does not pass through

    @property
    def trained(self) -> int:
        """All parameters that are trained: those of the built decoder."""
        return self.embedding + self.positions + self.matrices + self.vectors + self.head

    @property
    def active(self) -> int:
        """Trained parameters that take part in computing one token: all of them where there are no experts."""
        return self.trained - self.idle

    @property
    def stored(self) -> int:
        """All numbers in the weight file."""
        return self.trained + self.stored_zeros

    @property
    def non_embedding(self) -> int:
        """Trained parameters outside the tables and the head: what scaling laws usually count."""
        return self.matrices + self.vectors


def parameter_counts(config: DecoderConfig) -> ParameterCounts:
    """Return the exact counts of a shape."""
    width, layers, inner = config.hidden_size, config.num_hidden_layers, config.intermediate_size
    query = config.num_attention_heads * config.head_dim
    key = config.num_key_value_heads * config.head_dim
    feed_forward = (3 if config.is_gated else 2) * width * inner
    experts = config.num_local_experts
    matrices = width * (2 * query + 2 * key) + (experts or 1) * feed_forward + experts * width  # the last is the router
    attention_biases = query + 2 * key + width
    vectors = 2 * width + (attention_biases if config.bias else 0) + (2 * config.head_dim if config.has_qk_norm else 0)
    final_vectors, stored_zeros = width, 0
    if config.family == "gpt2":
        vectors += inner + width  # the feed-forward biases, which are always there
        norm_biases = layers * 2 * width + width
        if config.bias:
            vectors, final_vectors = vectors + 2 * width, 2 * width
        else:
            stored_zeros = norm_biases + layers * attention_biases
    return ParameterCounts(
        embedding=config.vocab_size * width,
        positions=0 if config.is_rotary else config.max_position_embeddings * width,
        matrices=layers * matrices,
        vectors=layers * vectors + final_vectors,
        head=0 if config.tie_word_embeddings else config.vocab_size * width,
        stored_zeros=stored_zeros,
        idle=layers * (experts - config.num_experts_per_tok) * feed_forward,
    )


def flop_per_token(config: DecoderConfig, context: int | None = None) -> int:
    """Return the floating-point operations one trained token costs, forward and backward.

    Six per weight that takes part in a matrix product (the head does, the embedding and the norms do not, nor the experts that a
    token does not pass through), and 6 x layers x width x context for causal attention.
    """
    counts = parameter_counts(config)
    head = config.vocab_size * config.hidden_size
    attention_width = config.num_attention_heads * config.head_dim
    length = context or config.max_position_embeddings
    return 6 * (counts.matrices - counts.idle + head) + 6 * config.num_hidden_layers * attention_width * length


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes a training process needs, by what they hold."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def state(self) -> int:
        """What is there all the time: weights, gradients, optimiser."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """The peak within a step."""
        return self.state + self.activations + self.logits


def training_memory(
    config: DecoderConfig,
    *,
    micro_batch: int,
    context: int | None = None,
    optimizer: Optimizer = "adamw",
    loss_chunk: int = 4096,
    checkpoint_every: int = 0,
    document_masking: bool = True,
    activation_bytes: int = FLOAT_BYTES,
) -> TrainingMemory:
    """Return the memory of float32 training: 16 bytes per parameter with AdamW, 12 on the matrices with Muon.

    `activation_bytes` is 2 under bfloat16 autocast, `loss_chunk` the number of tokens whose logits exist at once, and
    every `checkpoint_every`-th layer computes its activations again instead of keeping them (0: none).
    """
    counts = parameter_counts(config)
    by_muon = counts.matrices if optimizer == "muon" else 0
    length = context or config.max_position_embeddings
    tokens = micro_batch * length
    per_layer = _kept_numbers_per_token(config) * tokens * activation_bytes
    stream = config.hidden_size * tokens * FLOAT_BYTES  # the residual stream stays in float32
    layers = config.num_hidden_layers
    again = -(-layers // checkpoint_every) if checkpoint_every else 0  # layers whose activations are computed again
    activations = again * stream + (layers - again + min(again, 1)) * per_layer
    mask = micro_batch * length * length * (FLOAT_BYTES + 1) if document_masking else 0
    return TrainingMemory(
        weights=FLOAT_BYTES * counts.trained,
        gradients=FLOAT_BYTES * counts.trained,
        optimizer=MUON_STATE_BYTES * by_muon + ADAMW_STATE_BYTES * (counts.trained - by_muon),
        activations=activations + 2 * stream + mask,
        logits=LOSS_COPIES * min(loss_chunk, tokens) * config.vocab_size * FLOAT_BYTES,
    )


def _kept_numbers_per_token(config: DecoderConfig) -> int:
    """Return how many numbers per token one layer keeps for its backward pass."""
    query = config.num_attention_heads * config.head_dim
    key = config.num_key_value_heads * config.head_dim
    stream = 4 * config.hidden_size  # the stream before each norm, and each norm's result
    attention = 2 * query + 2 * key  # queries, keys, values, result
    if config.has_qk_norm:
        attention += query + key  # queries and keys before their norm
    inner = (4 if config.is_gated else 2) * config.intermediate_size
    if config.has_experts:
        # Each expert's input and result are copies, the latter kept twice; the router keeps its input in float32.
        inner = config.num_experts_per_tok * (inner + 2 * config.hidden_size) + config.hidden_size
    dropped = 2 * (config.hidden_size // FLOAT_BYTES) if config.dropout else 0  # masks of one byte
    return stream + attention + inner + dropped


def kv_cache_bytes_per_token(config: DecoderConfig, value_bytes: int = 2) -> int:
    """Return the bytes that one token in the key-value cache takes."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * value_bytes


def inference_bytes(config: DecoderConfig, *, weight_bytes: int = 2, cached_tokens: int = 0) -> int:
    """Return the bytes of weights and key-value cache, both in the same precision."""
    weights = parameter_counts(config).trained * weight_bytes
    return weights + cached_tokens * kv_cache_bytes_per_token(config, weight_bytes)


def quantized_bytes(config: DecoderConfig, *, weight_bits: int, scale_bits_per_weight: float = 0.0) -> int:
    """Return the bytes of a model whose layer matrices are quantised; embedding, head and norms stay in two bytes.

    NF4 in groups of 64 with float32 scales has 0.5 scale bits per weight, double-quantised ones have
    8/64 + 32/(64 x 256) (arXiv:2305.14314).
    """
    counts = parameter_counts(config)
    matrix_bits = counts.matrices * (weight_bits + scale_bits_per_weight)
    return round(matrix_bits / 8) + 2 * (counts.trained - counts.matrices)


def checkpoint_bytes(
    config: DecoderConfig, *, optimizer: Optimizer | None = None, weight_bytes: int = FLOAT_BYTES
) -> int:
    """Return the size of a checkpoint's tensors: the weights alone, or with the state of an optimiser."""
    counts = parameter_counts(config)
    weights = counts.stored * weight_bytes
    if optimizer is None:
        return weights
    by_muon = counts.matrices if optimizer == "muon" else 0
    return weights + MUON_STATE_BYTES * by_muon + ADAMW_STATE_BYTES * (counts.trained - by_muon)
