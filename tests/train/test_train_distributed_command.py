"""The command line under torchrun: one process of two is killed, the job ends, and the same command goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from several_processes import free_port

from caslon.observe.events import read_events

RECIPE = """
name = "two"
[tokenizer]
text = "text.txt"
algorithm = "bytes"
[pretrain]
family = "llama"
depth = 1
hidden_size = 16
num_attention_heads = 2
context = 32
batch = 4
steps = 300
save_every = 20
eval_every = 150
eval_batches = 2
sample_tokens = 0
packing = "windows"
doc_mask = false
device = "cpu"
precision = "fp32"
"""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port")


def started(folder: Path) -> "subprocess.Popen[str]":
    command = [*TORCHRUN, str(free_port()), "-m", "caslon", "train", "two.toml"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def rank_of(process: psutil.Process) -> str:
    return str(process.environ().get("RANK", ""))


@pytest.mark.promise(
    "pretraining", "one of two processes killed by SIGKILL ends the job within 60 s; the same command goes on"
)
def test_a_killed_rank_ends_the_job_and_the_same_command_goes_on(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(RECIPE)
    (tmp_path / "text.txt").write_text("a row of words and what comes next in it, over and over again\n" * 400)
    job = started(tmp_path)
    partial = tmp_path / "runs" / "two" / "pretrain.partial"
    while not (partial / "checkpoints" / "last").is_dir():
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.05)
    victim = next(child for child in psutil.Process(job.pid).children() if rank_of(child) == "1")
    began = time.monotonic()
    victim.send_signal(signal.SIGKILL)
    job.communicate(timeout=60)
    assert job.returncode != 0
    assert time.monotonic() - began < 60
    again = started(tmp_path)
    said = again.communicate(timeout=120)[0]
    assert again.returncode == 0, said
    assert said.count("resumed from step") == 1  # by the first process, and by no other
    assert said.count("2 processes share each step (ddp)") == 1
    stage = tmp_path / "runs" / "two" / "pretrain"
    steps = [
        record["step"] for record in read_events(stage / "events.jsonl") if "train/loss" in record.get("values", {})
    ]
    assert steps == list(range(1, 301))
    assert (stage / "model" / "model.safetensors").is_file()
