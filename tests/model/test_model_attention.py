import pytest
import torch

from caslon.model.attention import (
    AttentionMaps,
    attention_weights,
    causal,
    document_attention,
    document_mask,
    reference_attention,
)
from caslon.model.decoder import rotate, rotation

Q = torch.tensor([[1.0, 0, 2], [2, 2, 2], [2, 1, 3]])[None, None]
K = torch.tensor([[0.0, 1, 1], [4, 4, 0], [2, 3, 1]])[None, None]
V = torch.tensor([[1.0, 2, 3], [2, 8, 0], [2, 6, 3]])[None, None]
UNSCALED = [[1.9366, 6.6831, 1.5951], [2.0000, 7.9640, 0.0540], [1.9997, 7.7599, 0.3584]]
SCALED = [[1.8639, 6.3194, 1.7042], [1.9991, 7.8141, 0.2735], [1.9926, 7.4796, 0.7359]]


def random_heads(heads=4, kv_heads=2, length=20, batch=2):
    generator = torch.Generator().manual_seed(3)
    shapes = ((batch, heads, length, 8), (batch, kv_heads, length, 8), (batch, kv_heads, length, 8))
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.promise("pretraining", "attention has the values worked out by hand, unscaled, scaled and causal")
def test_values_worked_by_hand():
    assert torch.allclose(reference_attention(Q, K, V, scale=1.0)[0, 0], torch.tensor(UNSCALED), atol=6e-5)
    assert torch.allclose(reference_attention(Q, K, V)[0, 0], torch.tensor(SCALED), atol=6e-5)
    masked = causal(0, Q, K, V)[0, 0]
    assert torch.allclose(masked[:2], torch.tensor([[1.0, 2, 3], [1.9990, 7.9941, 0.0029]]), atol=6e-5)


def test_causal_kernel_equals_the_definition():
    queries, keys, values = random_heads()
    mask = torch.ones(20, 20, dtype=torch.bool).tril()
    assert torch.allclose(causal(0, queries, keys, values), reference_attention(queries, keys, values, mask), atol=1e-6)


def test_document_attention_equals_the_definition_and_each_document_alone():
    queries, keys, values = random_heads()
    documents = torch.tensor([[0] * 7 + [1] * 13, [0] * 1 + [1] * 4 + [2] * 15])
    mixed = document_attention(documents)(0, queries, keys, values)
    assert torch.allclose(mixed, reference_attention(queries, keys, values, document_mask(documents)), atol=1e-6)
    alone = causal(0, queries[:1, :, 7:], keys[:1, :, 7:], values[:1, :, 7:])
    assert torch.allclose(mixed[:1, :, 7:], alone, atol=1e-6)


@pytest.mark.parametrize("attend", [causal, document_attention(torch.tensor([[0] * 7 + [1] * 13] * 2))])
def test_bf16_that_is_trained_has_the_results_and_gradients_of_float32(attend):
    exact = [x.requires_grad_() for x in random_heads()]
    low = [x.detach().bfloat16().requires_grad_() for x in exact]
    way = torch.randn(2, 4, 20, 8, generator=torch.Generator().manual_seed(5))
    outputs = [attend(0, *heads) for heads in (exact, low)]
    gradients = [torch.autograd.grad((o * way).sum(), heads) for o, heads in zip(outputs, (exact, low), strict=True)]
    for one, other in zip((outputs[0], *gradients[0]), (outputs[1], *gradients[1]), strict=True):
        assert (one - other.float()).norm() < 0.02 * one.norm()


@pytest.mark.promise("pretraining", "grouped queries equal full heads with repeated keys and values")
def test_grouped_heads_equal_repeated_heads():
    queries, keys, values = random_heads(heads=6, kv_heads=2)
    repeated = causal(0, queries, keys.repeat_interleave(3, 1), values.repeat_interleave(3, 1))
    assert torch.allclose(causal(0, queries, keys, values), repeated, atol=1e-6)


@pytest.mark.promise("pretraining", "rotary scores depend on the distance of two positions only")
def test_scores_do_not_change_when_all_positions_shift():
    queries, keys, _ = random_heads(heads=2, kv_heads=2)

    def shares(shift):
        turn = rotation(torch.arange(20)[None] + shift, 8, 10_000.0, torch.float32)
        turned = [rotate(x.transpose(1, 2), turn).transpose(1, 2) for x in (queries, keys)]
        return turned[0] @ turned[1].transpose(-2, -1)

    assert torch.allclose(shares(0), shares(7), atol=1e-4)
    assert not torch.allclose(shares(0), queries @ keys.transpose(-2, -1), atol=1e-2)


def test_rotation_gradient_is_right():
    turn = rotation(torch.arange(5)[None], 4, 100.0, torch.float64)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotate(x, turn), (x,))


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_maps_are_returned_for_every_layer_and_head(family, make_decoder):
    decoder = make_decoder(family)
    ids = torch.randint(0, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    maps = AttentionMaps()
    with torch.no_grad():
        assert torch.allclose(decoder(ids, attend=maps), decoder(ids), atol=1e-5)
    assert sorted(maps.maps) == [0, 1]
    for shares in maps.maps.values():
        assert shares.shape == (2, 4, 12, 12)
        assert torch.allclose(shares.sum(-1), torch.ones(2, 4, 12), atol=1e-6)
        assert shares.triu(1).count_nonzero() == 0


def test_weights_are_shares():
    assert torch.allclose(attention_weights(Q, K).sum(-1), torch.ones(1, 1, 3))
