"""Router logits into the experts of each token, and routings into what a run wants to know: balance, shares, dead experts.

A router's softmax gives every token its `k` likeliest experts, whose weights are divided by their sum (Mixtral,
arXiv:2401.04088). Nothing here holds weights: each layer hands over a `Routing`, and every figure is a function of those.
The balance loss and the jitter are those of the Switch Transformer (arXiv:2101.03961).

Shapes: `N` tokens, `E` experts, `k` experts of a token, `L` layers.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

DEAD_SHARE = 0.01  # an expert with less of its layer's routing than this is dead


class Routing(NamedTuple):
    """Where one layer's router sent its tokens. (A named tuple, so that wrappers of modules find the tensors in it.)"""

    probabilities: Tensor  # [N, E] softmax over all experts, float32
    experts: Tensor  # [N, k] the chosen ones, likeliest first
    weights: Tensor  # [N, k] how their results are mixed: each row sums to 1
    dropped: int = 0  # choices that an expert had no room for


def route(logits: Tensor, experts_per_token: int) -> Routing:
    """Return the routing that router logits `[N, E]` ask for."""
    probabilities = logits.float().softmax(dim=-1)
    chosen, experts = probabilities.topk(experts_per_token, dim=-1)
    return Routing(probabilities, experts, chosen / chosen.sum(dim=-1, keepdim=True))


def jittered(rows: Tensor, noise: float) -> Tensor:
    """Return a router's input with each number scaled by a random factor in `1 - noise` to `1 + noise`."""
    return rows * torch.empty_like(rows).uniform_(1.0 - noise, 1.0 + noise)


def expert_capacity(factor: float, tokens: int, experts_per_token: int, expert_count: int) -> int | None:
    """Return how many tokens an expert has room for: `factor` times its even share; no limit for a factor of 0."""
    return math.ceil(factor * tokens * experts_per_token / expert_count) if factor else None


def by_expert(experts: Tensor, expert_count: int, capacity: int | None = None) -> tuple[Tensor, list[int]]:
    """Return choices `[N, k]` grouped by expert: their places in the flattened choices, and how many each expert has.

    With a capacity an expert keeps that many, those of the earliest tokens, and the places of the others are left out.
    """
    chosen = experts.flatten()
    order = chosen.argsort(stable=True)
    counts = chosen.bincount(minlength=expert_count)
    if capacity is not None:
        starts = counts.cumsum(0) - counts
        place = torch.arange(len(order), device=order.device) - starts[chosen[order]]
        order, counts = order[place < capacity], counts.clamp(max=capacity)
    return order, counts.tolist()


def expert_counts(routing: Routing, counted: Tensor | None = None) -> Tensor:
    """Return how many tokens chose each expert, `[E]`; `counted` `[N]` says which tokens count (all when not given)."""
    chosen = torch.zeros_like(routing.probabilities).scatter_(1, routing.experts, 1.0)  # [N, E]
    return _summed(chosen, counted)


def _summed(rows: Tensor, counted: Tensor | None) -> Tensor:
    return rows.sum(0) if counted is None else counted.float() @ rows


def balance_loss(routings: Sequence[Routing], counted: Tensor | None = None) -> Tensor:
    """Return `E x sum of f_e P_e` over the experts, as transformers' `load_balancing_loss_func` does.

    `f_e` is the share of tokens that chose an expert (they sum to `k`), `P_e` its mean probability, both over the tokens of all
    layers together; only `P_e` carries a gradient. Even routing gives `k`, the same `k` of `E` experts for all tokens `E`.
    """
    counts = torch.stack([expert_counts(routing, counted) for routing in routings]).sum(0)
    probability = torch.stack([_summed(routing.probabilities, counted) for routing in routings]).sum(0)
    expert_count, tokens = counts.numel(), counts.sum() / routings[0].experts.shape[1]
    return expert_count * (counts / tokens) @ (probability / tokens)


def layerwise_balance_loss(routings: Sequence[Routing], counted: Tensor | None = None) -> Tensor:
    """Return the mean of the layers' own balance losses, which is what training takes.

    All layers together may be even though none is: one neglects the expert that another prefers. Measured on characters with 4
    experts and a coefficient of 0.01, shares of 0.02 to 0.47 together, of 0.16 to 0.32 layer by layer.
    """
    return torch.stack([balance_loss([routing], counted) for routing in routings]).mean()


def expert_shares(counts: Tensor) -> Tensor:
    """Return each expert's share of its layer's routing, from counts `[L, E]`; a layer's shares sum to 1."""
    return counts / counts.sum(dim=-1, keepdim=True)


def dead_experts(shares: Tensor) -> list[tuple[int, int]]:
    """Return `(layer, expert)` of every expert that gets less than a hundredth of its layer's routing."""
    return [(int(layer), int(expert)) for layer, expert in (shares < DEAD_SHARE).nonzero()]


def routing_entropy(shares: Tensor) -> Tensor:
    """Return the entropy `[L]` of each layer's shares in nats: ln E when all experts get the same, 0 when one gets all."""
    entropy: Tensor = torch.special.entr(shares).sum(dim=-1)
    return entropy


def routing_measures(counts: Tensor) -> dict[str, float]:
    """Return what to watch at every step, from counts `[L, E]`: extreme shares, mean entropy, number of dead experts."""
    shares = expert_shares(counts)
    return {
        "expert_share_min": float(shares.min()),
        "expert_share_max": float(shares.max()),
        "expert_entropy": float(routing_entropy(shares).mean()),
        "dead_experts": float(len(dead_experts(shares))),
    }


def share_measures(counts: Tensor) -> dict[str, float]:
    """Return every expert's share, from counts `[L, E]`, as `expert_share.<layer>.<expert>`."""
    return {
        f"expert_share.{layer}.{expert}": share
        for layer, row in enumerate(expert_shares(counts).tolist())
        for expert, share in enumerate(row)
    }
