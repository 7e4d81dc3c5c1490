from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from engine_cases import FAMILIES, make_decoder, random_prompts

from caslon.compress.formats import WEIGHT_FORMATS, WeightFormat
from caslon.compress.linear import quantise_layers, resident_bytes
from caslon.engine import loading
from caslon.engine.engine import Engine
from caslon.engine.planner import (
    DEVICES,
    KvFormat,
    MemoryQuestion,
    block_count,
    check_memory,
    kv_block_bytes,
    kv_bytes,
    kv_recent_bytes,
    shape_named,
    weight_bytes,
)
from caslon.engine.request import SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.tokenizer.tokenizer import Tokenizer


def kv_shape(layers: int, heads: int, size: int) -> DecoderConfig:
    return DecoderConfig(
        family="llama", vocab_size=256, hidden_size=heads * size, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, max_position_embeddings=32768,
    )  # fmt: skip


@pytest.mark.promise(
    "engine",
    "Cache bytes are 2 x layers x KV heads x head size x bytes a value x tokens: 524,288 a token for 32 x 32 x 128",
)
def test_cache_vectors() -> None:
    llama = shape_named("llama2-7b")
    assert kv_bytes(llama, "float16", 28_000) == 14_680_064_000
    assert kv_block_bytes(llama, "float16", 16) == 16 * 524_288
    grouped = replace(llama, num_key_value_heads=8)
    assert kv_block_bytes(grouped, "float16", 16) == 16 * 131_072
    assert kv_bytes(grouped, "float16", 8_192) == 2**30
    assert kv_block_bytes(kv_shape(12, 12, 64), "float16", 16) == 16 * 36_864
    assert kv_bytes(kv_shape(12, 12, 64), "float16", 1_024) == 37_748_736


def test_sequences_are_rounded_up_to_blocks_each() -> None:
    shape = kv_shape(1, 1, 32)
    assert kv_bytes(shape, "float32", 17, sequences=3) == 3 * 2 * kv_block_bytes(shape, "float32", 16)


def test_quantised_caches_count_their_scales_and_newest_tokens() -> None:
    shape = kv_shape(2, 4, 32)
    codes = 2 * 2 * 4 * 32 * 16
    scales = 2 * 4 * (32 + 16) * 2
    assert kv_block_bytes(shape, "int8", 16) == codes + scales
    assert kv_block_bytes(shape, "int4", 16) == codes // 2 + scales
    assert kv_recent_bytes(shape, "int4", "float32", 16, 3) == 3 * (64 + 2 * 16) * 2 * 2 * 4 * 32 * 4
    assert kv_recent_bytes(shape, "float32", "float32", 16, 3) == 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.promise("engine", "Planned bytes of weights and cache are the bytes of the allocated tensors, exactly")
def test_planned_bytes_are_the_allocated_ones(family: str, decoders: dict[str, Decoder], tokenizer: Tokenizer) -> None:
    config = decoders[family].config
    with Engine(decoders[family], tokenizer, EngineSettings(kv_memory_gib=0.01)) as engine:
        stats = engine.stats()
    assert stats.kv_bytes == stats.blocks_total * kv_block_bytes(config, "float32", 16)
    assert weight_bytes(config, "auto", "float32") == resident_bytes(decoders[family])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", WEIGHT_FORMATS)
def test_planned_bytes_of_quantised_weights_are_the_resident_ones(family: str, kind: WeightFormat) -> None:
    decoder = make_decoder(family, 300)
    quantise_layers(decoder, kind)
    assert weight_bytes(decoder.config, kind, "float32") == resident_bytes(decoder)


def test_published_sizes_within_five_per_cent() -> None:
    large, small = shape_named("llama3-70b"), shape_named("llama3-8b")
    assert weight_bytes(large, "auto", "float16") == pytest.approx(140e9, rel=0.05)
    assert weight_bytes(small, "auto", "float32") == pytest.approx(32e9, rel=0.05)
    assert weight_bytes(small, "int8", "bfloat16") == pytest.approx(9e9, rel=0.05)


def test_what_fits_is_the_largest_that_does() -> None:
    question = MemoryQuestion(shape_named("llama2-7b"), 4096, sequences=4, weights="int8")
    for size in DEVICES.values():
        context, sequences = question.largest_context(size), question.largest_sequences(size)
        if context:
            assert replace(question, context=context).plan().fits(size)
        assert not replace(question, context=context + 16).plan().fits(size)
        if sequences:
            assert replace(question, sequences=sequences).plan().fits(size)
        assert not replace(question, sequences=sequences + 1).plan().fits(size)
    assert MemoryQuestion(shape_named("llama3-70b"), 4096).largest_context(DEVICES["T4 16 GB"]) == 0


@pytest.mark.promise(
    "engine",
    "A model that needs more memory than is free is refused before a weight is read, with both numbers and what would fit",
)
def test_too_large_a_model_is_refused_before_reading(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"needs 1[34]\.\d GB, 9\.2 GB are free") as refused:
        check_memory(
            shape_named("llama2-7b"), EngineSettings(), kind="float16", dtype="float16", free_bytes=9_200_000_000
        )
    assert str(refused.value.fix).startswith("try --weights int8: ")
    save_model_folder(tmp_path, make_decoder("llama", tokenizer.vocab_size), tokenizer, sidecar={})
    (tmp_path / "model.safetensors").write_bytes(b"not read")
    monkeypatch.setattr(loading, "free_memory_bytes", lambda: 100_000)
    with pytest.raises(UserError, match=r"needs \d+\.\d MB, 0\.1 MB are free"):
        Engine.load(tmp_path)


def test_room_for_no_block_is_said() -> None:
    shape = kv_shape(2, 4, 32)
    kind: KvFormat = "int8"
    settings = EngineSettings(kv_memory_gib=0.001)
    with pytest.raises(UserError, match=r"beside the .* bytes of the newest tokens"):
        block_count(shape, settings, context=64, kind=kind, dtype="float32", spare_bytes=0)


def test_waste_is_less_than_a_block_for_each_sequence(engine_with: Callable[..., Engine], tokenizer: Tokenizer) -> None:
    engine = engine_with()
    seen: list[tuple[int, int]] = []

    def look(piece: object) -> None:
        stats = engine.stats()
        seen.append((stats.waste_tokens, stats.running))

    params = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
    handles = [engine.submit(prompt, params, look) for prompt in random_prompts(tokenizer.vocab_size, (5, 20, 33))]
    for handle in handles:
        handle.result(30)
    assert all(0 <= waste <= 16 * running for waste, running in seen)
    assert sum(waste for waste, _ in seen) / sum(running for _, running in seen) <= 8 + 2
    assert engine.stats().waste_tokens == 0
