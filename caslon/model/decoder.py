"""The decoder: token ids to hidden states to logits, for the GPT-2, Llama, Qwen3 and Mixtral families in one file.

Parameters are named as Hugging Face stores Llama and Qwen3; the other names and layouts of GPT-2 and Mixtral are translated at
the border, in `weights.py`. Attention is a callable that is passed in, so training, the engine's paged cache and the tests share
this file. Sources: GPT-2 (Radford et al. 2019), Llama (arXiv:2302.13971), Qwen3 (arXiv:2505.09388), Mixtral (arXiv:2401.04088),
RMSNorm (arXiv:1910.07467), RoPE (arXiv:2104.09864), SwiGLU (arXiv:2002.05202), grouped queries (arXiv:2305.13245).

Shapes: `B` sequences, `T` tokens, `N` = B T, `D` width, `H` query heads, `K` key heads, `C` head size, `V` vocabulary,
`E` experts, `k` experts of a token.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from caslon.errors import UserError
from caslon.model.attention import Attend, causal
from caslon.model.config import DecoderConfig
from caslon.model.experts import Routing, by_expert, expert_capacity, jittered, route

GELU_LINEAR = 2 * (2 / math.pi) ** 0.5  # tanh(u) = 2 sigmoid(2 u) - 1
GELU_CUBIC = 0.044715 * GELU_LINEAR
INITIAL_STD = 0.02  # GPT-2
# A row of a float32 matrix product is the same, bit for bit, in every product of 4, 8, 12, ... rows, and may differ below (CPU).
ROW_MULTIPLE = 4
Rotation = tuple[Tensor, Tensor]  # cosines and sines, each [B or 1, T, 1, C/2]
Record = Callable[[Routing], None]
"""Is given the routing of each layer of a mixture, in order: `routings.append`, for one."""


def gelu_tanh(x: Tensor) -> Tensor:
    """Return GELU in the tanh form of GPT-2 (arXiv:1606.08415, section 2)."""
    if (
        torch.compiler.is_compiling() and x.device.type == "cpu"
    ):  # the same function; its code has a fast exp, no fast tanh
        wide = x.float()
        return (wide * torch.sigmoid(wide * (GELU_LINEAR + GELU_CUBIC * wide * wide))).to(x.dtype)
    return F.gelu(x, approximate="tanh")


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
}


class Linear(nn.Linear):
    """A linear layer without its own initialisation: weights come from `Decoder.initialise` or from a file."""

    def reset_parameters(self) -> None:
        """Leave the weights unset, and the global random generator untouched."""


class Embedding(nn.Embedding):
    """A table of vectors without its own initialisation."""

    def reset_parameters(self) -> None:
        """Leave the weights unset, and the global random generator untouched."""


class RMSNorm(nn.Module):
    """Division by the root mean square, computed in float32, times one weight per channel."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised tensor, in the dtype that matrix products take."""
        weight, dtype = self.weight.float(), _product_dtype(x)
        if x.device.type == "cpu" and torch.is_grad_enabled():
            return cast(Tensor, _CpuRMSNorm.apply(x, weight, self.eps, dtype))  # type: ignore[no-untyped-call]
        wide = x.float()
        if x.device.type == "cpu":  # the same arithmetic; going through autograd costs more than computing one token
            return (wide * _inverse_size(wide, self.eps)).mul_(weight).to(dtype)
        return F.rms_norm(wide, weight.shape, weight, self.eps).to(dtype)


def _product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which matrix products will take `x`: it is cast once here instead of before every product."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _inverse_size(x: Tensor, eps: float) -> Tensor:
    """Return one over the root mean square of each row, `[..., 1]`."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale: Tensor = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return scale


class _CpuRMSNorm(torch.autograd.Function):
    """RMSNorm for the CPU, where torch builds it from a dozen passes over memory; this takes a third of the time.

    The backward pass borrows the layer norm's kernel: with a mean of zero it differs from RMSNorm's by one term.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = x.float()
        scale = _inverse_size(wide, eps)
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        narrow, weight, scale = ctx.saved_tensors
        x, gradient = narrow.float(), gradients[0].float()
        width = x.shape[-1]
        to_x, to_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, (width,), torch.zeros_like(scale), scale, weight, None, (True, True, False)
        )
        # The layer norm's kernel subtracts this mean, because there x also moves the mean.
        mean = (gradient @ weight).unsqueeze(-1).mul_(scale).div_(width)
        return to_x.add_(mean).to(narrow.dtype), to_weight, None, None


class LayerNorm(nn.LayerNorm):
    """A layer norm, computed in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised tensor, in the dtype that matrix products take."""
        return super().forward(x).to(_product_dtype(x))


def _norm(config: DecoderConfig) -> nn.Module:
    if config.family == "gpt2":
        return LayerNorm(config.hidden_size, eps=config.norm_eps, bias=bool(config.bias))
    return RMSNorm(config.hidden_size, config.norm_eps)


def rotation(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotation:
    """Return the cosines and sines for positions `[B, T]`. Angles are float32 whatever the model computes in."""
    steps = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device)
    inverse_frequencies = 1.0 / (theta ** (steps / head_dim))  # [C/2]
    angles = positions[..., None, None].float() * inverse_frequencies  # [B, T, 1, C/2]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, turn: Rotation) -> Tensor:
    """Return `[B, T, H, C]` with each pair (channel i, channel i + C/2) turned by its position's angle."""
    if x.device.type == "cpu" and torch.is_grad_enabled():
        return cast(Tensor, _Rotate.apply(x, *turn))  # type: ignore[no-untyped-call]
    return _turned(x, *turn)


class _Rotate(torch.autograd.Function):
    """A rotation, whose gradient is the rotation back: nothing but the angles is kept for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradients[0], cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    ahead = (first * cos).addcmul_(second, sin, value=-1)
    behind = (second * cos).addcmul_(first, sin)
    return torch.cat((ahead, behind), dim=-1).to(x.dtype)


class SelfAttention(nn.Module):
    """Projections around an `Attend`: grouped queries, per-head norms in Qwen3, rotation where the family has it."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        width, bias = config.hidden_size, bool(config.bias)
        self.q_proj = Linear(width, self.heads * self.head_dim, bias=bias)
        self.k_proj = Linear(width, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = Linear(width, self.kv_heads * self.head_dim, bias=bias)
        self.o_proj = Linear(self.heads * self.head_dim, width, bias=bias)
        self.q_norm = RMSNorm(self.head_dim, config.norm_eps) if config.has_qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.norm_eps) if config.has_qk_norm else None

    def forward(self, x: Tensor, turn: Rotation | None, attend: Attend, layer: int) -> Tensor:
        """Return the attention branch `[B, T, D]` of a layer."""
        batch, length, _ = x.shape
        queries = self.q_proj(x).view(batch, length, self.heads, self.head_dim)
        keys = self.k_proj(x).view(batch, length, self.kv_heads, self.head_dim)
        values = self.v_proj(x).view(batch, length, self.kv_heads, self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            queries, keys = self.q_norm(queries), self.k_norm(keys)
        if turn is not None:
            queries, keys = rotate(queries, turn), rotate(keys, turn)
        mixed = attend(layer, queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2))  # [B, H, T, C]
        return cast(Tensor, self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1)))


class FeedForward(nn.Module):
    """The per-token network: SwiGLU in the gated families, up-activation-down in GPT-2."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width, inner, bias = config.hidden_size, config.intermediate_size, not config.is_gated
        self.gate_proj = Linear(width, inner, bias=False) if config.is_gated else None
        self.up_proj = Linear(width, inner, bias=bias)
        self.down_proj = Linear(inner, width, bias=bias)
        self.activation = _ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """Return the feed-forward branch `[B, T, D]` of a layer."""
        up = self.up_proj(x)
        inner = self.activation(up) if self.gate_proj is None else self.activation(self.gate_proj(x)) * up
        return cast(Tensor, self.down_proj(inner))


class MixtureOfExperts(nn.Module):
    """Several feed-forward networks, of which each token passes through the few that a linear router chooses for it.

    Tokens are sorted by expert, so that each expert computes all of its own at once. The router works in float32 whatever the
    rest does (arXiv:2101.03961, section 2.4).
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.per_token, self.noise = config.num_experts_per_tok, config.router_jitter_noise
        self.capacity_factor = config.expert_capacity_factor
        self.gate = Linear(config.hidden_size, config.num_local_experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(config) for _ in range(config.num_local_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """Return the feed-forward branch `[B, T, D]` of a layer, and where its tokens went."""
        rows, count = x.flatten(0, -2), len(self.experts)  # [N, D]
        routing = route(self._router_logits(rows), self.per_token)
        factor = self.capacity_factor if self.training else 0.0
        order, sizes = by_expert(routing.experts, count, expert_capacity(factor, len(rows), self.per_token, count))
        parts = torch.split(rows.index_select(0, order // self.per_token), sizes)
        found = torch.cat([_computed(expert, part) for expert, part in zip(self.experts, parts, strict=True)])
        choices = found.new_zeros(routing.experts.numel(), rows.shape[1]).index_copy(0, order, found)  # [N k, D]
        mixed = (choices.view(*routing.experts.shape, -1) * routing.weights[..., None]).sum(1)
        return mixed.to(found.dtype).view_as(x), routing._replace(dropped=routing.experts.numel() - sum(sizes))

    def _router_logits(self, rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            wide = rows.float()
            return F.linear(
                jittered(wide, self.noise) if self.training and self.noise else wide, self.gate.weight.float()
            )


def _computed(expert: nn.Module, rows: Tensor) -> Tensor:
    """Return an expert's results for its tokens, which do not depend on how many others it has where no gradient is wanted."""
    if torch.is_grad_enabled():  # an expert without tokens too, so that every weight has a gradient
        return cast(Tensor, expert(rows))
    missing = -len(rows) % ROW_MULTIPLE
    return cast(Tensor, expert(F.pad(rows, (0, 0, 0, missing)))[: len(rows)]) if len(rows) else rows


class DecoderLayer(nn.Module):
    """One pre-norm layer: each branch reads the normalised stream and is added to the stream itself."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = _norm(config)
        self.self_attn = SelfAttention(config)
        self.post_attention_layernorm = _norm(config)
        self.has_experts = config.has_experts
        self.mlp = MixtureOfExperts(config) if config.has_experts else FeedForward(config)
        self.dropout = config.dropout

    def forward(self, x: Tensor, turn: Rotation | None, attend: Attend, layer: int) -> tuple[Tensor, Routing | None]:
        """Return the stream `[B, T, D]` after this layer, and in a mixture where its tokens went."""
        x = x + self._drop(self.self_attn(self.input_layernorm(x), turn, attend, layer))
        read = self.post_attention_layernorm(x)
        branch, routing = self.mlp(read) if self.has_experts else (self.mlp(read), None)
        return x + self._drop(branch), routing

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


class DecoderStack(nn.Module):
    """Embeddings, layers and the final norm: everything below the output head."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        learned = None if config.is_rotary else Embedding(config.max_position_embeddings, config.hidden_size)
        self.embed_positions = learned
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = _norm(config)


class Decoder(nn.Module):
    """A causal language model. Weights are unset until `initialise` or a load; the head is the embedding when tied.

    `checkpoint_every = n` recomputes every n-th layer's activations in the backward pass instead of keeping them.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.model = DecoderStack(config)
        self.lm_head = None if config.tie_word_embeddings else Linear(config.hidden_size, config.vocab_size, bias=False)
        self.checkpoint_every = 0

    def forward(
        self, ids: Tensor, positions: Tensor | None = None, attend: Attend | None = None, record: Record | None = None
    ) -> Tensor:
        """Return the hidden states `[B, T, D]` after the final norm, for ids `[B, T]`.

        `positions` `[B, T]` count from 0 in each row when not given; `attend` is plain causal attention then. `record` is
        given the routing of each layer, where there are experts.
        """
        config, stack = self.config, self.model
        if positions is None:
            positions = self._counted_positions(ids)
        x = stack.embed_tokens(ids)  # [B, T, D]
        if stack.embed_positions is not None:
            x = x + stack.embed_positions(positions)
        if self.training and config.dropout:
            x = F.dropout(x, config.dropout)
        turn = rotation(positions, config.head_dim, config.rope_theta, x.dtype) if config.is_rotary else None
        for number, layer in enumerate(stack.layers):
            if self.training and self.checkpoint_every and number % self.checkpoint_every == 0:
                x, routing = checkpoint(layer, x, turn, attend or causal, number, use_reentrant=False)
            else:
                x, routing = layer(x, turn, attend or causal, number)
            if record is not None and routing is not None:
                record(routing)
        return cast(Tensor, stack.norm(x))

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the scores `[..., V]` of the next token for hidden states `[..., D]`."""
        head = self.model.embed_tokens if self.lm_head is None else self.lm_head
        return F.linear(hidden, head.weight)

    def _counted_positions(self, ids: Tensor) -> Tensor:
        length, limit = ids.shape[1], self.config.max_position_embeddings
        if length > limit:
            raise UserError(
                f"{length} tokens in a row are more than the model's {limit} positions",
                fix=f"use at most {limit} tokens, or a model with a longer context",
            )
        return torch.arange(length, device=ids.device)[None]  # [1, T]

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Set every weight from `seed` alone: normal with deviation 0.02, smaller where a branch joins the stream.

        The projections that write to the stream are scaled by 1/sqrt(2 x layers), so that its size does not grow with
        depth (GPT-2); norms are 1, biases 0. The global random generator is neither read nor advanced.
        """
        generator = torch.Generator().manual_seed(seed)
        branch_std = INITIAL_STD / (2 * self.config.num_hidden_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                std = branch_std if name.endswith(("o_proj.weight", "down_proj.weight")) else INITIAL_STD
                parameter.copy_(torch.empty(parameter.shape).normal_(0.0, std, generator=generator))

    @property
    def device(self) -> torch.device:
        """The device the weights lie on."""
        return self.model.embed_tokens.weight.device
