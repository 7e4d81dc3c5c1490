"""A decoder cut into rows: every tensor of it lies in N parts on N processes, gathered layer by layer while it computes (FSDP2).

torch's `fully_shard` cuts dimension 0 into parts of equal size, the last ones smaller or empty. What the loop keeps of a tensor
(optimiser state, files) is cut in the same way, so any number of processes can go on with what another number wrote.
Layers are gathered and computed in bf16 and their gradients added up in float32; embedding, final norm and head stay float32,
because the stream between the layers begins there. Source: PyTorch FSDP (arXiv:2304.11277).

Legend: `W` processes, `K` matrices of `M` rows and `N` columns, `R` rows of a part: M / W rounded up.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.train.distributed import Processes, SomeTensor, T
from caslon.train.precision import Compute


@dataclass
class ShardedProcesses(Processes):
    """Processes each of which holds a part of every tensor."""

    cpu_offload: bool = False

    @property
    def part(self) -> tuple[int, int]:
        """Which part of every tensor lies here, and of how many."""
        return self.rank, self.world

    @property
    def can_repeat(self) -> bool:
        """False: a process that fails within a pass leaves the others waiting for its parts."""
        return False

    def build(self, make: Callable[[], T], config: object) -> T:
        """Return a new decoder on the first process, and on the others only its shape; `UserError` for another model."""
        if not isinstance(config, DecoderConfig):
            raise UserError("parallel = 'fsdp' is for decoders", fix="set parallel = 'ddp'")
        if self.is_first:
            return make()
        with torch.device("meta"):
            return cast(T, Decoder(config))

    def load(self, decoder: Decoder, read: Callable[[], dict[str, Any]]) -> None:
        """Share out the weights that `read` returns on the first process; it is not called on the others."""
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(decoder, read() if self.is_first else {}, options=options)

    def spread(self, decoder: Decoder, compute: Compute) -> Decoder:
        """Return this process's part of the first process's decoder; elsewhere `decoder` only gives the shape."""
        with torch.device("meta"):
            own = Decoder(decoder.config)
        own.checkpoint_every = decoder.checkpoint_every
        mesh = init_device_mesh(compute.device.type, (self.world,))
        cut(own, mesh, compute.product_dtype, cpu_offload=self.cpu_offload)
        own.to_empty(device="cpu" if self.cpu_offload else compute.device)
        self.load(own, decoder.state_dict)
        return own

    def own_part(self, tensor: SomeTensor) -> SomeTensor:
        """Return the rows of a tensor or parameter that lie here, as a plain one in the same memory."""
        if not isinstance(tensor, DTensor):
            return tensor
        rows = tensor.to_local().detach()
        return cast(SomeTensor, nn.Parameter(rows, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else rows)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Do nothing: gradients were added up, and cut into parts, in the backward pass."""

    def each_matrix(self, function: Callable[[Tensor], Tensor], matrices: Tensor, rows: int) -> Tensor:
        """Return the own rows of a function of whole matrices, from the own rows `[K, <= R, N]`; `rows` is `M`.

        Each process is sent the parts of K / W matrices, computes them whole and sends the parts back: two exchanges, each
        of as many bytes as the own rows have.
        """
        count, own_rows, width = matrices.shape
        part_rows, each = -(-rows // self.world), -(-count // self.world)
        padded = F.pad(matrices, (0, 0, 0, part_rows - own_rows, 0, each * self.world - count))  # [W K/W, R, N]
        pieces = _exchanged(padded.view(self.world, each, part_rows, width))  # [W, K/W, R, N]
        whole = pieces.transpose(0, 1).reshape(each, self.world * part_rows, width)[:, :rows]  # [K/W, M, N]
        found = F.pad(function(whole), (0, 0, 0, self.world * part_rows - rows))
        pieces = _exchanged(found.view(each, self.world, part_rows, width).transpose(0, 1).contiguous())
        return pieces.reshape(self.world * each, part_rows, width)[:count, :own_rows]

    def clip(self, parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
        """Scale the gradients down to a global norm of at most `largest`; return the norm before."""
        norm = super().clip(parameters, largest)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def rest(self, decoder: Decoder) -> None:
        """Let go of gathered tensors, so that each process holds its part alone."""
        for module in _sharded_modules(decoder):
            module.reshard()

    def whole(self, decoder: Decoder) -> Decoder:
        """Return the whole decoder in host memory on the first process, one without weights on the others."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(decoder, options=options)
        with torch.device("meta"):
            whole = Decoder(decoder.config)
        if self.is_first:
            whole.load_state_dict(weights, assign=True)
        return whole.eval()


def cut(decoder: Decoder, mesh: DeviceMesh, compute_dtype: torch.dtype, *, cpu_offload: bool = False) -> None:
    """Make a decoder on the meta device one whose layers are gathered one at a time, in `compute_dtype`."""
    offload = CPUOffloadPolicy() if cpu_offload else OffloadPolicy()
    narrow = None if compute_dtype == torch.float32 else compute_dtype
    in_layers = MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32, cast_forward_inputs=False)
    around = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in decoder.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=in_layers, offload_policy=offload)
    # The head is used outside the decoder's forward pass, so it stays gathered until the backward pass is over.
    fully_shard(decoder, mesh=mesh, mp_policy=around, offload_policy=offload, reshard_after_forward=False)
    for module in _sharded_modules(decoder):
        module.set_gradient_divide_factor(1.0)  # losses were divided by the targets of all processes
        module.set_force_sum_reduction_for_comms(True)  # gloo knows no other reduction
    if decoder.config.has_experts:
        _expect_unused_experts(decoder)


def _expect_unused_experts(decoder: Decoder) -> None:
    """Let experts that no token of this process chose take part in the sum, with zeros."""
    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise UserError("parallel = 'fsdp' with experts needs torch 2.13 or later", fix="set parallel = 'ddp'")
    for module in _sharded_modules(decoder):
        module.set_reduce_scatter_unused_params(True)


def _sharded_modules(decoder: Decoder) -> Iterator[FSDPModule]:
    return (module for module in decoder.modules() if isinstance(module, FSDPModule))


def _exchanged(pieces: Tensor) -> Tensor:
    """Return, from `[W, ...]` with a piece for each process, what each process has for this one."""
    received = torch.empty_like(pieces)
    dist.all_to_all_single(received, pieces)
    return received
