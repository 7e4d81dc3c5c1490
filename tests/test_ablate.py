import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caslon import ablate
from caslon.ablate import Change, Row, mean_and_spread, parsed_change, standard_changes, table
from caslon.cli import app
from caslon.errors import UserError

RECIPES = Path(__file__).parents[1] / "recipes"
RECIPE = """
name = "trial"
[tokenizer]
text = "text.txt"
algorithm = "bytes"
[pretrain]
family = "llama"
depth = 1
hidden_size = 32
num_attention_heads = 2
intermediate_size = 64
context = 32
batch = 4
steps = 12
eval_every = 6
eval_batches = 2
optimizer = "adamw"
learning_rate = 0.01
sample_tokens = 0
threads = 1
"""


@pytest.mark.promise(
    "pretraining", "caslon ablate trains changes with equal tokens and seeds and writes one table with spreads"
)
def test_changes_are_trained_with_the_same_seeds_and_tokens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the cat sat on the mat and looked at the rat. " * 400)
    Path("trial.toml").write_text(RECIPE)
    words = [
        "ablate",
        "trial.toml",
        "--change",
        "as it is:",
        "--change",
        "ReLU: family=gpt2 hidden_act=relu",
        "--seeds",
        "1,2",
    ]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    plain, relu = json.loads(Path("runs/trial-ablation.json").read_text())
    assert plain["tokens"] == relu["tokens"] == 12 * 4 * 32
    assert plain["parameters"] != relu["parameters"]
    assert len(plain["losses"]) == len(relu["bits"]) == 2
    assert plain["losses"][0] != plain["losses"][1]
    assert "± " in Path("runs/trial-ablation.md").read_text()
    assert Path("runs/trial-relu-2/pretrain/model/config.json").is_file()
    tokens = Path("runs/trial-relu-1/tokenizer/tokenizer.json")
    assert tokens.stat().st_ino == Path("runs/trial-as-it-is-1/tokenizer/tokenizer.json").stat().st_ino


def test_a_diverged_run_is_a_result(tmp_path, monkeypatch):
    def diverge(*_args, **_given):
        raise ablate.Diverged("not finite")

    monkeypatch.setattr(ablate.runner, "run", diverge)
    (tmp_path / "trial.toml").write_text(RECIPE)
    (row,) = ablate.ablate(tmp_path / "trial.toml", [Change("hot", ("learning_rate=1",))], [1, 2], tmp_path)
    assert row.diverged == 2
    assert "0, 2 diverged" in table([row])


def test_the_table_begins_with_the_best():
    rows = [Row("worse", (), 1, 2, [3.0], [2.0], [1.0]), Row("better", (), 1, 2, [1.0, 2.0], [1.0, 1.5], [1.0, 1.0])]
    lines = table(rows).splitlines()
    assert "better" in lines[2]
    assert "1.500 ± 0.500" in lines[2]
    assert mean_and_spread([]) is None


def test_standard_changes_are_of_equal_size_and_can_be_loaded():
    found = standard_changes(RECIPES / "llama-188-small.toml", [])
    assert len({change.slug for change in found}) == len(found)
    assert "intermediate_size=1152" in found[0].settings


@pytest.mark.parametrize("text", ["no colon", ": a=1", "name: word"])
def test_a_change_that_cannot_be_read_is_refused(text):
    with pytest.raises(UserError, match="cannot read the change"):
        parsed_change(text)
