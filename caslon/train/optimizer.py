"""Two optimisers behind one interface: AdamW for all parameters, or Muon for the hidden matrices and AdamW for the rest.

Muon (https://kellerjordan.github.io/posts/muon) orthogonalises the momentum of every hidden weight matrix; its update is scaled
to the size AdamW's would have (arXiv:2502.16982), so one learning rate serves both. Unusual: matrices of one shape are kept
stacked, so that Newton-Schulz runs as a few batched products instead of hundreds of small ones. Of several processes each updates
what lies in it, and orthogonalises its share of the matrices.

Legend: `K` matrices of one shape, `M` rows, `N` columns.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn

from caslon.train.adamw_int8 import AdamWInt8
from caslon.train.distributed import ALONE, Processes

OptimizerName = Literal["adamw", "muon"]
StateFormat = Literal["fp32", "int8"]  # of AdamW's moments
BETAS = (0.9, 0.95)  # arXiv:2005.14165, appendix B
EPSILON = 1e-8
MOMENTUM = 0.95
EMBEDDINGS = (
    "embed_tokens", "embed_positions", "wte", "wpe", "word_embeddings", "position_embeddings", "token_type_embeddings", "shared",
    "relative_attention_bias",
)  # fmt: skip
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # steep at 0: five steps bring every singular value near 1
MATCH_ADAMW_RMS = 0.2  # AdamW's updates have an RMS of 0.2 to 0.4; arXiv:2502.16982, section 2.2


@dataclass(frozen=True)
class Groups:
    """Parameters by the way they are updated, each by name."""

    matrices: dict[str, nn.Parameter]  # Muon
    tables: dict[str, nn.Parameter]  # embeddings, also one that is the head: AdamW at a rate of their own
    head: dict[str, nn.Parameter]  # a head with weights of its own, likewise
    decayed: dict[str, nn.Parameter]  # AdamW with weight decay
    free: dict[str, nn.Parameter]  # AdamW without


def groups(named: Iterable[tuple[str, nn.Parameter]], optimizer: OptimizerName) -> Groups:
    """Sort parameters: 1-D tensors are never decayed; Muon takes 2-D tensors that are neither embedding nor head."""
    found = Groups({}, {}, {}, {}, {})
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            found.free[name] = parameter
        elif _is_part("lm_head", of=name):
            found.head[name] = parameter
        elif any(_is_part(table, of=name) for table in EMBEDDINGS):
            found.tables[name] = parameter
        elif optimizer == "muon" and parameter.ndim == 2:
            found.matrices[name] = parameter
        else:
            found.decayed[name] = parameter
    return found


def _is_part(part: str, *, of: str) -> bool:
    return part in of.split(".")


def orthogonalised(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return `[K, M, N]` matrices with the same singular vectors and singular values near 1, computed in `dtype`."""
    a, b, c = NEWTON_SCHULZ
    is_tall = matrices.size(-2) > matrices.size(-1)
    wide = matrices.mT if is_tall else matrices
    x = (wide / (torch.linalg.matrix_norm(wide, keepdim=True) + 1e-7)).to(dtype)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return cast(Tensor, x.mT if is_tall else x)


class _Stack:
    """All hidden matrices of one shape `[M, N]` with their momentum, of which the rows that lie here are updated."""

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        shape: torch.Size,
        kept: float,
        dtype: torch.dtype,
        processes: Processes,
    ) -> None:
        self.names, self.kept, self.dtype, self.processes = list(parameters), kept, dtype, processes
        self.parameters: list[Tensor] = list(parameters.values())
        first = self.parameters[0]
        self.momentum = torch.zeros((len(self.parameters), *first.shape), dtype=first.dtype, device=first.device)
        self.rows = shape[0]
        self.scale = MATCH_ADAMW_RMS * max(shape) ** 0.5

    def step(self, rate: float, weight_decay: float) -> None:
        gradients = torch.stack([_gradient(parameter) for parameter in self.parameters])
        self.momentum.lerp_(gradients, 1.0 - self.kept)
        ahead = gradients.lerp_(self.momentum, self.kept)  # Nesterov: look one step ahead
        update = self.processes.each_matrix(partial(orthogonalised, dtype=self.dtype), ahead, self.rows)
        torch._foreach_mul_(self.parameters, 1.0 - rate * weight_decay)
        torch._foreach_add_(self.parameters, list(update.float().unbind()), alpha=-rate * self.scale)


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


class Optimizer:
    """Updates a model's parameters from their gradients. Its state has names, so that it fits in a safetensors file."""

    def __init__(
        self,
        model: nn.Module,
        name: OptimizerName,
        *,
        weight_decay: float,
        table_rate_ratio: float = 1.0,
        head_rate_ratio: float = 1.0,
        momentum: float = MOMENTUM,
        beta1: float = BETAS[0],
        product_dtype: torch.dtype = torch.float32,
        state_format: StateFormat = "fp32",
        processes: Processes = ALONE,
    ) -> None:
        self.weight_decay, self.betas, self._processes = weight_decay, (beta1, BETAS[1]), processes
        self._state_format = state_format
        # At their high rates decay would forget rare words between two of their gradients.
        self._table_decay = weight_decay if name == "adamw" else 0.0
        self._ratios = {"tables": table_rate_ratio, "head": head_rate_ratio}
        named = dict(model.named_parameters())
        parts = {key: processes.own_part(parameter) for key, parameter in named.items()}
        self._cut = [(named[key], part) for key, part in parts.items() if part is not named[key]]
        self._groups = groups(parts.items(), name)
        shapes: dict[torch.Size, dict[str, nn.Parameter]] = {}
        for key, matrix in self._groups.matrices.items():
            shapes.setdefault(named[key].shape, {})[key] = matrix
        self._stacks = [_Stack(members, shape, momentum, product_dtype, processes) for shape, members in shapes.items()]
        self._adamw = self._new_adamw()

    def _new_adamw(self) -> torch.optim.AdamW | AdamWInt8:
        found, decay, table_decay = self._groups, self.weight_decay, self._table_decay
        members = (
            {"params": list(found.tables.values()), "weight_decay": table_decay, "ratio": self._ratios["tables"]},
            {"params": list(found.head.values()), "weight_decay": table_decay, "ratio": self._ratios["head"]},
            {"params": list(found.decayed.values()), "weight_decay": decay, "ratio": 1.0},
            {"params": list(found.free.values()), "weight_decay": 0.0, "ratio": 1.0},
        )
        filled = [group for group in members if group["params"]]
        if self._state_format == "int8":
            return AdamWInt8(filled, lr=0.0, betas=self.betas, eps=EPSILON)
        return torch.optim.AdamW(filled, lr=0.0, betas=self.betas, eps=EPSILON, fused=True)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update every parameter once at the given learning rate."""
        for parameter, part in self._cut:
            part.grad = None if parameter.grad is None else self._processes.own_part(parameter.grad)
        for group in self._adamw.param_groups:
            group["lr"] = rate * group["ratio"]
        self._adamw.step()
        for stack in self._stacks:
            stack.step(rate, self.weight_decay)
        for _, part in self._cut:
            part.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return the state by name: `adamw.<parameter>.exp_avg`, `muon.<parameter>.momentum`."""
        tensors = {}
        for name, parameter in self._adamw_parameters().items():
            for part, value in self._adamw.state.get(parameter, {}).items():
                tensors[f"adamw.{name}.{part}"] = value
        for stack in self._stacks:
            for name, momentum in zip(stack.names, stack.momentum, strict=True):
                tensors[f"muon.{name}.momentum"] = momentum.clone()
        return tensors

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state that `state()` returned for a model of the same shapes."""
        self._adamw = self._new_adamw()
        for name, parameter in self._adamw_parameters().items():
            prefix = f"adamw.{name}."
            own = [key for key in state if key.startswith(prefix)]
            parts = {key.removeprefix(prefix): state[key].to(parameter.device, copy=True) for key in own}
            if parts:
                self._adamw.state[parameter] = parts
        for stack in self._stacks:
            for index, name in enumerate(stack.names):
                stack.momentum[index] = state[f"muon.{name}.momentum"]

    def _adamw_parameters(self) -> dict[str, nn.Parameter]:
        return {**self._groups.tables, **self._groups.head, **self._groups.decayed, **self._groups.free}
