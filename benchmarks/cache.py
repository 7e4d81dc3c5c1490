"""What the key-value cache is worth, and what it loses in fewer bits or when it forgets.

    python benchmarks/cache.py [--model FOLDER --text FILE] [--seeds 0 1] [--output FILE]

1. Cache on and off: the same tokens written with and without a cache (4 layers of width 128, random weights), tokens a
   second at 64, 128, 256 and 512 tokens, and the largest difference of their logits.
2. Recall: a model of 2 layers is taught to repeat the value of a key (a pair, then filler, then the key). The share it
   recalls is measured at several distances with the cache whole, in 8 and 4 bits, in a window and with heavy hitters, and
   beside it the bytes of the cache for one sequence at two bytes a number.
3. Perplexity, where a model and a text are given: the same caches on windows of the text as long as the model's context.

Four bits with four times the tokens against sixteen bits with one time: the rows "int4" (256 tokens) and "window:60" (64
of them). Shares carry a 95 % Wilson interval, changes of perplexity that of the paired difference over windows. A few
minutes on two cores.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from caslon.engine.engine import Engine
from caslon.engine.planner import kv_block_bytes
from caslon.engine.request import SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.model.cache import PlainCache
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.tokenizer.alphabet import byte_tokenizer
from caslon.tokenizer.tokenizer import Tokenizer

LENGTHS = (64, 128, 256, 512)
PROMPT_TOKENS = 16
PAIRS, KEYS, FILLER = 1, 64, 64  # ids 0-63 keys, 64-127 values, 128-191 filler
RECALL_CONTEXT, STEPS, BATCH, RATE = 256, 400, 16, 2e-3
DISTANCES = (32, 96, 253)  # the last with its pair and its key fills the context
QUESTIONS = 100
REPEATS = 8  # of a pair in a row that is learnt from
BLOCK = 16
SIXTEEN_BITS = 2  # bytes of a number; what is computed here in float32 is counted as kept in 16 bits
CACHES: dict[str, dict[str, Any]] = {
    "whole": {},
    "int8": {"kv_dtype": "int8"},
    "int4": {"kv_dtype": "int4"},
    "window:60": {"retention": "window:60"},
    "window:124": {"retention": "window:124"},
    "heavy_hitter:64": {"retention": "heavy_hitter:64"},
    "heavy_hitter:128": {"retention": "heavy_hitter:128"},
}


def shape(vocab_size: int, layers: int, width: int, heads: int, context: int) -> DecoderConfig:
    return DecoderConfig(
        family="llama", vocab_size=vocab_size, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        max_position_embeddings=context,
    )  # fmt: skip


@torch.inference_mode()
def cache_on_and_off() -> list[dict[str, Any]]:
    """Return tokens a second with and without a cache, and how far their logits lie apart."""
    decoder = Decoder(shape(256, 4, 128, 4, 1024)).eval()
    decoder.initialise(0)
    rows = []
    for length in LENGTHS:
        seconds, logits = {}, {}
        for cached in (True, False):
            began = time.perf_counter()
            logits[cached] = written(decoder, length, cached)
            seconds[cached] = time.perf_counter() - began
        rows.append(
            {
                "tokens": length,
                "with": round(length / seconds[True], 1),
                "without": round(length / seconds[False], 1),
                "times": round(seconds[False] / seconds[True], 1),
                "largest_difference": float((logits[True] - logits[False]).abs().max()),
            }
        )
    return rows


def written(decoder: Decoder, length: int, cached: bool) -> Tensor:
    """Return the logits [length, V] of a greedy continuation."""
    ids, found, cache = list(range(PROMPT_TOKENS)), [], PlainCache()
    for _ in range(length):
        if cached:
            fresh = ids[cache.length :]
            places = torch.arange(cache.length, len(ids))[None]
            hidden = decoder(torch.tensor([fresh]), places, cache)
        else:
            hidden = decoder(torch.tensor([ids]))
        found.append(decoder.logits(hidden[0, -1]))
        ids.append(int(found[-1].argmax()))
    return torch.stack(found)


def lesson(batch: int, tokens: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return rows [B, T] of pairs, filler and repeated pairs, and a mask of the places whose next token can be recalled."""
    ids = torch.randint(2 * KEYS, 2 * KEYS + FILLER, (batch, tokens), generator=draws)
    recalled = torch.zeros(batch, tokens, dtype=torch.bool)
    for row in range(batch):
        keys = torch.randperm(KEYS, generator=draws)[:PAIRS]
        values = torch.randint(KEYS, 2 * KEYS, (PAIRS,), generator=draws)
        ids[row, : 2 * PAIRS : 2], ids[row, 1 : 2 * PAIRS : 2] = keys, values
        places = 2 * PAIRS + 2 * torch.randperm((tokens - 2 * PAIRS) // 2, generator=draws)[: REPEATS * PAIRS]
        asked = torch.randint(PAIRS, (len(places),), generator=draws)
        ids[row, places], ids[row, places + 1] = keys[asked], values[asked]
        recalled[row, places] = True
    return ids, recalled


def taught(tokenizer: Tokenizer, seed: int) -> Decoder:
    """Return a decoder that has learnt to recall."""
    decoder = Decoder(shape(tokenizer.vocab_size, 2, 64, 2, RECALL_CONTEXT))
    decoder.initialise(seed)
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        ids, recalled = lesson(BATCH, RECALL_CONTEXT, draws)
        logits = decoder.logits(decoder(ids)[:, :-1][recalled[:, :-1]])
        loss = F.cross_entropy(logits, ids[:, 1:][recalled[:, :-1]])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return decoder.eval()


def questions(distance: int, count: int, seed: int) -> list[tuple[list[int], int]]:
    """Return prompts that end with a key whose value stood about so many tokens before, and that value."""
    draws = torch.Generator().manual_seed(10_000 + seed)
    found = []
    for _ in range(count):
        keys = torch.randperm(KEYS, generator=draws)[:PAIRS].tolist()
        values = torch.randint(KEYS, 2 * KEYS, (PAIRS,), generator=draws).tolist()
        filler = torch.randint(2 * KEYS, 2 * KEYS + FILLER, (distance - PAIRS,), generator=draws).tolist()
        asked = int(torch.randint(PAIRS, (1,), generator=draws))
        pairs = [token for pair in zip(keys, values, strict=True) for token in pair]
        found.append(([*pairs, *filler, keys[asked]], values[asked]))
    return found


def recall(engine: Engine, asked: Sequence[tuple[list[int], int]]) -> int:
    """Return how many values are recalled."""
    params = SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
    completions = engine.generate([prompt for prompt, _ in asked], params)
    return sum(completion.ids[0] == value for completion, (_, value) in zip(completions, asked, strict=True))


def engine_of(decoder: Decoder, tokenizer: Tokenizer, cache: dict[str, Any]) -> Engine:
    """Return an engine with steps as short as a block, so that what forgets does so while it reads."""
    settings = {"kernels": "torch", "max_running": 8, "max_step_tokens": 2 * BLOCK, "block_tokens": BLOCK, **cache}
    return Engine(decoder, tokenizer, EngineSettings.model_validate(settings))


def kept_bytes(config: DecoderConfig, cache: dict[str, Any], tokens: int) -> int:
    """Return the bytes of one sequence's cache at 16 bits a number, its newest 64 tokens counted as they are kept."""
    whole = kv_block_bytes(config, "float16", BLOCK) // BLOCK
    if "retention" in cache:
        return min(tokens, EngineSettings(**cache).kept.kept_tokens) * whole
    if "kv_dtype" in cache:
        blocks = max(0, tokens - 64) // BLOCK
        return blocks * kv_block_bytes(config, cache["kv_dtype"], BLOCK) + (tokens - blocks * BLOCK) * whole
    return tokens * whole


def recall_rows(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the share recalled by cache and distance, over all seeds."""
    tokenizer = byte_tokenizer([])
    models = [taught(tokenizer, seed) for seed in seeds]
    rows = []
    for name, cache in CACHES.items():
        for distance in DISTANCES:
            right = 0
            for seed, decoder in zip(seeds, models, strict=True):
                with engine_of(decoder, tokenizer, cache) as engine:
                    right += recall(engine, questions(distance, QUESTIONS, seed))
            low, high = wilson_interval(right, QUESTIONS * len(seeds))
            size = kept_bytes(models[0].config, cache, distance + PAIRS)
            share = right / (QUESTIONS * len(seeds))
            rows.append(
                {"cache": name, "distance": distance, "bytes": size, "recalled": share, "low": low, "high": high}
            )
    return rows


def perplexity_rows(folder: Path, text: Path, windows: int) -> list[dict[str, Any]]:
    """Return each cache's perplexity on windows of a text and its change, with the interval of the paired difference."""
    from caslon.model.folder import ModelFolder

    model = ModelFolder.open(folder)
    decoder, tokenizer = model.load(), model.tokenizer()
    length = decoder.config.max_position_embeddings
    ids = tokenizer.encode(text.read_text(encoding="utf-8"))
    parts = [ids[start : start + length] for start in range(0, len(ids) - length, length)][:windows]
    found: dict[str, Tensor] = {}
    for name, cache in CACHES.items():
        with engine_of(decoder, tokenizer, cache) as engine:
            found[name] = torch.tensor([-sum(scores) / len(scores) for scores in engine.score(parts)])
    rows = []
    for name, nats in found.items():
        change = nats - found["whole"]
        spread = 1.96 * float(change.std()) / math.sqrt(len(change))
        mean = float(change.mean())
        rows.append(
            {
                "cache": name,
                "bytes": kept_bytes(decoder.config, CACHES[name], length),
                "windows": len(parts),
                "perplexity": math.exp(float(nats.mean())),
                "change_percent": 100 * math.expm1(mean),
                "low": 100 * math.expm1(mean - spread),
                "high": 100 * math.expm1(mean + spread),
            }
        )
    return rows


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, right / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    if rows:
        print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    result = {"cache_on_and_off": cache_on_and_off()}
    print_rows("tokens a second with and without a cache", result["cache_on_and_off"])
    result["recall"] = recall_rows(chosen.seeds)
    print_rows("recall", result["recall"])
    if chosen.model and chosen.text:
        result["perplexity"] = perplexity_rows(chosen.model, chosen.text, chosen.windows)
        print_rows("perplexity", result["perplexity"])
    if chosen.output:
        chosen.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
