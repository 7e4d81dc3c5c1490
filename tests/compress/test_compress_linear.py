import pytest
import torch
from torch import Tensor, nn

from caslon.compress.formats import WEIGHT_FORMATS, WeightFormat, group_of, matrix_bytes
from caslon.compress.linear import (
    INT4_CLIPPINGS,
    KINDS,
    NF4_TABLE,
    Int4Linear,
    Int8Linear,
    Nf4Linear,
    quantise_layers,
    resident_bytes,
)
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder


def weights(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", WEIGHT_FORMATS)
def test_storage_is_packed_and_counted(kind: WeightFormat) -> None:
    layer = KINDS[kind].quantised(weights(48, 256), None)
    group = group_of(kind, 256)
    assert layer.weight.shape == ((48, 256) if kind == "int8" else (48, 128))
    assert layer.scale.shape == ((48,) if kind == "int8" else (48, 256 // group))
    assert layer.scale.dtype == torch.float32
    assert layer.resident_bytes == matrix_bytes(kind, 48, 256).total
    assert torch.equal(layer.scale, layer.scale.bfloat16().float())  # a file in 16 bits holds them exactly


def test_int8_error_is_half_a_step_at_most() -> None:
    weight = weights(32, 96)
    layer = Int8Linear.quantised(weight, None)
    error = (layer.dequantised() - weight).abs()
    # the largest weight may stand a quarter of a step outside, where rounding the scale to 16 bits made it smaller
    assert (error <= 0.5 * layer.scale[:, None] * 1.001).all()


def test_int4_low_bits_are_the_even_channel() -> None:
    weight = weights(16, 128)
    layer = Int4Linear.quantised(weight, None)
    by_hand = torch.empty(16, 128)
    by_hand[:, ::2] = ((layer.weight & 15).float() - 8) * layer.scale
    by_hand[:, 1::2] = ((layer.weight >> 4).float() - 8) * layer.scale
    assert torch.equal(layer.dequantised(), by_hand)
    clipped = weight.abs() > 7.5 * layer.scale
    assert ((by_hand - weight).abs()[~clipped] <= 0.5001 * layer.scale.expand(16, 128)[~clipped]).all()


def test_int4_scale_is_the_best_of_the_clippings() -> None:
    weight = weights(8, 64)
    layer = Int4Linear.quantised(weight, None)
    errors = []
    for clipping in INT4_CLIPPINGS:
        scale = (weight.abs().amax(1, keepdim=True) / clipping).bfloat16().float()
        errors.append((((weight / scale).round().clamp(-8, 7) * scale) - weight).square().sum(1))
    torch.testing.assert_close((layer.dequantised() - weight).square().sum(1), torch.stack(errors).amin(0))


def test_nf4_values_are_the_table_s() -> None:
    layer = Nf4Linear.quantised(weights(8, 128), None)
    values = layer.dequantised().view(8, 2, 64) / layer.scale[..., None]
    table = torch.tensor(NF4_TABLE)
    assert (values[..., None] - table).abs().amin(-1).max() < 1e-6
    nearest = weights(8, 128).view(8, 2, 64) / layer.scale[..., None]
    assert torch.equal((nearest[..., None] - table).abs().argmin(-1), (values[..., None] - table).abs().argmin(-1))


@pytest.mark.promise(
    "engine", "NF4 leaves a relative error of 0.0920 on normal weights, int4 no more than 0.105, int8 under 0.01"
)
def test_errors_on_normal_weights() -> None:
    weight = weights(1024, 4096)
    error = {
        kind: ((KINDS[kind].quantised(weight, None).dequantised() - weight).norm() / weight.norm()).item()
        for kind in WEIGHT_FORMATS
    }
    assert error["nf4"] == pytest.approx(0.0920, abs=5e-4)
    assert error["int4"] < 0.105
    assert error["int8"] < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", WEIGHT_FORMATS)
def test_product_is_that_of_the_dequantised_weights(kind: WeightFormat, dtype: torch.dtype) -> None:
    layer = KINDS[kind].quantised(weights(32, 128) / 8, weights(1, 32)[0].to(dtype))
    x = weights(24, 128, seed=3).view(2, 12, 128).to(dtype)
    expected = x.double() @ layer.dequantised().double().T + layer.bias.double()
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(layer(x).double(), expected, rtol=tolerance, atol=tolerance)
    if dtype == torch.float32:
        alone = torch.cat([layer(x.view(24, 128)[row : row + 4]) for row in range(0, 24, 4)])
        assert torch.equal(layer(x).view(24, 32), alone)  # a row's result is its own affair


def test_a_row_of_zeros_stays_zero() -> None:
    weight = torch.zeros(16, 128)
    for kind in WEIGHT_FORMATS:
        assert KINDS[kind].quantised(weight, None).dequantised().count_nonzero() == 0


def test_widths_without_a_group_are_refused_by_name() -> None:
    assert [group_of("int4", width) for width in (768, 192, 96)] == [128, 64, 32]
    with pytest.raises(UserError, match="none divides 40"):
        group_of("int4", 40)


@pytest.mark.promise(
    "engine", "Resident bytes of a quantised model are those of its packed values and scales, not of its parameters"
)
def test_layers_are_replaced_and_the_rest_is_kept() -> None:
    config = DecoderConfig(
        family="mixtral", vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, num_local_experts=4, num_experts_per_tok=2,
    )  # fmt: skip
    decoder = Decoder(config)
    decoder.initialise(1)
    before = {name: parameter.numel() for name, parameter in decoder.named_parameters()}
    quantise_layers(decoder, "int8")
    linears = [name for name, module in decoder.named_modules() if isinstance(module, nn.Linear)]
    assert all(name.endswith("mlp.gate") or name == "lm_head" for name in linears)  # routers and the head
    quantised = [size for name, size in before.items() if "_proj.weight" in name]
    kept = sum(before.values()) - sum(quantised)
    rows = sum(module.out_features for module in decoder.modules() if isinstance(module, Int8Linear))
    assert resident_bytes(decoder) == 4 * kept + sum(quantised) + 4 * rows
    assert decoder(torch.tensor([[1, 2, 3]])).isfinite().all()


def test_weights_that_are_not_finite_are_named() -> None:
    decoder = Decoder(
        DecoderConfig(
            family="llama",
            vocab_size=64,
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
        )
    )
    decoder.initialise(1)
    with torch.no_grad():
        decoder.model.layers[0].mlp.up_proj.weight[0, 0] = torch.inf
    with pytest.raises(UserError, match=r"layers\.0\.mlp\.up_proj\.weight"):
        quantise_layers(decoder, "int4")
