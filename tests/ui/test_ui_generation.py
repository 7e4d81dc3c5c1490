"""Prompts continued by a real, tiny model: text, records, several answers, figures and tables."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from caslon.cli import app
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.tokenizer.train import train_tokenizer
from caslon.ui.fields import FIELDS, PRESETS, preset, read_value
from caslon.ui.generation import Opened, generate
from caslon.ui.grid import distinct


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_tokenizer(["the quick brown fox jumps over the lazy dog " * 20], vocab_size=300)
    config = DecoderConfig(
        family="llama",
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
    )
    decoder = Decoder(config)
    decoder.initialise(1)
    place = tmp_path_factory.mktemp("tiny")
    save_model_folder(place, decoder, tokenizer, sidecar={})
    return place


def call(*words: object, text: str | None = None) -> Result:
    return CliRunner().invoke(app, ["generate", *map(str, words)], input=text)


def records(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.promise("engine", "caslon generate gives the same ids twice and never more than --max-tokens")
def test_the_same_command_gives_the_same_record(folder: Path) -> None:
    words = (folder, "--prompt", "the fox", "--max-tokens", 12, "--temperature", 0, "--json")
    first, second = records(call(*words)), records(call(*words))
    first[0].pop("seconds"), second[0].pop("seconds"), first[0].pop("seed"), second[0].pop("seed")
    assert first == second
    assert len(first[0]["ids"]) == first[0]["completion_tokens"] <= 12


def test_every_field_is_a_flag(folder: Path) -> None:
    help_text = call("--help").stdout
    assert all(f"--{name.replace('_', '-')}" in help_text for name in FIELDS)
    shared = ("--prompt", "a", "--max-tokens", 8, "--json", "--ignore-eos")
    [biased] = records(call(folder, *shared, "--logit-bias", "70=100", "--temperature", 0))
    assert biased["ids"] == [70] * 8
    pair = records(call(folder, *shared, "--n", 2, "--best-of", 5, "--seed", 3, "--logprobs", 1))
    assert len(pair) == 2
    assert len(pair[0]["logprobs"]) == 8
    beams = records(call(folder, *shared, "--num-beams", 3, "--n", 3, "--temperature", 0))
    assert len({tuple(one["ids"]) for one in beams}) == 3
    [guessed] = records(call(folder, *shared, "--logit-bias", "70=100", "--temperature", 0, "--speculate", "ngram"))
    assert guessed["ids"] == [70] * 8
    assert guessed["accepted"]


def test_prompts_come_from_lines_and_files(folder: Path, tmp_path: Path) -> None:
    lines = '{"prompt": "one"}\n{"prompt": "two"}\n'
    shared = ("--json", "--max-tokens", 5)
    assert [one["prompt"] for one in records(call(folder, "-p", "-", *shared, text=lines))] == ["one", "two"]
    file = tmp_path / "prompts.txt"
    file.write_text("one\n\ntwo\n")
    assert [one["prompt"] for one in records(call(folder, "--prompts", file, *shared))] == ["one", "two"]


def test_mistakes_are_named(folder: Path) -> None:
    for words, said in (
        (("--prompt", "a", "--num-beams", "2", "--temperature", "1"), "temperature"),
        (("--prompt", "a", "--preset", "wild"), "lively"),
        (("--prompt", "a", "--grid", "temprature=1"), "temprature"),
        (("--prompt", "a", "--logit-bias", "x"), "ID=NUMBER"),
        (
            (
                "--prompt",
                "a " * 100,
            ),
            "context",
        ),
    ):
        error = call(folder, *words).exception
        assert isinstance(error, UserError)
        assert said in str(error)


def test_figures_are_told_beside_the_answer(folder: Path) -> None:
    out, remarks = io.StringIO(), io.StringIO()
    generate(
        Opened(str(folder)), ["the fox"], {"max_tokens": 4, "seed": 1}, stats=True,
        console=Console(file=out, width=300), remarks=Console(file=remarks, width=300),
    )  # fmt: skip
    header, answer, memory = remarks.getvalue().splitlines()
    assert memory.startswith("0 of ")
    assert "parameters, vocabulary 300, context 64 tokens, cpu, loaded in" in header
    assert "first token after" in answer
    assert "tokens/s" in answer
    assert "parameters" not in out.getvalue()


def test_without_a_prompt_lines_are_asked_for(folder: Path) -> None:
    lines = iter(["the fox", "x " * 200, "again"])
    out, remarks = io.StringIO(), io.StringIO()

    def read(_: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    generate(
        Opened(str(folder)), None, {"max_tokens": 3, "seed": 1}, json=True,
        console=Console(file=out, width=2000), remarks=Console(file=remarks, width=300), read=read,
    )  # fmt: skip
    assert [json.loads(line)["prompt"] for line in out.getvalue().splitlines()] == ["the fox", "again"]
    assert "context" in remarks.getvalue()


def test_a_grid_is_a_table_of_settings(folder: Path, tmp_path: Path) -> None:
    file, table = tmp_path / "prompts.txt", tmp_path / "out.html"
    file.write_text("the fox\n<b>dog\n")
    done = call(
        folder, "--prompts", file, "--grid", "temperature=0.2,1", "--grid", "top_p=0.5,0.9,1", "--max-tokens", 9,
        "--output", table,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    rows = json.loads(table.with_suffix(".json").read_text())
    assert [(row["temperature"], row["top_p"]) for row in rows[:6]] == [
        (temperature, top_p) for temperature in (0.2, 1.0) for top_p in (0.5, 0.9, 1.0)
    ]
    assert len(rows) == 12
    assert all(0 < row["distinct_1"] <= 1 and row["mean_logprob"] < 0 for row in rows)
    page = table.read_text()
    assert "&lt;b&gt;dog" in page
    assert "<b>" not in page
    assert page.count("<tr>") == 13


def test_shares_of_different_runs() -> None:
    assert distinct([1, 1, 1, 1], 1) == 0.25
    assert distinct([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert distinct([1], 2) == 1


def test_values_are_read_from_text() -> None:
    assert read_value("temperature", "0.3") == 0.3
    assert read_value("stop", "a,b") == ["a", "b"]
    assert read_value("ignore_eos", "true") is True
    assert read_value("logit_bias", "3=-2,4=1") == {3: -2.0, 4: 1.0}
    assert preset("lively")["max_tokens"] == 50
    assert PRESETS["careful"]["no_repeat_ngram_size"] == 3
    with pytest.raises(UserError, match="neither true nor false"):
        read_value("ignore_eos", "perhaps")
