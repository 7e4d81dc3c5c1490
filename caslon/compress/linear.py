"""A decoder's linear layers to layers that keep their weights in 8 or 4 bits.

Storage, as other code reads it (`N` output channels, `K` input channels, `g` weights of a row that share a scale):
- int8: `weight [N, K] int8`, `scale [N] float32`; a weight is `value * scale`.
- int4: `weight [N, K/2] uint8`, `scale [N, K/g] float32`, g = 128 (64 or 32 where 128 does not divide K); the low four
  bits are the even input channel, and a weight is `(bits - 8) * scale`.
- nf4: `weight [N, K/2] uint8` in the same order, `scale [N, K/g] float32`, g = 64; a weight is `NF4_TABLE[bits] * scale`
  (normal float, arXiv:2305.14314, appendix E).

int4 has no zero points: the scale of each group is the one of seven clippings with the least squared error, which leaves
10.1 % of a matrix's size as error, where the plain largest value leaves 11.7 % and zero points 10.0 % (measured on layers
of a trained decoder; normal draws give the same). Scales are rounded to bfloat16 before weights are rounded against them,
so that a kernel or a file that keeps them in 16 bits computes with the same numbers.

Products: in bfloat16 on a CPU torch's packed kernels, elsewhere a matrix product with the weights written out for its
duration, which is slower than unquantised weights (measured, 3072 x 768, 4 rows, two cores: float32 0.7 ms plain, 2.3
int8, 7.7 int4; bfloat16 0.4 plain, 0.5 int8, 0.2 int4). Embeddings, the output head, norms and biases stay as they are.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caslon.compress.formats import WeightFormat, group_of
from caslon.errors import UserError

LAYER_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
INT8_LARGEST, INT4_ZERO, INT4_LARGEST = 127, 8, 7
INT4_CLIPPINGS = (7.0, 7.5, 8.0, 8.5, 9.0, 9.5, 10.0)  # the largest weight of a group stands this many steps from zero
SMALLEST_SCALE = 2.0**-100  # of a row of zeros; any number will do
PACKED_ROWS = 16  # torch's int4 kernel takes output channels by sixteen
NF4_TABLE = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


class QuantisedLinear(nn.Module, ABC):
    """A linear layer whose weights are stored in fewer bits."""

    weight: Tensor
    scale: Tensor
    written_out = False

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None, in_features: int) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = bias if bias is None else nn.Parameter(bias, requires_grad=False)
        self.in_features, self.out_features = in_features, weight.shape[0]

    @abstractmethod
    def dequantised(self) -> Tensor:
        """Return the weights `[N, K]` in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `[..., N]` for `[..., K]`."""
        return F.linear(x, self.dequantised().to(x.dtype), self.bias)

    def _uses_kernel(self, x: Tensor) -> bool:
        return x.device.type == "cpu" and x.dtype == torch.bfloat16 and not self.written_out

    @property
    def resident_bytes(self) -> int:
        """The memory of values, scales and bias."""
        return sum(tensor.nbytes for tensor in (*self.buffers(), *self.parameters()))


class Int8Linear(QuantisedLinear):
    """Eight bits a weight, one scale for each output channel, the same range on both sides of zero."""

    @staticmethod
    def quantised(weight: Tensor, bias: Tensor | None) -> "Int8Linear":
        """Return the layer for weights `[N, K]`."""
        scale = _scale(weight.abs().amax(1, keepdim=True) / INT8_LARGEST)
        values = (weight / scale).round_().clamp_(-INT8_LARGEST, INT8_LARGEST).to(torch.int8)
        return Int8Linear(values, scale[:, 0].contiguous(), bias, weight.shape[1])

    def dequantised(self) -> Tensor:
        """Return the weights `[N, K]` in float32."""
        return self.weight.float().mul_(self.scale[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return `[..., N]` for `[..., K]`."""
        if self._uses_kernel(x):
            rows = x.reshape(-1, self.in_features)
            product: Tensor = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale.to(x.dtype))
            product = product.view(*x.shape[:-1], self.out_features)
        elif self.written_out:
            return super().forward(x)
        else:
            product = F.linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype)
        return product if self.bias is None else product + self.bias


class Int4Linear(QuantisedLinear):
    """Four bits a weight, sixteen steps around zero, one scale for each group of a row."""

    _packed: tuple[Tensor, Tensor] | None = None

    @staticmethod
    def quantised(weight: Tensor, bias: Tensor | None) -> "Int4Linear":
        """Return the layer for weights `[N, K]`."""
        groups = _grouped(weight, group_of("int4", weight.shape[1]))
        largest = groups.abs().amax(-1, keepdim=True)
        scale = _scale(largest / INT4_CLIPPINGS[0])
        least = _squared_error(groups, scale)
        for clipping in INT4_CLIPPINGS[1:]:
            other = _scale(largest / clipping)
            error = _squared_error(groups, other)
            scale, least = torch.where(error < least, other, scale), torch.minimum(error, least)
        values = _int4_steps(groups, scale).add_(INT4_ZERO).to(torch.uint8)
        return Int4Linear(_pairs(values.view_as(weight)), scale[..., 0].contiguous(), bias, weight.shape[1])

    def dequantised(self) -> Tensor:
        """Return the weights `[N, K]` in float32."""
        steps = _unpaired(self.weight).float().sub_(INT4_ZERO)
        return steps.view(*self.scale.shape, -1).mul_(self.scale[..., None]).view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[..., N]` for `[..., K]`."""
        if not self._uses_kernel(x) or self.out_features % PACKED_ROWS:
            return super().forward(x)
        if self._packed is None:
            self._pack()
        assert self._packed is not None
        packed, scales = self._packed
        group = self.in_features // scales.shape[0]
        rows = x.reshape(-1, self.in_features)
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, group, scales)
        product = product.view(*x.shape[:-1], self.out_features)
        return product if self.bias is None else product + self.bias

    def _pack(self) -> None:
        """Keep the weights a second time, in the order of torch's kernel."""
        scales = torch.stack((self.scale, torch.zeros_like(self.scale)), -1).transpose(
            0, 1
        )  # [K/g, N, 2]: scale and zero
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(_unpaired(self.weight).int(), 1)
        self._packed = packed, scales.bfloat16().contiguous()

    @property
    def resident_bytes(self) -> int:
        """The memory of values, scales and bias, in both orders once a kernel asked for its own."""
        return super().resident_bytes + sum(tensor.nbytes for tensor in self._packed or ())


class Nf4Linear(QuantisedLinear):
    """Four bits a weight that name one of sixteen quantiles of the normal distribution, times the group's largest weight."""

    @staticmethod
    def quantised(weight: Tensor, bias: Tensor | None) -> "Nf4Linear":
        """Return the layer for weights `[N, K]`."""
        groups = _grouped(weight, group_of("nf4", weight.shape[1]))
        scale = _scale(groups.abs().amax(-1, keepdim=True))
        table = torch.tensor(NF4_TABLE, device=weight.device)
        values = torch.bucketize(groups / scale, (table[1:] + table[:-1]) / 2).to(torch.uint8)
        return Nf4Linear(_pairs(values.view_as(weight)), scale[..., 0].contiguous(), bias, weight.shape[1])

    def dequantised(self) -> Tensor:
        """Return the weights `[N, K]` in float32."""
        table = torch.tensor(NF4_TABLE, device=self.weight.device)
        values = table[_unpaired(self.weight).int()]
        return values.view(*self.scale.shape, -1).mul_(self.scale[..., None]).view(self.out_features, self.in_features)


KINDS: dict[WeightFormat, type[Int8Linear | Int4Linear | Nf4Linear]] = {
    "int8": Int8Linear,
    "int4": Int4Linear,
    "nf4": Nf4Linear,
}


@torch.no_grad()
def quantise_layers(decoder: nn.Module, kind: WeightFormat) -> None:
    """Replace every linear layer of attention and feed-forward parts, one at a time; the decoder is for inference only then."""
    for path, module in list(decoder.named_modules()):
        parent, _, name = path.rpartition(".")
        if name in LAYER_NAMES and isinstance(module, nn.Linear):
            weight = module.weight.float()
            if not weight.isfinite().all():
                raise UserError(f"{path}.weight holds numbers that are not finite", fix="train or copy the model again")
            bias = None if module.bias is None else module.bias.detach()
            setattr(decoder.get_submodule(parent), name, KINDS[kind].quantised(weight, bias))


@contextmanager
def weights_written_out(decoder: nn.Module) -> Iterator[None]:
    """Let products meanwhile be those of the weights written out, which packed kernels are held to."""
    layers = [part for part in decoder.modules() if isinstance(part, QuantisedLinear)]
    for layer in layers:
        layer.written_out = True
    try:
        yield
    finally:
        for layer in layers:
            layer.written_out = False


def resident_bytes(module: nn.Module) -> int:
    """Return the memory that a model's tensors take, packed values and scales included; what is shared counts once."""
    quantised = [part for part in module.modules() if isinstance(part, QuantisedLinear)]
    inside = {id(tensor) for part in quantised for tensor in (*part.buffers(), *part.parameters())}
    others = {
        id(tensor): tensor.nbytes for tensor in (*module.parameters(), *module.buffers()) if id(tensor) not in inside
    }
    return sum(others.values()) + sum(part.resident_bytes for part in quantised)


def _scale(scale: Tensor) -> Tensor:
    """Return scales above zero that bfloat16 holds exactly, as float32."""
    return scale.bfloat16().float().clamp_(min=SMALLEST_SCALE)


def _grouped(weight: Tensor, group: int) -> Tensor:
    return weight.view(weight.shape[0], -1, group)


def _int4_steps(groups: Tensor, scale: Tensor) -> Tensor:
    return (groups / scale).round_().clamp_(-INT4_ZERO, INT4_LARGEST)


def _squared_error(groups: Tensor, scale: Tensor) -> Tensor:
    return (_int4_steps(groups, scale).mul_(scale) - groups).square_().sum(-1, keepdim=True)


def _pairs(values: Tensor) -> Tensor:
    """Return `[N, K/2]` with two values of `[N, K]` in each byte: even channels low, odd ones high."""
    return values[:, ::2] | values[:, 1::2] << 4


def _unpaired(pairs: Tensor) -> Tensor:
    """Return `[N, K]` from what `_pairs` made."""
    return torch.stack((pairs & 15, pairs >> 4), -1).flatten(1)
