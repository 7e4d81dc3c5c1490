import subprocess
import sys
from typing import get_args

import pytest
import torch

from caslon.errors import UserError
from caslon.model.config import FAMILIES, PRESETS, DecoderConfig, PresetName, ffn_width
from caslon.model.decoder import Decoder


def built_count(config: DecoderConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Decoder(config).parameters())


@pytest.mark.parametrize(
    ("preset", "changes", "count"),
    [
        ("slm", {}, 108_489_216),
        ("slm", {"bias": False}, 108_433_152),
        ("regular", {}, 334_080_000),
        ("regular", {"bias": False}, 333_931_520),
        ("slm-llama", {}, 98_556_672),
        ("slm-qwen3", {}, 98_558_208),
        ("llama-188", {}, 81_212_928),
        ("llama-188", {"tie_word_embeddings": False}, 105_789_696),
        ("char-10m", {}, 10_778_496),
        ("tiny", {}, 13_767_552),
        ("tiny", {"family": "qwen3"}, 13_768_320),
        ("tiny", {"family": "gpt2"}, 13_891_584),
        ("nano", {}, 1_328_256),
        ("nano", {"vocab_size": 256}, 836_736),
        ("moe-toy", {}, 254_784),
    ],
)
@pytest.mark.promise("pretraining", "every preset has exactly its published number of parameters")
def test_presets_have_exactly_the_published_counts(preset, changes, count):
    assert built_count(DecoderConfig.preset(preset, **changes)) == count


KNOWN = {
    "gpt2": (
        {"family": "gpt2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        50_257,
        124_439_808,
    ),
    "medium": (
        {"family": "gpt2", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
        50_257,
        354_823_168,
    ),
    "llama-2-7b": (
        {
            "family": "llama",
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 11008,
            "tie_word_embeddings": False,
        },
        32_000,
        6_738_415_616,
    ),
    "llama-3-8b": (
        {
            "family": "llama",
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "tie_word_embeddings": False,
        },
        128_256,
        8_030_261_248,
    ),
}


@pytest.mark.promise("pretraining", "GPT-2, Llama 2 and Llama 3 have their published numbers of parameters")
@pytest.mark.parametrize("name", KNOWN)
def test_known_models_have_their_published_counts(name):
    shape, vocab_size, count = KNOWN[name]
    assert built_count(DecoderConfig(vocab_size=vocab_size, max_position_embeddings=1024, **shape)) == count


@pytest.mark.promise("pretraining", "config.json is complete for readers before and after transformers 5")
@pytest.mark.parametrize("family", FAMILIES)
def test_config_json_is_complete_and_comes_back_equal(family, make_config):
    config = make_config(family, dropout=0.1, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    data = config.to_json()
    assert {"architectures", "model_type", "dtype", "torch_dtype", "tie_word_embeddings"} <= set(data)
    assert [data["bos_token_id"], data["eos_token_id"], data["pad_token_id"]] == [0, 1, 2]
    assert "auto_map" not in data
    if family != "gpt2":
        assert data["rope_theta"] == data["rope_parameters"]["rope_theta"] == 10_000.0
    assert DecoderConfig.from_json(data) == config


def test_unknown_keys_are_kept(make_config):
    data = make_config("qwen3").to_json() | {
        "my_note": {"a": [1]},
        "transformers_version": "9",
        "attention_dropout": 0.2,
    }
    again = DecoderConfig.from_json(data).to_json()
    assert again == data


def test_several_end_ids_and_missing_bias_survive(make_config):
    config = make_config("gpt2", bias=False, eos_token_id=(1, 5))
    assert config.to_json()["eos_token_id"] == [1, 5]
    assert DecoderConfig.from_json(config.to_json()) == config


def test_rope_base_is_read_from_old_and_new_places(make_config):
    data = make_config("llama", rope_theta=500_000.0).to_json()
    old = {key: value for key, value in data.items() if key != "rope_parameters"}
    new = {key: value for key, value in data.items() if key != "rope_theta"}
    assert DecoderConfig.from_json(old).rope_theta == DecoderConfig.from_json(new).rope_theta == 500_000.0
    with pytest.raises(UserError, match="two rotary bases"):
        DecoderConfig.from_json(data | {"rope_theta": 10_000.0})


@pytest.mark.parametrize(
    "change",
    [
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10_000.0}},
        {"use_sliding_window": True},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"quantization_config": {"bits": 4}},
        {"model_type": "mamba"},
    ],
)
def test_what_the_decoder_does_not_compute_is_refused(change, make_config):
    with pytest.raises(UserError):
        DecoderConfig.from_json(make_config("llama").to_json() | change)


def test_a_missing_shape_key_is_named(make_config):
    data = make_config("llama").to_json()
    del data["hidden_size"]
    with pytest.raises(UserError, match="hidden_size"):
        DecoderConfig.from_json(data)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"family": "gpt3"}, "gpt2, llama, qwen3, mixtral"),
        ({"num_local_experts": 4}, "mixtral"),
        ({"family": "mixtral", "num_experts_per_tok": 5}, "1 to 4"),
        ({"family": "mixtral", "bias": True}, "llama"),
        ({"family": "mixtral", "expert_capacity_factor": -1.0}, "negative"),
        ({"num_attention_heads": 5, "family": "gpt2", "num_key_value_heads": 5}, "4"),
        ({"num_key_value_heads": 3}, "2, 4"),
        ({"head_dim": 7}, "6 or 8"),
        ({"dropout": 1.0}, "dropout"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"hidden_act": "swish"}, "silu"),
        ({"family": "gpt2", "num_key_value_heads": 2}, "llama"),
    ],
)
def test_impossible_shapes_name_the_nearest_possible_ones(changes, words, make_config):
    with pytest.raises(UserError) as error:
        make_config(**{"family": "llama", **changes})
    assert words in str(error.value)


def test_depth_sets_every_value_and_each_may_be_given():
    config = DecoderConfig.from_depth(4, family="qwen3", vocab_size=4096, context=256)
    assert (config.hidden_size, config.num_attention_heads, config.head_dim, config.intermediate_size) == (
        256,
        4,
        64,
        704,
    )
    assert built_count(config) == 4_262_656
    assert DecoderConfig.from_depth(12, family="gpt2", vocab_size=9, context=8).intermediate_size == 3072
    small = DecoderConfig.from_depth(2, family="llama", vocab_size=9, context=8)
    assert (small.hidden_size, small.head_dim, small.num_attention_heads) == (128, 32, 4)
    given = DecoderConfig.from_depth(
        3, family="llama", vocab_size=9, context=8, hidden_size=96, num_attention_heads=6, num_key_value_heads=2
    )
    assert (given.head_dim, given.num_key_value_heads, given.intermediate_size) == (16, 2, 256)


@pytest.mark.parametrize("depth", range(1, 33))
@pytest.mark.parametrize("family", FAMILIES)
def test_every_depth_gives_a_shape_that_can_be_built(family, depth):
    config = DecoderConfig.from_depth(depth, family=family, vocab_size=512, context=64)
    assert config.num_attention_heads * config.head_dim == config.hidden_size
    assert config.intermediate_size == ffn_width(family, config.hidden_size)


def test_every_preset_has_its_name_in_the_type():
    assert set(get_args(PresetName)) == set(PRESETS)


def test_unknown_preset_gets_a_suggestion():
    with pytest.raises(UserError, match="unknown preset") as error:
        DecoderConfig.preset("regulr")
    assert "'regular'" in str(error.value)
    assert all(name in str(error.value) for name in PRESETS)


def test_planning_needs_no_torch():
    program = (
        "import sys, caslon.model.config, caslon.model.size, caslon.model.folder; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
