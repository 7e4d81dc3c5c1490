import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.experts import Routing, layerwise_balance_loss
from caslon.train.batches import Batch, Row, rows_to_batch
from caslon.train.objectives import HeadCrossEntropy, NextToken
from caslon.train.precision import Compute
from caslon.train.validation import measures_of, validation_sums

VOCABULARY = 50


def batch(rows: int = 3, context: int = 12, seed: int = 0) -> Batch:
    ids = torch.randint(2, VOCABULARY, (rows, context + 1), generator=torch.Generator().manual_seed(seed))
    return rows_to_batch([Row(row, ()) for row in ids.numpy()], context, end_id=1, mask_documents=True)


def decoder(**changes: object) -> Decoder:
    made = Decoder(
        DecoderConfig.from_depth(1, family="llama", vocab_size=VOCABULARY, context=12, hidden_size=32, **changes)
    )  # type: ignore[arg-type]
    made.initialise(0)
    return made


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunked_loss_and_gradients_equal_the_plain_ones(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 16, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (40,), generator=generator)
    plain = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    expected = torch.autograd.grad(plain, (hidden, weight))
    total = HeadCrossEntropy.apply(hidden, weight, targets, chunk)
    (total / 40).backward()
    assert total.item() == pytest.approx(plain.item(), rel=1e-6)
    for found, reference in zip((hidden.grad, weight.grad), expected, strict=True):
        assert found is not None
        torch.testing.assert_close(found * 40, reference, rtol=1e-5, atol=1e-5)


def loss_and_gradients(chunk: int, z_loss: float = 0.0) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Return the mean nats of 40 targets and its gradients."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(40, 16, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, VOCABULARY, (40,), generator=generator)
    if chunk:
        loss = HeadCrossEntropy.apply(hidden, weight, targets, chunk, z_loss) / 40
    else:
        logits = hidden @ weight.T
        loss = F.cross_entropy(logits, targets) + z_loss * torch.logsumexp(logits, 1).square().mean()
    return (loss.item(), *torch.autograd.grad(loss, (hidden, weight)))


@pytest.mark.promise("pretraining", "the loss and its gradients are the same in chunks of any size (1e-6)")
def test_chunks_change_neither_the_loss_nor_its_gradients() -> None:
    whole = loss_and_gradients(chunk=40)
    for chunk in (1, 7, 512):
        part = loss_and_gradients(chunk)
        assert part[0] == pytest.approx(whole[0], rel=1e-6)
        torch.testing.assert_close(part[1:], whole[1:], rtol=0, atol=1e-6)


def test_the_z_loss_adds_its_gradient_and_not_its_value() -> None:
    expected, found = loss_and_gradients(0, z_loss=0.1), loss_and_gradients(7, z_loss=0.1)
    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-4, atol=1e-6)
    assert found[0] == pytest.approx(loss_and_gradients(7)[0], rel=1e-6)
    assert found[0] < expected[0]


@pytest.mark.parametrize("tied", [True, False])
def test_loss_equals_the_cross_entropy_of_the_logits_of_scored_targets(tied: bool) -> None:
    model, rows = decoder(tie_word_embeddings=tied), batch()
    rows.scored[1, 4:] = False
    found = NextToken(chunk_tokens=5).loss(model, rows)
    logits = model.logits(model(rows.ids, rows.positions))
    expected = F.cross_entropy(logits[rows.scored], rows.targets[rows.scored], reduction="sum")
    assert found.sum.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.count == int(rows.scored.sum()) == NextToken().count(rows)


def test_without_gradients_the_loss_is_the_same_and_hits_are_counted() -> None:
    model, rows = decoder(), batch()
    trained = NextToken(chunk_tokens=5).loss(model, rows)
    with torch.no_grad():
        measured = NextToken(chunk_tokens=5).loss(model, rows)
        logits = model.logits(model(rows.ids, rows.positions))
    assert measured.sum.item() == pytest.approx(trained.sum.item(), rel=1e-5)
    assert measured.metrics["correct"] == float((logits.argmax(-1) == rows.targets).sum())


def test_a_target_of_vanishing_probability_costs_finite_nats() -> None:
    hidden, weight = torch.ones(1, 1, requires_grad=True), torch.tensor([[200.0], [0.0]])
    total = HeadCrossEntropy.apply(hidden, weight, torch.tensor([1]), 8)
    assert 87 < total.item() < 88
    total.backward()
    assert hidden.grad is not None
    assert hidden.grad.item() == pytest.approx(200.0)


def test_losses_that_are_not_numbers_stay_so() -> None:
    hidden = torch.full((1, 1), math.nan, requires_grad=True)
    assert math.isnan(HeadCrossEntropy.apply(hidden, torch.ones(2, 1), torch.tensor([1]), 8).item())


def test_gradients_in_bf16_are_near_those_in_float32() -> None:
    model, rows = decoder(), batch()
    parameters = list(model.parameters())
    exact = torch.autograd.grad(NextToken().loss(model, rows).sum, parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = NextToken().loss(model, rows).sum
    found = torch.autograd.grad(mixed, parameters)
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.03 * other.norm()


def test_targets_that_are_not_scored_change_nothing() -> None:
    model, rows = decoder(), batch()
    rows.scored[:, ::2] = False
    before = torch.autograd.grad(NextToken().loss(model, rows).sum, list(model.parameters()))
    rows.targets[~rows.scored] = 7
    after = torch.autograd.grad(NextToken().loss(model, rows).sum, list(model.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.promise("pretraining", "a uniform model of bytes has 8.000 bits per byte")
def test_bits_per_byte_of_a_uniform_byte_model_is_eight() -> None:
    model = Decoder(DecoderConfig.from_depth(1, family="llama", vocab_size=256, context=12, hidden_size=32))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    ids = np.frombuffer("To be, or not to be: naïve £5".encode(), dtype=np.uint8).astype(np.int64)
    rows = rows_to_batch([Row(ids[:13], ()), Row(ids[12:25], ())], 12, end_id=0, mask_documents=False)
    objective = NextToken(byte_counts=torch.ones(256))
    sums = validation_sums(model, objective, [rows], Compute(torch.device("cpu"), "fp32", "test"), rows=1)
    assert measures_of(objective, sums, "val")["eval/val_bpb"] == pytest.approx(8.0, abs=5e-4)


def test_bytes_of_the_targets_are_counted() -> None:
    rows = batch()
    sizes = torch.arange(VOCABULARY)
    found = NextToken(byte_counts=sizes).loss(decoder(), rows)
    assert found.metrics["bytes"] == int(rows.targets.sum())


def mixture_decoder(coefficient: float, **changes: object) -> Decoder:
    shape = {"vocab_size": VOCABULARY, "max_position_embeddings": 12, "router_aux_loss_coef": coefficient, **changes}
    made = Decoder(DecoderConfig.preset("moe-toy", **shape))
    made.initialise(0)
    return made


@pytest.mark.promise("pretraining", "the balance loss of experts trains beside the loss and is reported apart from it")
@pytest.mark.parametrize("recompute", [0, 1])
def test_the_balance_loss_adds_its_gradient_and_not_its_value(recompute: int) -> None:
    rows = batch()
    rows.scored[1, 4:] = False
    without, with_it = mixture_decoder(0.0), mixture_decoder(0.5)
    with_it.checkpoint_every = recompute
    plain, penalised = NextToken().loss(without, rows), NextToken().loss(with_it, rows)
    assert penalised.sum.item() == plain.sum.item()
    routings: list[Routing] = []
    without(rows.ids, rows.positions, record=routings.append)
    expected = layerwise_balance_loss(routings, rows.scored.flatten())
    assert len(routings) == 2
    measures = NextToken().measures(penalised.sum.item(), penalised.count, penalised.metrics)
    assert measures["aux_loss"] == pytest.approx(expected.item(), rel=1e-6)
    parameters = list(without.parameters())
    nats = torch.autograd.grad(plain.sum, parameters)
    balance = torch.autograd.grad(expected, parameters, allow_unused=True)
    both = torch.autograd.grad(penalised.sum, list(with_it.parameters()))
    for one, other, found in zip(nats, balance, both, strict=True):
        wanted = one if other is None else one + 0.5 * plain.count * other
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_use_of_experts_is_reported_in_training_and_by_expert_in_evaluation() -> None:
    model, rows = mixture_decoder(0.01), batch()
    trained = NextToken().loss(model, rows)
    assert trained.metrics["expert_counts"].sum(1).tolist() == [72.0, 72.0]  # 36 tokens, two experts each
    measures = NextToken().measures(1.0, trained.count, trained.metrics)
    assert set(measures) == {
        "aux_loss",
        "expert_share_min",
        "expert_share_max",
        "expert_entropy",
        "dead_experts",
        "dropped",
    }
    with torch.no_grad():
        evaluated = NextToken().loss(model, rows)
    measures = NextToken().measures(1.0, evaluated.count, evaluated.metrics)
    assert sum(measures[f"expert_share.1.{expert}"] for expert in range(4)) == pytest.approx(1.0)


def test_choices_above_an_experts_capacity_are_counted() -> None:
    model = mixture_decoder(0.01, expert_capacity_factor=0.5).train()
    found = NextToken().loss(model, batch())
    assert 2 * 36 <= int(found.metrics["dropped"]) < 2 * 72
