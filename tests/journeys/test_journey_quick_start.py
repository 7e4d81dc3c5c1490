"""From one plain text file to a measured model, without a corpus, by one recipe and without the network."""

import json
import random
import shutil
from pathlib import Path

import pytest

from caslon import runner
from caslon.errors import UserError
from caslon.folders import StageFolder
from caslon.recipe import load_recipe
from caslon.run_report import write_run_report
from caslon.tokenizer.tokenizer import Tokenizer

RECIPE = """
name = "quick"
[tokenizer]
text = "{text}"
algorithm = "{algorithm}"
[pretrain]
family = "llama"
depth = 1
hidden_size = 16
num_attention_heads = 2
context = 32
batch = 4
steps = 8
packing = "windows"
doc_mask = false
device = "cpu"
threads = 1
sample_prompts = ["the "]
sample_tokens = 8
[evaluate]
split = "validation"
prompts = ["the "]
sample_tokens = 8
temperatures = [0.0]
"""


def text(folder: Path, name: str = "text.txt") -> Path:
    words = ["the", "moon", "is", "red", "and", "naïve", "ships", "go"]
    rng = random.Random(1)
    path = folder / name
    path.write_text(" ".join(rng.choices(words, k=4_000)), encoding="utf-8")
    return path


@pytest.mark.promise(
    "pretraining", "a plain text file is enough for a whole run: bytes or characters, split in its order"
)
@pytest.mark.parametrize(("algorithm", "entries"), [("bytes", 257), ("characters", 17)])
def test_a_text_file_becomes_a_measured_model(algorithm, entries, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(text=text(tmp_path), algorithm=algorithm))
    recipe = load_recipe(path)
    assert recipe.stage("evaluate").inputs == {"model": "pretrain", "tokens": "tokenizer", "text": "tokenizer"}
    planned = {row.name: row.value for row in runner.plan(recipe, tmp_path / "runs")[0].rows}
    assert planned["vocab_size"] == entries
    run = runner.run(recipe, tmp_path / "runs")
    tokens = StageFolder.open(run / "tokenizer").manifest.totals
    whole = len(text(tmp_path).read_text())
    characters = int(0.9 * whole)
    assert Tokenizer.load(run / "pretrain" / "model").vocab_size == entries
    if algorithm == "characters":
        assert (tokens["train_tokens"], tokens["validation_tokens"]) == (characters + 1, whole - characters + 1)
    scores = json.loads((run / "evaluate" / "scores.json").read_text())
    assert 0 < scores["bits_per_byte"]["value"] < 9
    assert write_run_report(run).is_file()


@pytest.mark.promise("pretraining", "a text is known by its digest, never by its file name")
def test_a_copy_under_another_place_is_done_already(tmp_path):
    path = tmp_path / "recipe.toml"
    first = text(tmp_path)
    path.write_text(RECIPE.format(text=first, algorithm="bytes").split("[pretrain]")[0])
    runner.run(load_recipe(path), tmp_path / "runs")
    states = []
    (tmp_path / "other").mkdir()
    copy = Path(shutil.copy(first, tmp_path / "other" / "renamed.txt"))
    for file in (copy, first):
        recipe = load_recipe(path, [f"tokenizer.text={file}"])
        states.append(runner.plan(recipe, tmp_path / "runs")[0].state)
    first.write_text("something else " * 100)
    states.append(runner.plan(load_recipe(path), tmp_path / "runs")[0].state)
    assert states == ["done", "done", "to do"]


def test_a_missing_text_is_named_with_the_way_to_give_one(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE.format(text=tmp_path / "none.txt", algorithm="bytes"))
    with pytest.raises(UserError, match="no such file") as caught:
        runner.plan(load_recipe(path), tmp_path / "runs")
    assert "tokenizer.text=FILE" in str(caught.value.fix)


ENCODER = """
name = "quick"
[tokenizer]
text = "{text}"
algorithm = "bytes"
special_tokens = ["<|mask|>", "<|pad|>"]
sentinels = 9
[pretrain]
family = "{family}"
objective = "{objective}"
depth = 1
hidden_size = 32
num_attention_heads = 2
context = 32
batch = 4
steps = 4
device = "cpu"
threads = 1
"""


@pytest.mark.promise("pretraining", "a run is reported in bits per byte only where its objective has them")
@pytest.mark.parametrize(("family", "objective"), [("bert", "mlm"), ("t5", "seq2seq")])
def test_an_encoder_is_trained_and_reported_without_bits_per_byte(family, objective, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(ENCODER.format(text=text(tmp_path), family=family, objective=objective))
    recipe = load_recipe(path)
    run = runner.run(recipe, tmp_path / "runs")
    planned = {row.name: row.value for row in runner.plan(recipe, tmp_path / "runs")[1].rows}
    assert planned["parameters"] == StageFolder.open(run / "pretrain").manifest.totals["parameters"]
    page = write_run_report(run).read_text()
    assert "Loss" in page
    assert "bits per byte" not in page.lower()
