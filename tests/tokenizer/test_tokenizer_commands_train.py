import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from caslon.commands.tokenizer import app
from caslon.errors import CaslonError, UserError
from caslon.folders import StageFolder
from caslon.tokenizer.tokenizer import Tokenizer


def call(*arguments: object) -> Result:
    """Return what a command did; an error of ours is raised, as `caslon` itself would meet it."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, CaslonError):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def files(training_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("texts")
    train, held_out = folder / "train.txt", folder / "held-out.jsonl"
    train.write_text("\n\n".join(training_texts[:40]), encoding="utf-8")
    held_out.write_text("".join(json.dumps({"text": text}) + "\n" for text in training_texts[40:]), encoding="utf-8")
    return train, held_out


def test_train_then_test(files: tuple[Path, Path], tmp_path: Path) -> None:
    train, held_out = files
    out = tmp_path / "made"
    made = call(
        "train",
        train,
        "--out",
        out,
        "--vocab-size",
        1_400,
        "--lexicon",
        "london",
        "--held-out",
        held_out,
        "--sentinels",
        2,
    )
    assert made.exit_code == 0, made.output
    assert "1,400 entries" in made.output or "the corpus fills" in made.output
    names = {path.name for path in out.iterdir()}
    assert names == {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json", "merges.txt",
        "special_map.json", "caslon_tokenizer.json", "report.html", "report.json", "report.md",
    }  # fmt: skip
    record = Tokenizer.load(out).record
    assert record["read"][0]["source"] == str(train)
    assert len(record["dataset_id"]) == 64
    done = call("test", out, held_out, "--training", train, "--report", tmp_path / "report", "--json")
    assert done.exit_code == 0
    numbers: dict[str, Any] = json.loads(done.stdout)
    assert numbers["passed"] is True
    assert numbers["training"]["used_entries"] > 0
    assert json.loads((tmp_path / "report" / "report.json").read_text())["digest"] == record["digest"]
    shown = call("test", out, held_out)
    assert "580 of 580 forms" in shown.output
    assert "not applicable" in shown.output


def test_a_corpus_folder_gives_its_splits(corpus: StageFolder, tmp_path: Path) -> None:
    made = call("train", corpus.path, "--out", tmp_path / "made", "--vocab-size", 400, "--json")
    assert made.exit_code == 0, made.output
    numbers = json.loads(made.stdout)
    assert [(row["source"], row["texts"]) for row in numbers["read"]] == [("made", 60)]
    tested = json.loads(call("test", tmp_path / "made", corpus.path, "--json").stdout)
    assert tested["held_out"]["texts"] == 10
    assert Tokenizer.load(tmp_path / "made").digest == numbers["digest"]


def test_against_another_table(files: tuple[Path, Path], tokenizer_folder: Path) -> None:
    numbers = json.loads(call("test", tokenizer_folder, files[1], "--against", tokenizer_folder, "--json").stdout)
    assert numbers["reference"]["tokens"] == numbers["held_out"]["tokens"]


def test_a_tokenizer_that_loses_text_fails_with_its_place(files: tuple[Path, Path], tmp_path: Path) -> None:
    made = call("train", files[0], "--out", tmp_path / "bert", "--vocab-size", 600, "--preset", "bert")
    assert made.exit_code == 0
    assert Tokenizer.load(tmp_path / "bert").record["lossy"] is True
    failed = call("test", tmp_path / "bert", files[1])
    assert failed.exit_code == 1
    assert "differs at character" in failed.output
    assert "came back as" in failed.output


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--vocab-size", 200), "288 or more"),
        (("--lexicon", "paris"), "unknown lexicon"),
        (("--algorithm", "bytes"), "no algorithm 'bytes'"),
        (("--special-token", "x"), "ill-formed"),
        (("--preset", "bert", "--digits", "single"), "own settings"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(
    files: tuple[Path, Path], tmp_path: Path, options: tuple[object, ...], what: str
) -> None:
    with pytest.raises(UserError, match=what):
        call("train", files[0], "--out", tmp_path / "made", *options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_kept_and_strict_size_fails(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        call("train", files[0], "--out", tmp_path)
    with pytest.raises(CaslonError, match="of the 30,000 entries") as caught:
        call("train", files[0], "--out", tmp_path / "made", "--strict-size")
    assert caught.value.exit_code == 1
    with pytest.raises(UserError, match="no corpus in this folder"):
        call("train", tmp_path, "--out", tmp_path / "made")
