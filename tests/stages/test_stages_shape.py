import pytest
from pydantic import ValidationError

from caslon.errors import UserError
from caslon.model.config import PRESETS, DecoderConfig
from caslon.model.size import parameter_counts
from caslon.stages.pretrain import Settings
from caslon.stages.shape import ShapeSettings, decoder_config, shape_rows, shape_warnings


def config_of(vocab_size: int = 300, context: int = 64, **keys: object) -> DecoderConfig:
    return decoder_config(ShapeSettings.model_validate(keys), vocab_size, context)


def rows_of(**keys: object) -> dict[str, tuple[object, str]]:
    chosen = ShapeSettings.model_validate(keys)
    return {row.name: (row.value, row.origin) for row in shape_rows(chosen, decoder_config(chosen, 256, 64))}


@pytest.mark.promise("pretraining", "a recipe may name a preset, and its other keys change that shape")
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_in_a_recipe_is_the_preset(name: str) -> None:
    chosen = Settings.model_validate({"preset": name})
    shape = PRESETS[name]
    assert chosen.context == shape["max_position_embeddings"]
    assert decoder_config(chosen, shape["vocab_size"], chosen.context) == DecoderConfig.preset(name)
    again = Settings.model_validate(chosen.model_dump())
    assert again == chosen


def test_other_keys_change_the_shape_of_a_preset() -> None:
    assert config_of(preset="slm", depth=2, dropout=0.1).num_hidden_layers == 2
    assert config_of(preset="slm", hidden_size=384, num_attention_heads=6).head_dim == 64
    llama = config_of(preset="slm", family="llama")
    assert (llama.family, llama.intermediate_size, llama.num_hidden_layers) == ("llama", 2048, 12)
    dense = config_of(preset="moe-toy", family="qwen3")
    assert (dense.num_local_experts, dense.tie_word_embeddings) == (0, False)
    assert Settings.model_validate({"preset": "nano", "context": 32}).context == 32


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="slm-qwen3"):
        ShapeSettings.model_validate({"preset": "slim"})


def test_experts_have_keys_and_the_plan_tells_active_parameters_apart() -> None:
    config = config_of(family="mixtral", depth=2, num_local_experts=4, num_experts_per_tok=1, router_aux_loss_coef=0.02)
    assert (config.num_local_experts, config.num_experts_per_tok, config.router_aux_loss_coef) == (4, 1, 0.02)
    rows = rows_of(preset="moe-toy")
    assert rows["parameters"] == (254_784, "computed")
    assert rows["active parameters"][0] == 156_480
    assert rows["num_local_experts"] == (4, "preset moe-toy")
    assert "active parameters" not in rows_of(preset="nano")
    with pytest.raises(ValidationError, match="no experts"):
        config_of(family="llama", num_local_experts=4)


def test_the_plan_says_where_each_part_of_the_shape_comes_from() -> None:
    rows = rows_of(preset="nano", hidden_size=256)
    assert rows["depth"] == (4, "preset nano")
    assert rows["hidden_size"] == (256, "setting")
    assert rows["head_dim"] == (64, "derived from the preset")
    assert rows_of(depth=2)["hidden_size"] == (128, "derived from depth")


@pytest.mark.promise(
    "pretraining", "the plan warns of a width that K-quants cannot hold and of activations GGUF cannot"
)
def test_what_export_will_refuse_is_said_before_training() -> None:
    assert not shape_warnings(config_of(hidden_size=768))
    assert "288 is not a multiple of 256" in shape_warnings(config_of(hidden_size=288, num_attention_heads=6))[0]
    for activation in ("gelu", "relu"):
        (warning,) = shape_warnings(config_of(family="gpt2", hidden_size=768, hidden_act=activation))
        assert activation in warning and "GGUF" in warning
    assert "beware 1" in rows_of(preset="nano")
    with pytest.raises(ValidationError, match="not computed"):
        config_of(family="llama", hidden_act="relu")


def test_a_padded_vocabulary_is_at_least_the_tokenizers() -> None:
    config = config_of(vocab_size=300, pad_vocab_to=320)
    assert config.vocab_size == config.to_json()["pad_vocab_to"] == 320
    with pytest.raises(UserError, match="less than the tokenizer's 300"):
        config_of(vocab_size=300, pad_vocab_to=299)


def test_tokens_are_counted_by_active_parameters() -> None:
    few = parameter_counts(DecoderConfig.preset("moe-toy"))
    assert (few.trained, few.active) == (254_784, 156_480)
