"""Whether the balance loss keeps experts in use, and what the mixture costs in loss beside a dense model of equal work.

    python benchmarks/moe_balance.py tiny-shakespeare.txt [--seeds 0 1] [--output FILE]

Characters of one text, 4 layers of width 128, 4 experts of 170 of which a token passes through 2 (the dense control: 341), 300
steps of 16 x 32 characters with AdamW at 1e-3. The text is tiny Shakespeare, 1,115,394 bytes of SHA-256 86c4e6aa...565ed; the
first 90 % are learnt from, the last 10 % are measured on. Printed and written: each expert's smallest and largest share of its
layer's routing, and the validation loss, without the balance loss, with it, and dense. About a minute on two cores.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.train.batches import Documents, PackedBatches, WindowBatches
from caslon.train.objectives import NextToken
from caslon.train.objectives.objective import add_metrics
from caslon.train.optimizer import Optimizer

TEXT_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
CONTEXT, BATCH, STEPS, RATE, COEFFICIENT = 32, 16, 300, 1e-3, 0.01
EXPERT_WIDTH, DENSE_WIDTH = 170, 341
LEAST_WITHOUT, LEAST_WITH, MOST_WITH, MOST_LOSS_ABOVE_DENSE = 0.10, 0.10, 0.45, 0.01


def splits(text: bytes) -> tuple[Documents, Documents, int]:
    """Return the two parts as a document each, closed by an end token, and the size of the vocabulary."""
    alphabet = sorted(set(text))
    ids = np.searchsorted(alphabet, list(text)) + 1
    cut = len(ids) * 9 // 10
    parts = (np.append(part, 0).astype(np.uint16) for part in (ids[:cut], ids[cut:]))
    train, validation = (Documents(part, np.array([0, len(part)]), 0) for part in parts)
    return train, validation, len(alphabet) + 1


def shape(vocab_size: int, coefficient: float | None) -> DecoderConfig:
    """Return the mixture with a coefficient of its balance loss, or (None) the dense control."""
    fields: dict[str, Any] = {"vocab_size": vocab_size, "hidden_size": 128, "num_hidden_layers": 4}
    fields |= {"num_attention_heads": 4, "max_position_embeddings": CONTEXT}
    if coefficient is None:
        return DecoderConfig(family="llama", intermediate_size=DENSE_WIDTH, **fields)
    return DecoderConfig(
        family="mixtral",
        intermediate_size=EXPERT_WIDTH,
        num_local_experts=4,
        num_experts_per_tok=2,
        router_aux_loss_coef=coefficient,
        **fields,
    )


def trained(config: DecoderConfig, train: Documents, seed: int) -> Decoder:
    """Return a decoder after all steps."""
    decoder = Decoder(config)
    decoder.initialise(seed)
    optimizer = Optimizer(decoder, "adamw", weight_decay=0.1)
    batches, objective = WindowBatches(train, CONTEXT, seed, mask_documents=False), NextToken()
    for step in range(STEPS):
        part = objective.loss(decoder, batches.batch(step, BATCH))
        (part.sum / part.count).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step(RATE)
        decoder.zero_grad(set_to_none=True)
    return decoder


@torch.no_grad()
def measured(decoder: Decoder, validation: Documents) -> dict[str, float]:
    """Return loss and shares over the whole validation part."""
    rows, objective = PackedBatches(validation, CONTEXT, 0, mask_documents=False), NextToken()
    nats, count, sums = 0.0, 0, dict[str, torch.Tensor]()
    for number in range(rows.rows_per_epoch // 256):
        part = objective.loss(decoder.eval(), rows.batch(number, 256))
        nats, count = nats + float(part.sum), count + part.count
        add_metrics(sums, part.metrics)
    return {"loss": nats / count, **objective.measures(nats, count, sums)}


def main() -> int:
    """Print and write the table; return 1 when a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--output", type=Path)
    chosen = parser.parse_args()
    text = chosen.text.read_bytes()
    if hashlib.sha256(text).hexdigest() != TEXT_SHA256:
        print(f"{chosen.text} is not tiny Shakespeare: the figures will differ from those promised", file=sys.stderr)
    train, validation, vocab_size = splits(text)
    rows = []
    for seed in chosen.seeds:
        for name, coefficient in (("no balance loss", 0.0), ("balance loss", COEFFICIENT), ("dense", None)):
            found = measured(trained(shape(vocab_size, coefficient), train, seed), validation)
            rows.append({"seed": seed, "model": name, **found})
            low, high = found.get("expert_share_min", 1.0), found.get("expert_share_max", 1.0)
            print(f"seed {seed}  {name:<16} loss {found['loss']:.4f}  shares {low:.3f} to {high:.3f}", flush=True)
    kept = promises(rows)
    for promise, holds in kept.items():
        print(f"{'kept  ' if holds else 'BROKEN'}  {promise}")
    if chosen.output:
        chosen.output.write_text(json.dumps({"rows": rows, "promises": kept}, indent=2) + "\n")
    return 0 if all(kept.values()) else 1


def promises(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """Return what was promised of the figures, and whether it holds for every seed."""
    by_model = {
        name: [row for row in rows if row["model"] == name] for name in ("no balance loss", "balance loss", "dense")
    }
    without, balanced, dense = by_model.values()
    gap = sum(one["loss"] - other["loss"] for one, other in zip(balanced, dense, strict=True)) / len(dense)
    return {
        "without the balance loss some expert gets less than 0.10": all(
            row["expert_share_min"] < LEAST_WITHOUT for row in without
        ),
        "with it every expert of every layer gets 0.10 to 0.45": all(
            row["expert_share_min"] >= LEAST_WITH and row["expert_share_max"] <= MOST_WITH for row in balanced
        ),
        "its loss, mean over the seeds, is at most 0.01 above that of the dense model of equal work": gap
        <= MOST_LOSS_ABOVE_DENSE,
    }


if __name__ == "__main__":
    sys.exit(main())
