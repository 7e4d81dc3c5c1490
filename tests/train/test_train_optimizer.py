import pytest
import torch
from torch import nn

from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.train.optimizer import BETAS, EPSILON, Optimizer, OptimizerName, groups, orthogonalised


def decoder(family: str = "qwen3", **changes: object) -> Decoder:
    config = DecoderConfig.from_depth(2, family=family, vocab_size=64, context=16, hidden_size=32, **changes)  # type: ignore[arg-type]
    made = Decoder(config)
    made.initialise(0)
    return made


def set_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.promise("pretraining", "Muon brings the singular values of a matrix near one")
@pytest.mark.parametrize("shape", [(128, 512), (512, 128), (128, 128)])
def test_muon_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert values.max() <= 1.2
    # A square Gaussian matrix has values near 0, which five steps cannot lift.
    assert values.min() >= 0.6 or shape == (128, 128)


def test_stacked_matrices_are_orthogonalised_one_by_one() -> None:
    stack = torch.randn(3, 16, 40, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([orthogonalised(stack[place : place + 1]) for place in range(3)])
    torch.testing.assert_close(orthogonalised(stack), alone, rtol=1e-4, atol=1e-5)


def test_muon_update_has_the_size_of_an_adamw_update() -> None:
    model = nn.Sequential(nn.Linear(64, 256))
    before = model[0].weight.detach().clone()
    set_gradients(model, 0)
    Optimizer(model, "muon", weight_decay=0.0).step(1.0)
    assert (model[0].weight - before).square().mean().sqrt().item() == pytest.approx(0.2, rel=0.15)


@pytest.mark.promise("pretraining", "an AdamW step equals that of torch bit for bit")
def test_adamw_equals_torch_bit_for_bit() -> None:
    ours, theirs = decoder(), decoder()
    optimizer = Optimizer(ours, "adamw", weight_decay=0.1)
    decayed = [parameter for parameter in theirs.parameters() if parameter.ndim >= 2]
    free = [parameter for parameter in theirs.parameters() if parameter.ndim < 2]
    reference = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": free, "weight_decay": 0.0}],
        lr=1e-3,
        betas=BETAS,
        eps=EPSILON,
        fused=True,
    )
    for step in range(3):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        optimizer.step(1e-3)
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.promise("pretraining", "tensors of one dimension get no weight decay")
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_one_dimensional_tensors_are_never_decayed(family: str, name: OptimizerName) -> None:
    model = decoder(family, tie_word_embeddings=False)
    found = groups(model.named_parameters(), name)
    assert all(parameter.ndim == 1 for parameter in found.free.values())
    assert {*found.matrices, *found.tables, *found.head, *found.decayed, *found.free} == {
        key for key, _ in model.named_parameters()
    }
    assert all(
        parameter.ndim >= 2 for parameter in (found.matrices | found.tables | found.head | found.decayed).values()
    )
    assert all("embed" in key for key in found.tables)
    assert len(found.tables) == (2 if family == "gpt2" else 1)
    assert list(found.head) == ["lm_head.weight"]
    if name == "muon":
        assert not found.decayed
        assert all(".layers." in key for key in found.matrices)


def test_tables_and_an_untied_head_have_rates_of_their_own() -> None:
    plain, faster = decoder(tie_word_embeddings=False), decoder(tie_word_embeddings=False)
    before = {name: value.detach().clone() for name, value in plain.named_parameters()}
    for model, table, head in ((plain, 1.0, 1.0), (faster, 4.0, 0.5)):
        set_gradients(model, 0)
        Optimizer(model, "muon", weight_decay=0.0, table_rate_ratio=table, head_rate_ratio=head).step(0.01)
    for (name, one), other in zip(plain.named_parameters(), faster.parameters(), strict=True):
        ratio = ((other - before[name]).norm() / (one - before[name]).norm()).item()
        assert ratio == pytest.approx(4.0 if "embed" in name else 0.5 if "lm_head" in name else 1.0, rel=1e-3)


def test_muon_in_bf16_is_near_muon_in_float32() -> None:
    stack = torch.randn(2, 64, 96, generator=torch.Generator().manual_seed(2))
    exact, low = orthogonalised(stack), orthogonalised(stack, torch.bfloat16).float()
    assert (exact - low).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_restores_the_next_update_exactly(name: OptimizerName) -> None:
    whole, parts = decoder(), decoder()
    first, second = Optimizer(whole, name, weight_decay=0.1), Optimizer(parts, name, weight_decay=0.1)
    for step in range(2):
        for model, optimizer in ((whole, first), (parts, second)):
            set_gradients(model, step)
            optimizer.step(0.01)
    again = Optimizer(parts, name, weight_decay=0.1)
    again.load({key: value.clone() for key, value in second.state().items()})
    for model, optimizer in ((whole, first), (parts, again)):
        set_gradients(model, 9)
        optimizer.step(0.01)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
