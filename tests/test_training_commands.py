"""`caslon train`, `resume` and `rewind` on a real recipe of one layer, in this process and, to be killed, in another."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from caslon import cli
from caslon.folders import sha256_of_file
from caslon.observe.events import metric_values, read_events

WORDS = ["the", "model", "reads", "a", "row", "of", "tokens", "and", "predicts", "what", "comes", "next"]
RECIPE = """
name = "tiny"
[tokenizer]
text = "text.txt"
algorithm = "bytes"
[pretrain]
depth = 1
hidden_size = 16
context = 16
batch = 2
steps = 12
eval_every = 4
eval_batches = 1
learning_rate = 0.01
precision = "fp32"
threads = 1
sample_tokens = 0
"""


class Result(NamedTuple):
    code: int
    output: str
    errors: str

    @property
    def last_line(self) -> str:
        return (self.errors.strip() or self.output.strip()).splitlines()[-1].strip()


Caslon = Callable[..., Result]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe whose tokenizer stage is done."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = random.Random(0)
    text = "\n\n".join(" ".join(rng.choices(WORDS, k=rng.choice([5, 20, 60]))) for _ in range(60))
    (folder / "text.txt").write_text(text)
    (folder / "recipe.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "caslon", "run", "recipe.toml", "--until", "tokenizer"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def caslon(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Caslon:
    """The command, in a fresh copy of that folder."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)

    def call(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["caslon", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Result(int(str(ended.value.code)), *capsys.readouterr())

    yield call
    torch.set_num_threads(before[0])
    signal.signal(signal.SIGTERM, before[1])


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let SIGTERM come while a step is taken."""
    from caslon.train.trainer import Trainer

    real = Trainer._log

    def log(self: Trainer, *values: object) -> None:
        real(self, *values)  # type: ignore[arg-type]
        if self.progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_log", log)


def stopped(caslon: Caslon, *arguments: str, at: int) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, at)
        return caslon(*arguments)


def weights(stage: str) -> dict[str, str]:
    folder = Path(stage) / "checkpoints" / "step-000012"
    return {file.name: sha256_of_file(file) for file in folder.iterdir()}


def test_training_says_what_it_does_and_what_comes_next(caslon: Caslon) -> None:
    result = caslon("train", "recipe.toml")
    assert result.code == 0
    assert "training on CPU, 1 thread in fp32: as set" in result.errors
    assert "step 10/12 | loss " in result.errors
    assert "eval 12/12 | train loss " in result.errors
    assert result.output.splitlines()[-1] == "next     caslon chat runs/tiny/pretrain/model"
    assert caslon("train", "recipe.toml").code == 0  # done before, nothing to do


@pytest.mark.promise(
    "pretraining", "a run stopped by a signal exits with code 3 and `caslon resume` ends it as if it was not"
)
def test_a_stopped_run_resumes_to_the_same_bytes(caslon: Caslon) -> None:
    assert caslon("train", "recipe.toml").code == 0
    Path("runs/tiny/pretrain").rename("whole")
    result = stopped(caslon, "train", "recipe.toml", at=7)
    assert result.code == 3
    assert result.last_line == "next: caslon resume runs/tiny"
    result = caslon("resume", "tiny")
    assert result.code == 0, result.errors
    assert "resumed from step 7" in result.errors
    assert weights("runs/tiny/pretrain") == weights("whole")
    assert Path("runs/tiny/pretrain/metrics.jsonl").read_bytes() == Path("whole/metrics.jsonl").read_bytes()


@pytest.mark.promise("pretraining", "a run killed with -9 is resumed by `caslon resume`")
def test_a_killed_run_resumes(caslon: Caslon) -> None:
    command = [sys.executable, "-m", "caslon", "train", "recipe.toml", "--set", "pretrain.steps=100000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = Path("runs/tiny/pretrain.partial/checkpoints/last")
    while not last.exists() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    result = stopped(caslon, "resume", "runs/tiny", at=int(last.readlink().name[5:]) + 3)
    assert result.code == 3
    assert "resumed from step" in result.errors


@pytest.mark.promise(
    "pretraining", "max_minutes saves and exits with code 3; a run in segments ends like one in a piece"
)
def test_segments_of_max_minutes(caslon: Caslon) -> None:
    result = caslon("train", "recipe.toml", "--set", "pretrain.max_minutes=1e-9")
    assert result.code == 3
    assert "stopped by max_minutes = 1e-09 after step 1 of 12" in result.errors
    for step in range(2, 12):
        result = caslon("resume", "tiny")
        assert (result.code, f"after step {step} of 12" in result.errors) == (3, True)
    assert caslon("resume", "tiny").code == 0
    Path("runs/tiny/pretrain").rename("segments")
    assert caslon("train", "recipe.toml").code == 0
    assert weights("segments") == weights("runs/tiny/pretrain")
    assert Path("segments/metrics.jsonl").read_bytes() == Path("runs/tiny/pretrain/metrics.jsonl").read_bytes()


@pytest.mark.promise("pretraining", "a run folder copied to another place goes on there")
def test_a_run_goes_on_in_another_place_without_its_text(caslon: Caslon) -> None:
    stopped(caslon, "train", "recipe.toml", at=7)
    Path("runs/tiny").rename("moved")
    Path("text.txt").unlink()
    result = caslon("resume", "moved")
    assert result.code == 0, result.errors
    assert Path("moved/pretrain/manifest.json").is_file()


@pytest.mark.promise(
    "pretraining", "a changed rate on resume needs --allow-change and is logged; changed shapes are refused"
)
def test_changes_on_resume(caslon: Caslon) -> None:
    stopped(caslon, "train", "recipe.toml", at=7)
    change = ("--set", "pretrain.learning_rate=0.002")
    result = caslon("resume", "tiny", *change)
    assert (result.code, "pretrain.learning_rate: 0.01 -> 0.002" in result.errors) == (2, True)
    assert "--allow-change" in result.errors
    for shape in ("hidden_size=32", "batch=4", "optimizer=adamw"):
        result = caslon("resume", "tiny", "--set", f"pretrain.{shape}", "--allow-change")
        assert (result.code, "--allow-change does not cover" in result.errors) == (2, True)
    result = caslon("resume", "tiny", *change, "--allow-change")
    assert result.code == 0, result.errors
    assert "changed from step 7 on: " in result.errors and "schedule.peak: 0.01 -> 0.002" in result.errors
    log = Path("runs/tiny/pretrain/events.jsonl")
    assert any("schedule.peak" in record.get("text", "") for record in read_events(log))
    rates = dict(metric_values(log)["train/lr"])
    assert rates[8] < rates[7] / 4
    manifest = json.loads(Path("runs/tiny/pretrain/manifest.json").read_text())
    assert manifest["settings"]["history"] == ["pretrain.learning_rate: 0.01 -> 0.002"]


@pytest.mark.promise(
    "pretraining", "rewind goes back to a kept checkpoint with a lower rate for a while and keeps both courses"
)
def test_rewind(caslon: Caslon) -> None:
    assert caslon("train", "recipe.toml").code == 0
    result = caslon("rewind", "tiny", "--steps", "7", "--lr-scale", "0.1", "--for", "3")
    assert result.code == 0, result.errors
    assert "back from step 12 to 4; learning rate x 0.1 until step 7" in result.errors
    stage = Path("runs/tiny/pretrain")
    before, after = (dict(metric_values(path / "events.jsonl")["train/lr"]) for path in (stage / "lines" / "1", stage))
    assert list(after) == list(range(1, 13))
    ratios = [round(after[step] / before[step], 6) for step in before]
    assert ratios == [1.0] * 4 + [0.1] * 3 + [1.0] * 5
    kept = sorted(path.name for path in (stage / "lines" / "1" / "checkpoints").iterdir())
    assert kept == ["step-000004", "step-000008", "step-000012"]
    history = json.loads((stage / "manifest.json").read_text())["settings"]["history"]
    assert history == ["back from step 12 to 4; learning rate x 0.1 until step 7"]


def test_another_training_of_the_same_name_is_refused_or_set_aside(caslon: Caslon) -> None:
    assert caslon("train", "recipe.toml").code == 0
    other = ("train", "recipe.toml", "--set", "pretrain.seed_of_nothing=1")
    assert caslon(*other).code == 2
    other = ("train", "recipe.toml", "--set", "pretrain.steps=4")
    result = caslon(*other)
    assert result.code == 2
    for way_out in ("caslon resume runs/tiny", "--set name=", "--from-scratch"):
        assert way_out in result.errors
    assert caslon(*other, "--from-scratch").code == 0
    assert Path("runs/tiny/superseded/pretrain.replaced-1/manifest.json").is_file()
    assert caslon(*other, "--set", "name=second").code == 0


@pytest.mark.promise("pretraining", "--allow-fallback trains on the CPU where the GPU asked for is absent")
def test_falling_back_is_allowed_by_name(caslon: Caslon) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    wanted = ("train", "recipe.toml", "--set", "pretrain.device=cuda")
    result = caslon(*wanted)
    assert (result.code, "no CUDA device is available" in result.errors) == (2, True)
    result = caslon(*wanted, "--allow-fallback")
    assert (result.code, "fallen back to the CPU" in result.errors) == (0, True)


def test_resuming_nothing_is_an_error_with_a_way_out(caslon: Caslon) -> None:
    result = caslon("resume", "nowhere")
    assert (result.code, "no run at nowhere" in result.errors) == (2, True)
