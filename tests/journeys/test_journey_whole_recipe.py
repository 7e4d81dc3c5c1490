"""The whole path as a user walks it: one small recipe through the command line, killed, changed, explained, read by others."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from caslon.folders import StageFolder

CASLON = str(Path(sys.executable).parent / "caslon")
STAGES = ("corpus", "tokenizer", "pretrain", "finetune.sft", "evaluate", "serve")
RECIPE = """
name = "small"
seed = 3

[corpus]
sources = "python"
maximum_files = 90
workers = 1

[tokenizer]
vocab_size = 512

[pretrain]
family = "qwen3"
depth = 1
hidden_size = 32
head_dim = 16
num_attention_heads = 2
context = 256
batch = 2
steps = 12
eval_every = 4
eval_batches = 2
save_every = 3
keep = 2
sample_tokens = 4
threads = 1

[finetune.sft]
steps = 6
batch = 2
questions = 4
answer_tokens = 8
threads = 1

[evaluate]
model = "pretrain"
max_bytes = 4_000
max_train_bytes = 60_000
sample_tokens = 16
temperatures = [0.0, 1.0]

[serve]
page = false
max_tokens = 8
"""


def caslon(*arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    result = subprocess.run([CASLON, *arguments], capture_output=True, text=True, cwd=cwd, timeout=300)
    assert not check or result.returncode == 0, result.stderr
    return result


def digests(folder: Path, name: str = "small") -> dict[str, str]:
    return {stage: StageFolder.open(folder / "runs" / name / stage).digest for stage in STAGES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("journey")
    (folder / "small.toml").write_text(RECIPE)
    output = caslon("run", "small.toml", cwd=folder)
    for word in ("report", "next     caslon chat", "serve    caslon serve", "retrain"):
        assert word in output.stdout
    return folder


def test_every_stage_is_complete_and_intact(finished):
    for stage in STAGES:
        opened = StageFolder.open(finished / "runs" / "small" / stage)
        opened.verify()
        assert opened.manifest.seconds > 0
    assert not list((finished / "runs" / "small").glob("*.partial"))


def test_a_second_run_does_nothing_and_a_comment_changes_nothing(finished):
    (finished / "small.toml").write_text("# a comment\n" + RECIPE)
    output = caslon("run", "small.toml", cwd=finished)
    assert output.stderr.count("done before, nothing to do") == len(STAGES)


def test_changed_steps_rerun_pretrain_and_what_follows(finished):
    planned = json.loads(caslon("plan", "small.toml", "--set", "pretrain.steps=13", "--json", cwd=finished).stdout)
    assert [row["state"] for row in planned[:2]] == ["done", "done"]
    assert all(row["state"] != "done" for row in planned[2:])


def test_explain_leads_from_the_model_and_from_a_segment_to_raw_text(finished):
    chain = json.loads(caslon("explain", "runs/small/finetune.sft/model", "--json", cwd=finished).stdout)
    assert [stage["stage"] for stage in chain["stages"]] == ["finetune.sft", "pretrain", "tokenizer", "corpus"]
    from pyarrow import parquet

    segments = parquet.read_table(next((finished / "runs/small/corpus/segments").glob("train-*.parquet"))).to_pylist()
    found = json.loads(caslon("explain", segments[0]["id"], "--json", cwd=finished).stdout)
    raw_file = Path(found["path"]) if Path(found["path"]).is_absolute() else Path(os.__file__).parent / found["path"]
    assert found["final_passage"] == segments[0]["text"]
    assert found["raw_passage"] in raw_file.read_text(encoding="utf-8")


def test_why_gives_the_whole_dropped_text(finished):
    from pyarrow import parquet

    rejects = parquet.read_table(finished / "runs/small/corpus/rejects").to_pylist()
    assert rejects
    for reject in rejects[:3]:
        found = json.loads(caslon("why", reject["id"], "--json", cwd=finished).stdout)
        assert not found["kept"]
        assert found["rejects"][0]["text"] == reject["text"]
        assert found["rejects"][0]["reason"]


def test_transformers_and_caslon_write_the_same_tokens(finished):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from caslon.engine.engine import Engine
    from caslon.engine.request import SamplingParams

    folder = finished / "runs/small/pretrain/model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer("def read(path):", return_tensors="pt").input_ids
    theirs = model.generate(ids, max_new_tokens=64, min_new_tokens=64, do_sample=False)[0, ids.shape[1] :].tolist()
    with Engine.load(folder) as engine:
        ours = engine.generate(["def read(path):"], SamplingParams(max_tokens=64, temperature=0, ignore_eos=True))[0]
        assert ids[0].tolist() == engine.tokenizer.encode("def read(path):")
    if tokenizer.eos_token_id not in theirs:  # transformers bans the end token to reach the length, we do not
        assert list(ours.ids) == theirs


def test_report_and_listing(finished):
    report = (finished / "runs/small/report.html").read_text()
    for stage in STAGES:
        assert stage in report
    rows = json.loads(caslon("runs", "--json", cwd=finished).stdout)
    assert rows[0]["status"] == "finished"
    assert rows[0]["val_bpb"] > 0


def run_killed(recipe: str, folder: Path, kills: int, seconds: tuple[float, float]) -> int:
    """Start a recipe again and again, each time killed after a random while, then let it end; return how often it was killed."""
    draw = random.Random(20)
    for number in range(kills):
        process = subprocess.Popen(
            [CASLON, "run", recipe], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(timeout=draw.uniform(*seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        else:
            return number  # it got through
    subprocess.run([CASLON, "run", recipe], cwd=folder, check=True, capture_output=True)
    return kills


def test_killed_at_random_moments_gives_the_same_bytes(finished, tmp_path):
    """SIGKILL in whatever stage it hits; the last run ends by itself. Same content digests everywhere."""
    (tmp_path / "small.toml").write_text(RECIPE)
    assert run_killed("small.toml", tmp_path, 6, (2.5, 9.0)) >= 1
    assert digests(tmp_path) == digests(finished)


@pytest.mark.slow
def test_quickstart_killed_twenty_times_gives_the_same_bytes(tmp_path):
    recipe = str(Path(__file__).parents[2] / "recipes" / "quickstart.toml")
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    subprocess.run([CASLON, "run", recipe], cwd=tmp_path / "whole", check=True, capture_output=True)
    assert run_killed(recipe, tmp_path / "killed", 20, (8.0, 40.0)) >= 10
    assert digests(tmp_path / "killed", "quickstart") == digests(tmp_path / "whole", "quickstart")
