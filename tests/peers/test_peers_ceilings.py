"""What a load needs at least, by hand."""

import pytest

from caslon.model.config import DecoderConfig
from caslon.peers.ceilings import Ceilings, prefill_flops, read_bytes, shares

SHAPE = {
    "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96, "max_position_embeddings": 64,
}  # fmt: skip


def test_operations_of_a_prompt() -> None:
    layer = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 64 * 96
    looks = 4 * 10 * 10 / 2 * 64  # scores and mixes, half of them
    expected = 2 * (10 * 2 * layer + looks) + 2 * 100 * 64
    assert prefill_flops(DecoderConfig(family="llama", **SHAPE), 10) == expected


def test_only_the_chosen_experts_compute() -> None:
    config = DecoderConfig(family="mixtral", num_local_experts=4, num_experts_per_tok=2, **SHAPE)
    layer = 64 * 64 + 2 * 32 * 64 + 64 * 64 + 2 * 3 * 64 * 96
    assert prefill_flops(config, 1) == 2 * (2 * layer + 2 * 64) + 2 * 100 * 64


def test_an_embedding_table_of_its_own_is_not_read() -> None:
    tied, own = (DecoderConfig(family="llama", tie_word_embeddings=tie, **SHAPE) for tie in (True, False))
    assert read_bytes(own, "", "bfloat16") == read_bytes(tied, "", "bfloat16")
    assert read_bytes(tied, "weights=int8", "float32") < read_bytes(tied, "", "float32") / 2


def test_shares() -> None:
    config = DecoderConfig(family="llama", **SHAPE)
    figures = {"prefill 10": 50.0, "decode, batch 1": 20.0, "decode, batch 8": 90.0}
    found = list(shares(config, 1000, figures, Ceilings(flops=10.0 * prefill_flops(config, 10), bytes=40_000.0)))
    assert found == [("prefill 10", pytest.approx(0.5), "matrix products"), ("decode, batch 1", 0.5, "memory")]
    assert Ceilings(1, 5).or_more(Ceilings(2, 4)) == Ceilings(2, 5)
