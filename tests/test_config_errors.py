"""Everything that is wrong in a recipe is found before anything is read, all at once, with key, value, reason and fix."""

from pathlib import Path

import pytest

from caslon.errors import UserError
from caslon.recipe import load_recipe


def refusal(tmp_path: Path, table: str) -> str:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'name = "r"\n[tokenizer]\ntext = "no such file"\nalgorithm = "bytes"\n[pretrain]\n{table}\n')
    with pytest.raises(UserError) as raised:
        load_recipe(recipe)
    assert raised.value.exit_code == 2
    return str(raised.value)


@pytest.mark.promise("pretraining", "a shape that does not fit is refused with its values and the nearest valid ones")
@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('family = "gpt2"\nhidden_size = 100\nnum_attention_heads = 3', ["3 heads", "width 100", "2, 4"]),
        ("num_attention_heads = 6\nnum_key_value_heads = 4", ["4 key-value heads do not divide 6 heads", "3, 6"]),
        ("hidden_size = 60\nhead_dim = 15", ["head size 15 is odd", "14 or 16"]),
        ("batch = 12\nmicro_batch = 5", ["micro_batch = 5 does not divide batch = 12", "1, 2, 3, 4, 6, 12"]),
        ("steps = 10\nwarmup_steps = 10", ["warmup_steps = 10 leaves no step of 10", "at most 9"]),
        ('family = "mamba"', ["family = 'mamba'", "'gpt2'", "'llama'", "'qwen3'", "'mixtral'"]),
        ('preset = "nanno"', ["preset = 'nanno'", "'nano'"]),
        ("dephts = 4", ["unknown key 'dephts'", "did you mean 'depth'?"]),
        ("learning_rate = 7", ["learning_rate = 7", "less than or equal to 1"]),
    ],
)
def test_one_mistake(tmp_path: Path, table: str, words: list[str]) -> None:
    told = refusal(tmp_path, table)
    for word in (*words, "recipe.toml:"):
        assert word in told


@pytest.mark.promise("pretraining", "all mistakes of a recipe are told at once, each with its line")
def test_all_mistakes_at_once(tmp_path: Path) -> None:
    told = refusal(
        tmp_path,
        "dephts = 4\nlearning_rate = 7\nbatch = 12\nmicro_batch = 5\nnum_attention_heads = 6\nnum_key_value_heads = 4\n"
        'hidden_size = 90\nhead_dim = 15\nfamily = "llama"\n',
    )
    assert told.startswith("5 things are wrong in the recipe:")
    lines = {"dephts": 6, "learning_rate": 7, "micro_batch = 5": 9, "4 key-value heads": 11, "head size 15": 13}
    for word, line in lines.items():
        assert any(word in row and f"recipe.toml:{line}: " in row for row in told.splitlines()), (word, told)
