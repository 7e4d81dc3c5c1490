import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from caslon.errors import UserError
from caslon.model.attention import document_attention
from caslon.model.config import FAMILIES, DecoderConfig
from caslon.model.decoder import Decoder, RMSNorm

GUIDE = Path(__file__).parents[2] / "docs" / "guide"


def some_ids(*shape, vocab_size=300):
    return torch.randint(0, vocab_size, shape, generator=torch.Generator().manual_seed(4))


def logits_of(decoder, ids, *args):
    with torch.no_grad():
        return decoder.logits(decoder(ids, *args))


@pytest.mark.promise("pretraining", "changing a token changes no logit before it")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_changes_nothing_before_it(family, make_decoder):
    decoder = make_decoder(family)
    ids = some_ids(1, 40)
    changed = ids.clone()
    changed[0, 25] = (ids[0, 25] + 1) % 300
    before, after = logits_of(decoder, ids), logits_of(decoder, changed)
    assert (before[:, :25] - after[:, :25]).abs().max() <= 1e-6
    assert (before[:, 25:] - after[:, 25:]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_in_a_packed_row_has_the_logits_it_has_alone(family, make_decoder):
    decoder = make_decoder(family)
    ids = some_ids(1, 40)
    documents = torch.tensor([[0] * 15 + [1] * 25])
    positions = torch.tensor([[*range(15), *range(25)]])
    packed = logits_of(decoder, ids, positions, document_attention(documents))[:, 15:]
    assert (packed - logits_of(decoder, ids[:, 15:])).abs().max() <= 1e-5
    assert (packed - logits_of(decoder, ids)[:, 15:]).abs().max() > 1e-3  # without the mask


def test_grouped_heads_equal_full_heads_with_repeated_weights(make_decoder):
    grouped = make_decoder("llama")
    full = make_decoder("llama", num_key_value_heads=4)
    state = dict(grouped.state_dict())
    for name in [name for name in state if "k_proj" in name or "v_proj" in name]:
        state[name] = state[name].view(2, 8, 32).repeat_interleave(2, 0).reshape(32, 32)
    full.load_state_dict(state)
    ids = some_ids(2, 30)
    assert (logits_of(grouped, ids) - logits_of(full, ids)).abs().max() <= 1e-6


@pytest.mark.promise("pretraining", "tied weights are one tensor that gets gradient from both uses")
@pytest.mark.parametrize("family", FAMILIES)
def test_tied_weights_are_one_tensor_with_gradient_from_both_uses(family, make_decoder):
    decoder = make_decoder(family)
    assert not any(name.startswith("lm_head") for name, _ in decoder.named_parameters())
    ids = torch.tensor([[1, 2, 3]])
    hidden = decoder(ids)
    table = decoder.model.embed_tokens.weight
    as_head = torch.autograd.grad(decoder.logits(hidden.detach())[..., 7].sum(), table)[0]
    assert as_head[7].abs().sum() > 0 and as_head[1].abs().sum() == 0
    both = torch.autograd.grad(decoder.logits(hidden)[..., 7].sum(), table)[0]
    assert both[1].abs().sum() > 0 and both[7].abs().sum() > 0 and both[9].abs().sum() == 0


def test_an_untied_head_has_its_own_weights(make_decoder):
    decoder = make_decoder("llama", tie_word_embeddings=False)
    assert decoder.lm_head.weight.data_ptr() != decoder.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize("family", FAMILIES)
def test_initial_weights_come_from_the_seed_alone(family, make_config):
    first, second, other = (Decoder(make_config(family)) for _ in range(3))
    state = torch.random.get_rng_state()
    first.initialise(7)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    second.initialise(7)
    other.initialise(8)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)


@pytest.mark.promise(
    "pretraining", "weights start with deviation 0.02, smaller by the root of twice the layers on branches"
)
def test_initial_deviations():
    decoder = Decoder(DecoderConfig.preset("nano"))
    decoder.initialise(1)
    layer = decoder.model.layers[2]
    assert layer.self_attn.q_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for branch in (layer.self_attn.o_proj, layer.mlp.down_proj):
        assert branch.weight.std().item() == pytest.approx(0.02 / math.sqrt(8), rel=0.05)
    assert torch.equal(layer.input_layernorm.weight, torch.ones(128))


def real_ids(vocab_size: int, count: int) -> torch.Tensor:
    """This project's own guide as words with the space before (in small vocabularies as characters), commonest first."""
    text = "".join(file.read_text() for file in sorted(GUIDE.glob("*.md")))
    pieces = re.findall(r"\s*(?:\w+|[^\w\s])", text) if vocab_size > 256 else list(text)
    numbers = {piece: number for number, (piece, _) in enumerate(Counter(pieces).most_common(vocab_size))}
    ids = [numbers[piece] for piece in pieces if piece in numbers]
    assert len(ids) >= count
    return torch.tensor(ids[:count])


@pytest.mark.promise(
    "pretraining", "the loss before training is that of a uniform guess, on real text, in every preset"
)
@pytest.mark.parametrize(
    "preset",
    [
        *("char-10m", "tiny", "nano", "moe-toy"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("slm", "slm-llama", "slm-qwen3", "llama-188", "regular")
        ),
    ],
)
def test_the_start_loss_is_that_of_a_uniform_guess(preset):
    config = DecoderConfig.preset(preset)
    decoder = Decoder(config).eval()
    decoder.initialise(1)
    context = config.max_position_embeddings
    rows = 8192 // context
    ids = real_ids(config.vocab_size, 8192 + 1)
    targets = ids[1:].view(rows, context)
    loss = 0.0
    with torch.no_grad():
        for row in range(rows):
            hidden = decoder(ids[row * context : (row + 1) * context][None])[0]
            loss += F.cross_entropy(decoder.logits(hidden), targets[row], reduction="sum").item() / 8192
    assert math.log(config.vocab_size) - 0.05 <= loss <= math.log(config.vocab_size) + 0.35


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_acts_in_training_only(family, make_decoder):
    decoder = make_decoder(family, dropout=0.5)
    ids = some_ids(1, 10)
    plain = logits_of(decoder, ids)
    assert torch.equal(plain, logits_of(decoder, ids))
    decoder.train()
    assert not torch.allclose(plain, logits_of(decoder, ids))


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_activations_give_bit_equal_gradients(family, make_decoder):
    decoder = make_decoder(family, dropout=0.1).train()
    ids = some_ids(2, 20)

    def gradients(every):
        decoder.checkpoint_every = every
        decoder.zero_grad()
        torch.manual_seed(5)
        decoder.logits(decoder(ids)).square().mean().backward()
        return [parameter.grad.clone() for parameter in decoder.parameters()]

    kept = gradients(0)
    for every in (1, 2):
        assert all(torch.equal(a, b) for a, b in zip(kept, gradients(every), strict=True))


def test_rms_norm_equals_torch_and_has_the_right_gradient():
    norm = RMSNorm(6, 1e-5)
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 6))
    assert torch.allclose(norm(x), F.rms_norm(x, (6,), norm.weight, 1e-5), atol=1e-6)
    way = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2))
    ours = torch.autograd.grad((norm(x) * way).sum(), (x, norm.weight))
    theirs = torch.autograd.grad((F.rms_norm(x, (6,), norm.weight, 1e-5) * way).sum(), (x, norm.weight))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_low_precision_runs_and_stays_close(family, make_decoder):
    decoder = make_decoder(family)
    ids = some_ids(1, 8)
    exact = logits_of(decoder, ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = logits_of(decoder, ids)
    assert (mixed.float() - exact).abs().max() < 0.1 * exact.abs().max()
    low = logits_of(decoder.to(torch.bfloat16), ids)
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_layers_of_a_mixture_can_be_compiled(make_decoder):
    decoder = make_decoder("mixtral").train()
    ids = some_ids(2, 16)

    def gradients():
        decoder.zero_grad()
        routings = []
        hidden = decoder(ids, record=routings.append)
        penalty = sum(routing.probabilities.square().sum() for routing in routings)
        (decoder.logits(hidden).square().mean() + penalty).backward()
        return [parameter.grad.clone() for parameter in decoder.parameters()]

    plain = gradients()
    for layer in decoder.model.layers:
        layer.compile(backend="eager")
    for one, other in zip(plain, gradients(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_row_longer_than_the_context_is_refused(make_decoder):
    with pytest.raises(UserError, match="97 tokens"):
        make_decoder("gpt2")(some_ids(1, 97))
