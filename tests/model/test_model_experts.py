import math

import pytest
import torch
import torch.nn.functional as F

from caslon.model.config import DecoderConfig
from caslon.model.decoder import FeedForward, Linear, MixtureOfExperts
from caslon.model.experts import (
    Routing,
    balance_loss,
    by_expert,
    dead_experts,
    expert_capacity,
    expert_counts,
    expert_shares,
    jittered,
    layerwise_balance_loss,
    route,
    routing_entropy,
)


def routed(experts, probabilities) -> Routing:
    """A routing with given choices [N, k] and, for every token, the same probabilities [E]."""
    chosen = torch.tensor(experts)
    weights = torch.full(chosen.shape, 1 / chosen.shape[1])
    return Routing(torch.tensor([probabilities] * len(chosen)), chosen, weights)


def mixture(seed=1, **changes) -> MixtureOfExperts:
    config = DecoderConfig.preset("moe-toy", **{"hidden_size": 16, "intermediate_size": 24, **changes})
    found = MixtureOfExperts(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return found.eval()


def one_token_at_a_time(layer: MixtureOfExperts, x: torch.Tensor) -> torch.Tensor:
    """The definition: no sorting, no groups."""
    rows = []
    for token in x.flatten(0, -2):
        probabilities = F.linear(token, layer.gate.weight).softmax(-1)
        weights, chosen = probabilities.topk(layer.per_token)
        weights = weights / weights.sum()
        rows.append(sum(w * layer.experts[int(e)](token) for w, e in zip(weights, chosen, strict=True)))
    return torch.stack(rows).view_as(x)


@pytest.mark.promise(
    "pretraining", "a toy mixture of 4 experts, top-2, takes 8 x 10 numbers to 8 x 5 with weights of sum 1"
)
def test_the_toy_form_has_the_right_shape_and_weights_that_sum_to_one():
    x = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))
    gate = torch.randn(4, 10, generator=torch.Generator().manual_seed(1))
    heads = torch.randn(4, 5, 10, generator=torch.Generator().manual_seed(2))
    routing = route(x @ gate.T, 2)
    assert torch.allclose(routing.weights.sum(1), torch.ones(8))
    assert torch.allclose(routing.probabilities.sum(1), torch.ones(8))
    order, sizes = by_expert(routing.experts, 4)
    assert sum(sizes) == 16
    parts = torch.split(x[order // 2], sizes)
    found = torch.cat([part @ head.T for part, head in zip(parts, heads, strict=True)])
    output = (torch.empty(16, 5).index_copy(0, order, found).view(8, 2, 5) * routing.weights[..., None]).sum(1)
    expected = torch.stack(
        [
            sum(w * (heads[e] @ row) for w, e in zip(*pair, strict=True))
            for row, *pair in zip(x, routing.weights, routing.experts, strict=True)
        ]
    )
    assert output.shape == (8, 5)
    assert torch.allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize("per_token", [1, 2, 4])
def test_grouped_experts_equal_the_definition(per_token):
    layer = mixture(num_experts_per_tok=per_token)
    x = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(5))
    for mode in (torch.no_grad(), torch.enable_grad()):
        with mode:
            output, routing = layer(x)
        assert torch.allclose(output, one_token_at_a_time(layer, x), atol=1e-5)
        assert routing.experts.shape == (21, per_token)
        assert routing.dropped == 0


def test_every_expert_gets_a_gradient_also_one_without_tokens():
    layer = mixture().train()
    with torch.no_grad():
        layer.gate.weight.zero_()
        layer.gate.weight[:2] = 1.0  # experts 0 and 1 for every token with a positive sum
    output, routing = layer(torch.rand(2, 5, 16))
    assert expert_counts(routing).tolist() == [10, 10, 0, 0]
    output.square().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert layer.experts[3].up_proj.weight.grad.count_nonzero() == 0
    assert layer.experts[1].up_proj.weight.grad.count_nonzero() > 0


def test_a_token_has_the_same_bits_whatever_is_computed_beside_it():
    layer = mixture()
    x = torch.randn(1, 64, 16, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        whole = layer(x)[0]
        for size in (4, 8, 28):
            assert torch.equal(layer(x[:, :size])[0], whole[:, :size])


def test_noise_and_capacity_act_in_training_only():
    layer = mixture(router_jitter_noise=0.5, expert_capacity_factor=0.5)
    x = torch.randn(1, 32, 16, generator=torch.Generator().manual_seed(3))
    plain, routing = layer(x)
    assert torch.equal(plain, layer(x)[0]) and routing.dropped == 0
    layer.train()
    torch.manual_seed(1)
    noisy, routing = layer(x)
    assert not torch.allclose(noisy, plain, atol=1e-3)
    assert routing.dropped >= 32  # room for half of the 64 choices


def test_jitter_scales_within_its_bounds():
    rows = torch.full((100, 10), 2.0)
    found = jittered(rows, 0.1)
    assert 1.8 <= found.min() < 1.85 and 2.15 < found.max() <= 2.2


def test_an_expert_keeps_its_earliest_tokens_up_to_its_capacity_and_drops_are_counted():
    layer = mixture(expert_capacity_factor=1.0, num_experts_per_tok=1).train()
    with torch.no_grad():
        layer.gate.weight.zero_()
        layer.gate.weight[2] = 1.0
    x = torch.rand(1, 8, 16)
    output, routing = layer(x)
    assert expert_capacity(1.0, 8, 1, 4) == 2
    assert routing.dropped == 6
    assert torch.allclose(output[:, :2], layer.experts[2](x[:, :2]), atol=1e-6)
    assert output[:, 2:].count_nonzero() == 0  # the residual stream alone goes on


def test_capacity_is_the_even_share_times_the_factor():
    assert expert_capacity(1.25, 64, 2, 4) == 40
    assert expert_capacity(1.0, 3, 1, 2) == 2
    assert expert_capacity(0.0, 64, 2, 4) is None


@pytest.mark.promise(
    "pretraining", "the balance loss is 2 for even top-2 routing and 4 when 2 of 4 experts get everything"
)
def test_balance_loss_vectors():
    even = routed([[0, 1], [2, 3], [1, 2], [3, 0]], [0.25] * 4)
    assert float(balance_loss([even])) == pytest.approx(2.0)
    collapsed = routed([[0, 1]] * 4, [0.5, 0.5, 0.0, 0.0])
    assert float(balance_loss([collapsed])) == pytest.approx(4.0)


def test_balance_loss_counts_all_layers_together_and_leaves_padding_out():
    first = routed([[0, 1]] * 3 + [[2, 3]], [0.4, 0.3, 0.2, 0.1])
    second = routed([[2, 3]] * 3 + [[0, 1]], [0.1, 0.2, 0.3, 0.4])
    assert float(balance_loss([first, second])) == pytest.approx(2.0)  # unequal layers that are even together
    apart = 4 * (0.75 * 0.7 + 0.25 * 0.3)
    assert float(layerwise_balance_loss([first, second])) == pytest.approx(apart)
    kept = torch.tensor([True, True, True, False])
    assert float(balance_loss([first], kept)) == pytest.approx(4 * (0.4 + 0.3))


def test_balance_loss_pushes_the_router_towards_even_routing():
    layer = mixture().train()
    x = torch.randn(1, 256, 16, generator=torch.Generator().manual_seed(3)) + 0.5
    losses = []
    for _ in range(60):
        loss = balance_loss([layer(x)[1]])
        losses.append(loss.item())
        gradient = torch.autograd.grad(loss, layer.gate.weight)[0]
        with torch.no_grad():
            layer.gate.weight -= 0.3 * gradient
    assert losses[-1] < losses[0] and losses[-1] == pytest.approx(2.0, abs=0.1)


@pytest.mark.promise("pretraining", "shares by expert and layer, dead experts and entropy are reported")
def test_shares_dead_experts_and_entropy():
    counts = torch.tensor([[50.0, 50.0, 50.0, 50.0], [199.0, 1.0, 0.0, 0.0]])
    shares = expert_shares(counts)
    assert torch.allclose(shares.sum(1), torch.ones(2))
    assert dead_experts(shares) == [(1, 1), (1, 2), (1, 3)]
    entropy = routing_entropy(shares)
    assert float(entropy[0]) == pytest.approx(math.log(4))
    assert float(entropy[1]) == pytest.approx(-(0.995 * math.log(0.995) + 0.005 * math.log(0.005)), abs=1e-6)


def test_experts_are_ordinary_matrices_each_its_own_parameter():
    layer = mixture()
    assert all(isinstance(expert, FeedForward) and isinstance(expert.up_proj, Linear) for expert in layer.experts)
    assert all(parameter.dim() == 2 for parameter in layer.parameters())
