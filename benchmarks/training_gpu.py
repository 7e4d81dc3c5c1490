"""How fast the SLM trains on one GPU, and what share of its peak that is, beside the usual peer.

    python benchmarks/training_gpu.py [--batch 64] [--steps 30] [--no-peer] [--profile] [--output FILE]

The shape is the published one: GPT-2, 12 layers of 768, context 512, vocabulary 30,000, 108 million parameters, in bf16. MFU
counts six operations per weight in a matrix product and causal attention at half, over 989 TFLOP/s (dense bf16 of H100 and H200,
by NVIDIA's datasheet) and over the product measured in this run. The peer is transformers' GPT-2 with torch's fused attention,
compiled whole, trained as nanoGPT trains: AdamW fused, attention across documents.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caslon.model.decoder import Decoder
from caslon.model.size import flop_per_token
from caslon.observe.events import EventLog
from caslon.stages.pretrain import Settings, train_plan
from caslon.stages.shape import decoder_config
from caslon.train.batches import Documents, PackedBatches
from caslon.train.checkpoint import Checkpoints
from caslon.train.objectives import NextToken
from caslon.train.precision import Compute, choose_compute
from caslon.train.trainer import Trainer

VOCAB_SIZE, CONTEXT, SEED = 30_000, 512, 1
DATASHEET_FLOPS = 989e12
PEAK_SIZE = 8192
WARM_UP = 5
Step = Callable[[], None]


def documents(count: int = 4000) -> Documents:
    """Return documents of random ids of many lengths: what is in them does not change the speed."""
    random = np.random.default_rng(SEED)
    lengths = random.integers(50, 6000, size=count)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = random.integers(2, VOCAB_SIZE, size=int(starts[-1])).astype(np.uint16)
    ids[starts[1:] - 1] = 1
    return Documents(ids, starts, end_id=1)


def settings(**changes: Any) -> Settings:
    """Return the table of the published shape, with changes."""
    shape = {"family": "gpt2", "depth": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    return Settings(**{**shape, "bias": False, "context": CONTEXT, "steps": 100_000, "device": "cuda", **changes})


def caslon_step(chosen: Settings, rows: Documents, folder: Path) -> Step:
    """Return one step of caslon's trainer: batch, loss, gradients, clipping, update, log."""
    what, _ = train_plan(chosen, VOCAB_SIZE, SEED)
    decoder = Decoder(decoder_config(chosen, VOCAB_SIZE, CONTEXT))
    decoder.initialise(SEED)
    trainer = Trainer(
        replace(what, eval_every=100_000),
        decoder,
        NextToken(),
        PackedBatches(rows, CONTEXT, SEED, chosen.doc_mask),
        checkpoints=Checkpoints(folder, keep=1, warn=print),
        events=EventLog(None),
        compute=choose_compute(chosen),
        save_model=lambda _model, _folder, _facts: None,
    )
    trainer.decoder.train()
    return lambda: _taken(trainer)


def _taken(trainer: Trainer) -> None:
    assert trainer._step(), "a benchmark step was skipped"


def peer_step(chosen: Settings, rows: Documents, compute: Compute) -> Step:
    """Return one step of nanoGPT's loop around transformers' compiled GPT-2."""
    from transformers import AutoConfig, AutoModelForCausalLM

    values = decoder_config(chosen, VOCAB_SIZE, CONTEXT).to_json()
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        config, attn_implementation="sdpa", dtype=torch.float32
    )
    model = torch.compile(model.to(compute.device).train())
    model.config.use_cache = False
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    batches = PackedBatches(rows, CONTEXT, SEED, mask_documents=False)
    done = 0

    def step() -> None:
        nonlocal done
        batch = batches.batch(done, chosen.batch or 1).to(compute.device)
        with compute.autocast():
            logits = model(input_ids=batch.ids).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done += 1

    return step


def measured(step: Step, steps: int) -> dict[str, float]:
    """Return seconds of a step (median), of the first steps with their compiling, and the peak of memory."""
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for _ in range(WARM_UP):
        step()
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return {
        "step_seconds": statistics.median(seconds),
        "first_steps_seconds": first,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
    }


def peak_flops() -> float:
    """Return the best measured rate of a large bf16 product of random numbers."""
    left = torch.randn(PEAK_SIZE, PEAK_SIZE, device="cuda").bfloat16()
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize()
        began = time.perf_counter()
        left @ left
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * PEAK_SIZE**3 / best


def profiled(step: Step) -> str:
    """Return the kernels of three steps by the time they take on the device."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(3):
            step()
        torch.cuda.synchronize()
    return str(found.key_averages().table(sort_by="cuda_time_total", row_limit=30, max_name_column_width=70))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--profile", action="store_true", help="also print the kernels of the first contender")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/training_gpu.json"))
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device is available: nothing measured")
        return
    rows, peak = documents(), peak_flops()
    variants = {
        "Muon, compiled": settings(batch=given.batch, optimizer="muon"),
        "AdamW, compiled": settings(batch=given.batch, optimizer="adamw"),
        "AdamW, plain": settings(batch=given.batch, optimizer="adamw", compilation="off"),
    }
    flop = flop_per_token(decoder_config(variants["AdamW, plain"], VOCAB_SIZE, CONTEXT), CONTEXT)
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16 product of {PEAK_SIZE}: {peak / 1e12:.0f} TFLOP/s"
    )
    print(f"batch {given.batch} x {CONTEXT} tokens, {flop:,} FLOP a token; medians of {given.steps} steps\n")
    print(
        "| trainer | step | tokens/s | MFU of 989 | of measured | memory | first steps |\n|---|---:|---:|---:|---:|---:|---:|"
    )
    results = []
    with tempfile.TemporaryDirectory() as place:
        steps = {f"caslon, {name}": caslon_step(chosen, rows, Path(place) / name) for name, chosen in variants.items()}
        if not given.no_peer:
            chosen = variants["AdamW, plain"]
            steps["transformers, AdamW, compiled"] = peer_step(chosen, rows, choose_compute(chosen))
        for name, step in steps.items():
            row = measured(step, given.steps)
            speed = given.batch * CONTEXT / row["step_seconds"]
            shares = speed * flop / DATASHEET_FLOPS, speed * flop / peak
            results.append(
                {"trainer": name, "tokens_per_second": speed, "mfu": shares[0], "of_measured_peak": shares[1], **row}
            )
            print(
                f"| {name} | {row['step_seconds'] * 1e3:.1f} ms | {speed:,.0f} | {shares[0]:.1%} | {shares[1]:.1%} "
                f"| {row['peak_memory_bytes'] / 1e9:.1f} GB | {row['first_steps_seconds']:.0f} s |",
                flush=True,
            )
            if given.profile and len(results) == 1:
                print(profiled(step))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    report = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "peak_flops": peak, "rows": results}
    given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten to {given.output}")


if __name__ == "__main__":
    main()
