"""What more tokens are worth to a model of 0.8 M parameters that has learned sums in words: docs/guide/reasoning.md's figures.

    python benchmarks/reasoning.py [FOLDER]

Makes 37,000 sums with solutions, trains on them (some minutes on two cores), and measures three strategies on 40 others, with the
model as it was after 640 steps, when it was still often wrong. Without a folder, nothing is kept.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from caslon.reasoning.task import Item, arithmetic

TRAINING_SEEDS = range(1, 41)
SUMS_OF_A_SEED = 1_000
HELD_OUT = 2_000  # the first sums of seed 0, of which 40 are asked
QUESTIONS = 40
BUDGETS = ("100", "200", "500")
CHECKPOINT = "runs/sums/pretrain/checkpoints/step-000640"
RECIPE = """\
name = "sums"
seed = 1

[tokenizer]
text = "sums.txt"
algorithm = "bytes"
special_tokens = []

[pretrain]
family = "llama"
depth = 4
hidden_size = 128
num_attention_heads = 4
intermediate_size = 352
context = 256
batch = 16
optimizer = "muon"
learning_rate = 3e-3
warmup_steps = 50
schedule = "cosine"
steps = 1_600
packing = "windows"
doc_mask = false
"""


def main(folder: Path) -> None:
    """Write the recipe and its text, run it, and measure the model, whose answers end with an empty line."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{item.question}\n{item.solution}\n\n" for item in training_sums())
    (folder / "sums.txt").write_text(text)
    (folder / "sums.toml").write_text(RECIPE)
    run(folder, "run", "sums.toml")
    measure = ("bench", "reasoning", CHECKPOINT, "arithmetic", "--questions", str(QUESTIONS))
    ways = ("--max-tokens", "120", "--stop", "\n\n")
    run(folder, *measure, *ways, *(word for budget in BUDGETS for word in ("--budget", budget)))


def training_sums() -> list[Item]:
    """Return sums none of which is asked later."""
    held_out = {item.question for item in arithmetic(HELD_OUT, 0)}
    made = {item.question: item for seed in TRAINING_SEEDS for item in arithmetic(SUMS_OF_A_SEED, seed)}
    return [item for item in made.values() if item.question not in held_out]


def run(folder: Path, *words: str) -> None:
    """Run a command of caslon in a folder."""
    subprocess.run([sys.executable, "-m", "caslon", *words], cwd=folder, check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
