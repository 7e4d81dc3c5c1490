import pytest
import torch

from caslon.model.config import FAMILIES, PRESETS, DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.size import (
    checkpoint_bytes,
    flop_per_token,
    inference_bytes,
    kv_cache_bytes_per_token,
    parameter_counts,
    quantized_bytes,
    training_memory,
)
from caslon.model.weights import disk_tensors

LLAMA_3_8B = DecoderConfig(
    family="llama",
    vocab_size=128_256,
    hidden_size=4096,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    intermediate_size=14_336,
    max_position_embeddings=8192,
    tie_word_embeddings=False,
)
LLAMA_2_7B = DecoderConfig(
    family="llama",
    vocab_size=32_000,
    hidden_size=4096,
    num_hidden_layers=32,
    num_attention_heads=32,
    intermediate_size=11_008,
    max_position_embeddings=4096,
    tie_word_embeddings=False,
)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_counts_equal_those_of_the_built_decoder(name, family, bias, tied):
    changes = {"num_key_value_heads": 0} if family == "gpt2" else {}
    bias = bias and family != "mixtral"
    config = DecoderConfig.preset(name, family=family, bias=bias, tie_word_embeddings=tied, **changes)
    with torch.device("meta"):
        decoder = Decoder(config)
        stored = disk_tensors(decoder)
    counts = parameter_counts(config)
    assert counts.trained == sum(parameter.numel() for parameter in decoder.parameters())
    assert counts.stored == sum(tensor.numel() for tensor in stored.values())
    layers = [p for name, p in decoder.named_parameters() if p.dim() == 2 and ".layers." in name]
    assert counts.matrices == sum(parameter.numel() for parameter in layers)


@pytest.mark.parametrize(
    ("config", "flop"),
    [
        (DecoderConfig.preset("slm"), 676_159_488),
        (DecoderConfig.preset("regular"), 2_147_254_272),
        (DecoderConfig.preset("llama-188"), 491_917_824),
        (DecoderConfig.preset("tiny", family="gpt2"), 86_114_304),
        # attention 12,288 + 2 of 4 experts 49,152 + router 256, twice, and the head, six times; then attention's products
        (DecoderConfig.preset("moe-toy"), 6 * (2 * (12_288 + 49_152 + 256) + 16_384) + 6 * 2 * 64 * 64),
    ],
)
def test_flop_per_token(config, flop):
    assert flop_per_token(config) == flop


@pytest.mark.promise("pretraining", "total and active parameters of a mixture are counted apart")
def test_total_and_active_parameters():
    toy = parameter_counts(DecoderConfig.preset("moe-toy"))
    assert (toy.trained, toy.active) == (254_784, 156_480)
    nano = parameter_counts(DecoderConfig.preset("nano"))
    assert nano.active == nano.trained


def test_training_state():
    assert training_memory(DecoderConfig.preset("slm"), micro_batch=1).state == 1_735_827_456
    assert training_memory(DecoderConfig.preset("regular"), micro_batch=1).state == 5_345_280_000
    nano = DecoderConfig.preset("nano")
    muon = training_memory(nano, micro_batch=1, optimizer="muon").state
    assert muon == 16 * 1_328_256 - 4 * parameter_counts(nano).matrices


def test_recomputing_and_small_chunks_take_less():
    slm = DecoderConfig.preset("slm")
    plain = training_memory(slm, micro_batch=18, loss_chunk=18 * 512)
    assert plain.logits == 2 * 18 * 512 * 30_000 * 4
    assert training_memory(slm, micro_batch=18, checkpoint_every=1).total < training_memory(slm, micro_batch=18).total
    assert training_memory(slm, micro_batch=18).logits < plain.logits


def test_the_estimate_is_what_autograd_keeps():
    """Count the bytes of all tensors that the forward pass of the layers saves for the backward pass."""
    for family in FAMILIES:
        config = DecoderConfig.from_depth(3, family=family, vocab_size=64, context=64)
        decoder = Decoder(config)
        decoder.initialise(1)
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = decoder(torch.zeros(8, 64, dtype=torch.long))
        assert hidden.requires_grad
        weights = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
        measured = sum(size for place, size in kept.items() if place not in weights)
        predicted = training_memory(config, micro_batch=8, document_masking=False).activations
        assert predicted == pytest.approx(measured, rel=0.15)


def test_key_value_cache():
    assert kv_cache_bytes_per_token(DecoderConfig.preset("slm")) == 36_864
    assert kv_cache_bytes_per_token(DecoderConfig.preset("regular")) == 98_304
    assert kv_cache_bytes_per_token(LLAMA_2_7B) == 524_288
    assert 28_000 * kv_cache_bytes_per_token(LLAMA_2_7B) == 14_680_064_000
    assert kv_cache_bytes_per_token(LLAMA_3_8B) == 131_072


@pytest.mark.parametrize(
    ("size", "gigabytes"),
    [
        (inference_bytes(LLAMA_3_8B, weight_bytes=4), 32.12),
        (quantized_bytes(LLAMA_3_8B, weight_bits=8), 9.08),
        (quantized_bytes(LLAMA_3_8B, weight_bits=4), 5.59),
        (quantized_bytes(LLAMA_3_8B, weight_bits=4, scale_bits_per_weight=8 / 64 + 32 / (64 * 256)), 5.70),
        (quantized_bytes(LLAMA_3_8B, weight_bits=4, scale_bits_per_weight=32 / 64), 6.03),
        (checkpoint_bytes(DecoderConfig.preset("slm")), 0.434),
        (checkpoint_bytes(DecoderConfig.preset("slm"), optimizer="adamw"), 1.302),
        (checkpoint_bytes(DecoderConfig.preset("regular")), 1.336),
        (checkpoint_bytes(DecoderConfig.preset("regular"), optimizer="adamw"), 4.009),
    ],
)
def test_published_sizes(size, gigabytes):
    assert size / 1e9 == pytest.approx(gigabytes, abs=0.006)
