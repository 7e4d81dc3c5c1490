"""Answers per second through HTTP under load: caslon's server beside llama-server and vLLM, one after the other in each round.

    pip install gguf                                  # writes the folder as GGUF for llama-server
    caslon bench model MODEL --preset slm-qwen3 --dtype bfloat16      # a folder with random weights, where none is at hand
    python benchmarks/serving_http.py MODEL [--llama-server BINARY] [--vllm PYTHON] [--profile serve-256x128-c16-n48]
        [--dtype bfloat16] [--rounds 3] [--idle 1000] [--output FILE]

Each server is started as its users start it, with room for as many answers at once as the load has, asked the same prompts of
random ids by the same client, and stopped again. The engine without a server answers the same load in the same rounds: what the
server and the client cost is the difference. `--idle` holds so many open connections that ask nothing while caslon's server is
measured once more. MODEL is a Qwen3 or Llama folder. What is not there is skipped, and said.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from caslon.bench.figures import figures_of
from caslon.bench.load import Service, run_load
from caslon.bench.profiles import Profile, profile_named
from caslon.bench.prompts import drawn_prompts
from caslon.model.folder import ModelFolder
from caslon.peers.compare import Worker
from caslon.peers.loads import Load
from caslon.peers.peer import Setting, parsed_spec

START_SECONDS = 180
NAME = "model"
GGUF_TYPES = {"float32": "f32", "bfloat16": "bf16"}


@dataclass
class Server:
    """A server's command, to which a port is added, and what was measured of it."""

    name: str
    command: list[str]
    port_option: str = "--port"
    environment: dict[str, str] = field(default_factory=dict)
    start_seconds: list[float] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)

    def median(self, key: str) -> float:
        return statistics.median(float(one[key]) for one in self.figures)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(server: Server, log: Path) -> Iterator[str]:
    """Start a server and yield its address once it has written a token; its first token ends the start."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    with log.open("w") as words:
        process = subprocess.Popen(
            [*server.command, server.port_option, str(port)],
            stdout=words,
            stderr=words,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **server.environment},
        )
        try:
            wait_for_token(url, process, log)
            server.start_seconds.append(time.perf_counter() - began)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_token(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    body = {"model": NAME, "prompt": [1, 2, 3], "max_tokens": 1, "temperature": 0}
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.post(f"{url}/v1/completions", json=body, timeout=30).status_code == 200:
                return
        time.sleep(0.02)
    raise SystemExit(f"{url} did not answer; its last words:\n" + "\n".join(log.read_text().splitlines()[-8:]))


def servers(given: argparse.Namespace, profile: Profile, scratch: Path) -> Iterator[Server]:
    many, context = profile.concurrency, profile.input_tokens + profile.output_tokens
    yield Server(
        "caslon",
        [
            sys.executable, "-m", "caslon", "serve", str(given.model), "--name", NAME, "--no-page",
            "--max-running", str(many), "--threads", str(given.threads), *given.serve,
        ],
    )  # fmt: skip
    if given.llama_server is None or importlib.util.find_spec("gguf") is None:
        print("llama-server: not given, or the package gguf is not installed", file=sys.stderr)
    else:
        from caslon.peers.gguf_file import write_gguf

        file = scratch / "model.gguf"
        write_gguf(given.model, ModelFolder.open(given.model).config, file, GGUF_TYPES[given.dtype])
        yield Server(
            "llama-server",
            [
                str(given.llama_server), "-m", str(file), "--alias", NAME, "-np", str(many), "-c", str(many * context),
                "-t", str(given.threads), "--host", "127.0.0.1", "--no-webui",
            ],
        )  # fmt: skip
    if given.vllm is None:
        print("vllm: not given", file=sys.stderr)
    else:
        yield Server(
            "vllm",
            [
                str(given.vllm), "-m", "vllm.entrypoints.openai.api_server", "--model", str(given.model),
                "--served-model-name", NAME, "--dtype", given.dtype, "--max-num-seqs", str(many),
                "--max-model-len", str(context), "--host", "127.0.0.1", *given.vllm_option,
            ],
            environment={"VLLM_CPU_KVCACHE_SPACE": "2"},
        )  # fmt: skip


def measure(server: Server, profile: Profile, vocab_size: int, seed: int, log: Path, idle: int = 0) -> dict[str, Any]:
    with running(server, log) as url, contextlib.ExitStack() as stack:
        host, port = "127.0.0.1", int(url.rpartition(":")[2])
        for _ in range(idle):
            stack.enter_context(socket.create_connection((host, port)))
        run = asyncio.run(run_load(Service(url, NAME, vocab_size), profile, seed=seed))
    return figures_of(run)


def engine_rate(worker: Worker, profile: Profile, vocab_size: int, seed: int) -> float:
    """Return the new tokens per second of the engine alone; a first request warms it up, as the server's load does."""
    prompts = drawn_prompts(1 + profile.prompts, profile.input_tokens, vocab_size, seed)
    news = [profile.output_tokens] * profile.prompts
    worker.run(Load("warm-up", "tokens/s", prompts[:1], news[:1], profile.concurrency))
    load = Load("all", "tokens/s", prompts[1:], news, profile.concurrency)
    return load.figure(worker.run(load)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--vllm", type=Path, help="the python of vLLM's environment")
    parser.add_argument("--vllm-option", action="append", default=[], help="one more word of vLLM's command")
    parser.add_argument("--serve", action="append", default=[], help="one more word of caslon serve")
    parser.add_argument("--profile", default="serve-256x128-c16-n48")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"], help="that of the folder")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    given.model = given.model.resolve()
    profile, vocab_size = profile_named(given.profile), ModelFolder.open(given.model).config.vocab_size
    setting = Setting(given.model, given.threads, "cpu", given.dtype, {})
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        contenders = list(servers(given, profile, scratch))
        for turn in range(given.rounds):
            for server in contenders:
                server.figures.append(measure(server, profile, vocab_size, turn, scratch / "log"))
            with Worker(parsed_spec("caslon"), setting) as worker:
                bare.append(engine_rate(worker, profile, vocab_size, turn))
        idle = measure(contenders[0], profile, vocab_size, 0, scratch / "log", given.idle) if given.idle else None
    report(profile, contenders, statistics.median(bare), idle, given)


def report(
    profile: Profile, contenders: list[Server], bare: float, idle: dict[str, Any] | None, given: argparse.Namespace
) -> None:
    ours = contenders[0].median("output_throughput")
    print(f"\n{profile.name}, {given.dtype}, {given.threads} threads, medians of {given.rounds} rounds in turns\n")
    print(
        "| server | tokens/s | caslon is | TTFT median ms | TTFT p99 ms | TPOT ms | failed | start to first token s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for one in contenders:
        rate = one.median("output_throughput")
        print(
            f"| {one.name} | {rate:,.0f} | {ours / rate:.2f} x | {one.median('median_ttft_ms'):,.0f} "
            f"| {one.median('p99_ttft_ms'):,.0f} | {one.median('median_tpot_ms'):.1f} | {one.median('failed'):.0f} "
            f"| {statistics.median(one.start_seconds):.1f} |"
        )
    print(f"\nthe engine alone: {bare:,.0f} tokens/s; the server costs {1 - ours / bare:.1%} of it")
    if idle is not None:
        print(
            f"with {given.idle:,} idle connections: {idle['output_throughput']:,.0f} tokens/s, {idle['failed']} failed"
        )
    if given.output:
        record = {
            "profile": profile.name,
            "dtype": given.dtype,
            "threads": given.threads,
            "engine_tokens_per_second": bare,
            "with_idle_connections": idle,
            "servers": {one.name: {"start_seconds": one.start_seconds, "rounds": one.figures} for one in contenders},
        }
        given.output.write_text(json.dumps(record, indent=2) + "\n")
        print(f"written to {given.output}")


if __name__ == "__main__":
    main()
