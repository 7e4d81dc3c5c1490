"""A decoder's weights in the order in which the kernels read them.

The packed matrices are copies; the embedding table, which is read row by row, stays the decoder's own.
"""

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from caslon.compress.linear import QuantisedLinear
from caslon.engine.native.codes import joined, packed_codes
from caslon.engine.native.library import ACTIVATIONS, BFLOAT16, FLOAT32, PANEL, SAME, Layer, Matrix, Model
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder, FeedForward, MixtureOfExperts, SelfAttention, rotation

KINDS = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16}
MADV_PAGEOUT = 21  # Linux 5.4
SMALLEST_HEAD = 16  # numbers; a head's size is a multiple of it


def why_not(config: DecoderConfig, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why the kernels cannot compute a decoder; None when they can."""
    if device.type != "cpu":
        return f"the model is on {device.type}"
    if dtype not in KINDS:
        return f"they compute in float32 and bfloat16, not in {str(dtype).removeprefix('torch.')}"
    if config.head_dim % SMALLEST_HEAD:
        return f"heads of {config.head_dim} numbers are not a multiple of {SMALLEST_HEAD}"
    if config.hidden_size % 2 or config.intermediate_size % 2:
        return "the width of the model or of its feed-forward network is odd"
    return None


def _set_aside(tensor: Tensor) -> None:
    """Let the system take back the memory of weights that are mapped from a file, until someone reads them again.

    What is not mapped from a file stays where it is.
    """
    first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    size = tensor.data_ptr() + tensor.nbytes - first
    if size > 0:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), MADV_PAGEOUT)


class PackedModel:
    """The `Model` structure of a decoder, and the memory it points into."""

    def __init__(self, library: ctypes.CDLL, decoder: Decoder) -> None:
        self._library = library
        self._kept: list[Any] = []
        self.dtype = decoder.model.embed_tokens.weight.dtype
        self._kind = KINDS[self.dtype]
        config, stack = decoder.config, decoder.model
        layers = (Layer * config.num_hidden_layers)(*(self._layer(layer) for layer in stack.layers))
        self._kept.append(layers)
        cosines = sines = None
        if config.is_rotary:
            positions = torch.arange(config.max_position_embeddings)[None]
            cosines, sines = rotation(positions, config.head_dim, config.rope_theta, torch.float32)
        head = stack.embed_tokens if decoder.lm_head is None else decoder.lm_head
        self.structure = Model(
            kind=self._kind,
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            heads=config.num_attention_heads,
            key_heads=config.num_key_value_heads,
            head_size=config.head_dim,
            inner=config.intermediate_size,
            vocabulary=config.vocab_size,
            experts=config.num_local_experts,
            experts_per_token=config.num_experts_per_tok,
            is_gated=int(config.is_gated),
            activation=ACTIVATIONS[config.hidden_act],
            is_rms=int(config.family != "gpt2"),
            context=config.max_position_embeddings,
            norm_eps=config.norm_eps,
            embedding=self._address(stack.embed_tokens.weight.detach()),
            positions=self._numbers(None if stack.embed_positions is None else stack.embed_positions.weight),
            cosines=self._numbers(cosines),
            sines=self._numbers(sines),
            norm=self._numbers(cast(Tensor, stack.norm.weight)),
            norm_bias=self._numbers(getattr(stack.norm, "bias", None)),
            layer=ctypes.addressof(layers),
            head=self._matrix([[head]]),
        )

    @property
    def bytes(self) -> int:
        """Return the memory of the packed weights."""
        return sum(kept.nbytes for kept in self._kept if isinstance(kept, Tensor))

    def _layer(self, layer: Any) -> Layer:
        attention: SelfAttention = layer.self_attn
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        found = Layer(
            input_norm=self._numbers(layer.input_layernorm.weight),
            input_norm_bias=self._numbers(getattr(layer.input_layernorm, "bias", None)),
            post_norm=self._numbers(layer.post_attention_layernorm.weight),
            post_norm_bias=self._numbers(getattr(layer.post_attention_layernorm, "bias", None)),
            query_norm=self._numbers(None if attention.q_norm is None else attention.q_norm.weight),
            key_norm=self._numbers(None if attention.k_norm is None else attention.k_norm.weight),
            qkv=self._matrix([projections]),
            output=self._matrix([[attention.o_proj]]),
        )
        if isinstance(layer.mlp, MixtureOfExperts):
            experts = [self._feed_forward(cast(FeedForward, expert)) for expert in layer.mlp.experts]
            ups, downs = ((Matrix * len(experts))(*part) for part in zip(*experts, strict=True))
            self._kept += [ups, downs]
            found.router = self._numbers(layer.mlp.gate.weight)
            found.expert_up, found.expert_down = ctypes.addressof(ups), ctypes.addressof(downs)
        else:
            found.up, found.down = self._feed_forward(layer.mlp)
        return found

    def _feed_forward(self, network: FeedForward) -> tuple[Matrix, Matrix]:
        ups = [[network.up_proj]] if network.gate_proj is None else [[network.gate_proj], [network.up_proj]]
        return self._matrix(ups), self._matrix([[network.down_proj]])

    def _matrix(self, interleaved: Sequence[Sequence[nn.Module]]) -> Matrix:
        """Return linear layers packed: those of a list one below the other, several lists panel by panel in turn."""
        layers = interleaved[0]
        biases = [bias.detach() for layer in layers if (bias := getattr(layer, "bias", None)) is not None]
        bias = self._numbers(torch.cat(biases) if biases else None)
        if isinstance(layers[0], QuantisedLinear):
            return packed_codes(interleaved, bias=bias, keep=self._address, per_step=4 // self.dtype.itemsize)
        return self._packed_numbers(interleaved, bias)

    def _packed_numbers(self, interleaved: Sequence[Sequence[nn.Module]], bias: int | None) -> Matrix:
        wholes = [joined([cast(Tensor, layer.weight) for layer in layers]) for layers in interleaved]
        outputs, inputs = wholes[0].shape
        panels = torch.empty(len(wholes) * -(-outputs // PANEL) * PANEL * inputs, dtype=self.dtype)
        for number, whole in enumerate(wholes):
            rows = whole.contiguous()
            self._library.caslon_pack(
                self._kind, rows.data_ptr(), outputs, inputs, len(wholes), number, panels.data_ptr()
            )
        for layer in (layer for layers in interleaved for layer in layers):
            _set_aside(cast(Tensor, layer.weight))
        return Matrix(
            outputs=len(wholes) * outputs, inputs=inputs, format=SAME, panels=self._address(panels), bias=bias
        )

    def _numbers(self, tensor: Tensor | None) -> int | None:
        """Return the address of a float32 copy; None without a tensor."""
        return None if tensor is None else self._address(tensor.detach().float())

    def _address(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()
