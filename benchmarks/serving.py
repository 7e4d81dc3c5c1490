"""Tokens per second of the engine and of `transformers.generate`: same folder, same threads, same prompts, one run.

    python benchmarks/serving.py [MODEL] [--threads 2] [--output serving.json]

Without MODEL a random Qwen3-shaped model of 4.3 million parameters (the quickstart's shape) is made for the run.
transformers gets static batches padded on the left, its usual way; each batch lasts as long as its longest answer.
Every figure is the median of the rounds, and the two programs take turns so that a busy moment meets both.
"""

import argparse
import json
import random
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from caslon.engine.engine import Engine
from caslon.engine.request import SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.tokenizer.train import train_tokenizer


@dataclass(frozen=True)
class Load:
    """Requests that come at once: each a prompt of random ids and the number of tokens to answer with."""

    name: str
    prompts: list[list[int]]
    new_tokens: list[int]
    batch: int


@dataclass(frozen=True)
class Result:
    """New tokens per second of both programs; for the load with one new token, prompt tokens per second."""

    load: str
    caslon: float
    transformers: float

    @property
    def ratio(self) -> float:
        return self.caslon / self.transformers


def random_model(folder: Path) -> Path:
    sources = [
        path.read_text(encoding="utf-8") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]
    ]
    tokenizer = train_tokenizer(sources, vocab_size=4096)
    shape = DecoderConfig(
        family="qwen3",
        vocab_size=tokenizer.vocab_size,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
    )
    decoder = Decoder(shape)
    decoder.initialise(1)
    save_model_folder(folder, decoder, tokenizer, sidecar={})
    return folder


def loads(vocab_size: int, context: int) -> Iterator[Load]:
    chooser = random.Random(1)

    def prompts(count: int, shortest: int, longest: int) -> list[list[int]]:
        lengths = [chooser.randint(shortest, longest) for _ in range(count)]
        return [[chooser.randrange(vocab_size) for _ in range(length)] for length in lengths]

    longest = min(context, 512)
    answer, prompt = longest // 2, longest * 2 // 5
    yield Load("decode, batch 1", prompts(1, 8, 8), [answer], 1)
    yield Load("decode, batch 16", prompts(16, 8, prompt), [answer] * 16, 16)
    yield Load("decode, batch 32", prompts(32, 8, prompt), [answer] * 32, 32)
    mixed = [max(4, round(answer * chooser.random() ** 2)) for _ in range(64)]  # many short answers, few long ones
    yield Load("64 mixed requests, 16 at once", prompts(64, 8, prompt), mixed, 16)
    yield Load(f"prompt of {longest - 8} tokens, 1 new", prompts(1, longest - 8, longest - 8), [1], 1)


def caslon_seconds(folder: Path, load: Load, *, batch_invariant: bool) -> Callable[[], float]:
    settings = EngineSettings(max_running=load.batch, prefix_cache=False, batch_invariant=batch_invariant)
    engine = Engine.load(folder, settings)
    params = [SamplingParams(max_tokens=count, temperature=0, ignore_eos=True) for count in load.new_tokens]

    def run() -> float:
        start = time.perf_counter()
        completions = engine.generate(load.prompts, params)
        seconds = time.perf_counter() - start
        assert [len(completion.ids) for completion in completions] == load.new_tokens
        return seconds

    return run


def transformers_seconds(model: Any, load: Load) -> Callable[[], float]:
    def batch(prompts: list[list[int]], new_tokens: int) -> None:
        width = max(map(len, prompts))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        model.generate(ids, attention_mask=mask, max_new_tokens=new_tokens, min_new_tokens=new_tokens, **options)

    def run() -> float:
        start = time.perf_counter()
        for first in range(0, len(load.prompts), load.batch):
            part = slice(first, first + load.batch)
            batch(load.prompts[part], max(load.new_tokens[part]))
        return time.perf_counter() - start

    return run


@torch.inference_mode()
def measure(folder: Path, rounds: int, *, batch_invariant: bool) -> list[Result]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    model.eval()
    results = []
    for load in loads(model.config.vocab_size, model.config.max_position_embeddings):
        ours, theirs = caslon_seconds(folder, load, batch_invariant=batch_invariant), transformers_seconds(model, load)
        ours(), theirs()  # the first run warms both up
        seconds = [(ours(), theirs()) for _ in range(rounds)]
        tokens = sum(load.new_tokens) if max(load.new_tokens) > 1 else len(load.prompts[0])
        rates = [tokens / statistics.median(column) for column in zip(*seconds, strict=True)]
        results.append(Result(load.name, *rates))
        print(f"| {load.name} | {rates[0]:,.0f} | {rates[1]:,.0f} | {results[-1].ratio:.2f} |", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--not-batch-invariant", action="store_true", help="measure without padded rows")
    parser.add_argument("--output", type=Path, help="write the figures as JSON here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.model or random_model(Path(scratch))
        print("| tokens/s | caslon | transformers | ratio |\n|---|---:|---:|---:|")
        results = measure(folder, arguments.rounds, batch_invariant=not arguments.not_batch_invariant)
    if arguments.output:
        figures = [{**asdict(result), "ratio": result.ratio} for result in results]
        record = {
            "threads": arguments.threads,
            "batch_invariant": not arguments.not_batch_invariant,
            "torch": torch.__version__,
            "python": sys.version.split()[0],
        }
        arguments.output.write_text(json.dumps({**record, "tokens_per_second": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
