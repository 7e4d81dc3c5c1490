"""`caslon reason` and `caslon bench reasoning` on a tiny model folder."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from caslon.cli import app
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.tokenizer.train import train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows nothing."""
    tokenizer = train_tokenizer(["Start with 2; add 3; multiply by 4. What is the result? 5 "] * 40, vocab_size=300)
    config = DecoderConfig.from_depth(2, family="qwen3", vocab_size=tokenizer.vocab_size, context=512, hidden_size=32)
    decoder = Decoder(config)
    decoder.initialise(0)
    path = tmp_path_factory.mktemp("models") / "model"
    save_model_folder(path, decoder, tokenizer, sidecar={})
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_reason_answers_and_writes_its_record(folder: Path, tmp_path: Path) -> None:
    words = ("reason", folder, "-q", "2 + 3?", "--budget", 60, "--max-tokens", 10, "--record", tmp_path / "r.jsonl")
    told = json.loads(run(*words, "--json").stdout)
    assert 0 < told["tokens"] <= 60
    first = (tmp_path / "r.jsonl").read_bytes()
    events = [json.loads(line) for line in first.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["asked", "stopped"]
    assert events[0]["prompt"].startswith("2 + 3?\n\nSolve it step by step")
    run(*words)
    assert (tmp_path / "r.jsonl").read_bytes() == first
    withheld = run(*words, "--gate", "--verifier", "steps", "--prompt-format", "{question}")
    assert withheld.stdout.startswith("withheld: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--strategy", "self_consistancy"], "did you mean 'self_consistency'"),
        (["--strategy", "revise"], "needs a verifier"),
        (["--gate"], "needs a verifier"),
        (["--judge", "nothing:here"], "cannot be imported"),
        (["--verifier", "stps"], "known: steps"),
        (["--strategy", "route", "--level", "odd"], "no strategy for level"),
    ],
)
def test_mistakes_are_named(folder: Path, words: list[str], told: str) -> None:
    error = run("reason", folder, "-q", "2 + 3?", *words).exception
    assert isinstance(error, UserError)
    assert told in str(error)


def test_bench_reasoning_prints_curves_verdicts_and_a_plan(folder: Path, tmp_path: Path) -> None:
    words = ("bench", "reasoning", folder, "arithmetic", "--questions", 20, "--budget", 20, "--budget", 60)
    result = run(*words, "--max-tokens", 20, "--samples", 3, "--output", tmp_path / "f.json")
    assert "none" in result.stdout  # the price of a right answer, of which there is none
    assert "no difference shown" in result.stdout
    figures = json.loads((tmp_path / "f.json").read_text())
    assert [curve["strategy"] for curve in figures["curves"]] == ["single", "self_consistency", "route"]
    assert len(figures["plan"]) == 6
    assert all(
        point["mean_tokens"] <= point["budget_tokens"] for curve in figures["curves"] for point in curve["points"]
    )
