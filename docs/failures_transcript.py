"""Writes docs/guide/failures.md: every failure of a training made to happen, and the real words that came out.

Run it with `python docs/failures_transcript.py`; it takes about two minutes, on a recipe of one layer that is never kept.
"""

import math
import os
import random
import re
import signal
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from caslon import cli
from caslon.model.decoder import Decoder
from caslon.train.batches import Batch
from caslon.train.objectives import LossSum, NextToken
from caslon.train.trainer import Trainer

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "guide" / "failures.md"
WORDS = ["the", "model", "reads", "a", "row", "of", "tokens", "and", "predicts", "what", "comes", "next"]
RECIPE = """name = "small"

[tokenizer]
text = "text.txt"
algorithm = "bytes"

[pretrain]
depth = 1
hidden_size = 32
context = 32
batch = 4
steps = 40
eval_every = 10
eval_batches = 1
learning_rate = 0.01
precision = "fp32"
threads = 1
sample_tokens = 0
"""
TELLING = "warning(?!: the width)|caslon:|at:|fix:|next:|resumed|wrong.toml|back|training on .*fallen"


def planted_nan(bad: Sequence[int]) -> None:
    """Make the loss of these steps not a number, of each as often as it is named."""
    real, left = Trainer._loss_and_norm, list(bad)

    def loss_and_norm(self: Trainer, batch: Batch) -> Any:
        loss, *others = real(self, batch)
        if self.progress.step + 1 in left:
            left.remove(self.progress.step + 1)
            loss = math.nan
        return loss, *others

    Trainer._loss_and_norm = loss_and_norm  # type: ignore[method-assign]


def little_memory(rows: int) -> None:
    """Make memory run out when more than so many rows are trained on at once."""
    real = NextToken.loss

    def loss(self: NextToken, decoder: Decoder, batch: Batch) -> LossSum:
        if decoder.training and batch.ids.size(0) > rows:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, decoder, batch)

    NextToken.loss = loss  # type: ignore[method-assign]


def signal_at(step: int) -> None:
    """Let SIGTERM come within a step."""
    real = Trainer._log

    def log(self: Trainer, *values: Any) -> None:
        real(self, *values)
        if self.progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    Trainer._log = log  # type: ignore[method-assign]


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = random.Random(0)  # noqa: S311
        (folder / "text.txt").write_text("\n\n".join(" ".join(rng.choices(WORDS, k=30)) for _ in range(150)))
        (folder / "recipe.toml").write_text(RECIPE)
        said("caslon run recipe.toml --until tokenizer", folder)
        PAGE.write_text("\n".join([INTRODUCTION, *failures(folder), HEALTH]) + "\n")


def said(command: str, folder: Path, spoil: Callable[[], None] = lambda: None) -> str:
    """Return a command, what it printed (the lines that matter for a failure) and its exit code, as a block of text.

    It runs in a fork of this process, in which `spoil` makes the failure happen.
    """
    output, errors = folder / "output.txt", folder / "errors.txt"
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        for number, file in ((1, output), (2, errors)):
            os.dup2(os.open(file, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
        spoil()
        sys.argv = command.split()
        code = 1
        try:
            cli.main()
        except SystemExit as ended:
            code = int(str(ended.code))
        except BaseException:  # as Python itself would end
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = [line for line in errors.read_text().splitlines() if re.match(rf"\s*({TELLING})", line)]
    if not code:
        lines += [line for line in output.read_text().splitlines() if line.startswith(("next", "pretrain "))]
    text = "\n".join([f"$ {command}", *(shortened(line) for line in lines), f"[exit code {code}]"])
    return f"```text\n{text}\n```\n"


def shortened(line: str) -> str:
    """Return a line without times, and broken at the width of a page."""
    return "\n".join(textwrap.wrap(line.rstrip(), 118, subsequent_indent="    ", break_on_hyphens=False)) or line


def failures(folder: Path) -> Iterator[str]:
    """Yield a section per failure: why it happens, and what is printed."""
    train = "caslon train recipe.toml"
    yield "## One step that is not finite\n\nIt is left out, and the documents of its batch are named.\n"
    yield said(f"{train} --set name=once", folder, lambda: planted_nan([12]))
    yield "## Five such steps in a row\n\nBack to the last checkpoint, with half the rate.\n"
    yield said(f"{train} --set name=five", folder, lambda: planted_nan(range(22, 27)))
    yield "## Going back twice does not help\n\nThe run stops with code 5.\n"
    yield said(f"{train} --set name=lost", folder, lambda: planted_nan([*range(22, 60)] * 3))
    yield "## Memory runs out\n\nThe micro-batch is halved; the result of a step stays what it was.\n"
    yield said(f"{train} --set name=tight", folder, lambda: little_memory(1))
    yield "When one row does not fit, the run stops with code 6 and says what it needs.\n"
    yield said(f"{train} --set name=tighter", folder, lambda: little_memory(0))
    yield "## Stopped by a signal or by the clock\n\nThe state is saved, the code is 3, and the run goes on later.\n"
    yield said(f"{train} --set name=stopped", folder, lambda: signal_at(17))
    yield said("caslon resume stopped", folder)
    yield said(f"{train} --set name=short --set pretrain.max_minutes=0.0001", folder)
    yield "## A checkpoint is damaged\n\nHere one byte of `optim.safetensors` was changed after a stop at step 17.\n"
    said(f"{train} --set name=damaged", folder, lambda: signal_at(17))
    file = folder / "runs/damaged/pretrain.partial/checkpoints/last/optim.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    yield said("caslon resume damaged", folder)
    yield "## Settings change under way\n\nA changed rate must be allowed, and is noted; another shape is another run.\n"
    said(f"{train} --set name=changed", folder, lambda: signal_at(17))
    yield said("caslon resume changed --set pretrain.learning_rate=0.001", folder)
    yield said("caslon resume changed --set pretrain.hidden_size=64 --allow-change", folder)
    yield said("caslon resume changed --set pretrain.learning_rate=0.001 --allow-change", folder)
    yield "## Another training is in the way\n"
    yield said(f"{train} --set name=changed --set pretrain.steps=50", folder)
    yield "## Mistakes in a recipe\n\nAll of them at once, before anything is read.\n"
    (folder / "wrong.toml").write_text(
        RECIPE.replace("depth = 1", "dephts = 1\nnum_attention_heads = 6\nnum_key_value_heads = 4\nmicro_batch = 3")
    )
    yield said("caslon train wrong.toml", folder)
    yield "## A device that is not there\n\nNothing is replaced in silence.\n"
    if not torch.cuda.is_available():
        yield said(f"{train} --set name=gpu --set pretrain.device=cuda", folder)
        yield said(f"{train} --set name=gpu --set pretrain.device=cuda --allow-fallback", folder)


INTRODUCTION = """# When training fails

What can go wrong in a training, what caslon does about it, and what you do next. Everything below was printed by the command
above it: `docs/failures_transcript.py` makes each failure happen and writes this page.

| what happens | what caslon does | exit code |
| --- | --- | ---: |
| a loss or gradient is not finite | names the documents, leaves the step out; five in a row: back, at half the rate | 5 |
| memory runs out | halves the micro-batch, then computes activations twice; stops when one row does not fit | 6 |
| the disk is full | removes old checkpoints, trains on with a warning; fails at the last save | 4 |
| SIGTERM, Ctrl-C, `max_minutes` | saves and stops; `caslon resume` goes on to the same bytes | 3 |
| killed, power cut | nothing is half written; `caslon resume` takes the newest intact checkpoint | |
| a file of a checkpoint is missing or changed | takes the next older one, says what is lost; with none intact: stops | 4 |
| a mistake in the recipe, a device that is not there | says all that is wrong at once, with what to write instead | 2 |
| anything else | shows where, and says how to go on | 1 |

The last line of output always says which command to run next.
"""

HEALTH = """## Notes on a run's health

Each is said once, as a warning, and changes nothing. They are signs to look at, not verdicts.

| note | when | what to do |
| --- | --- | --- |
| no better than chance | after 200 steps the loss is above that of blind guessing | lower `learning_rate`; look at the data |
| no progress | the training loss has not fallen for 1,000 steps | as above, or the model has learnt what it can |
| large gradients | the norm before clipping was above 10 for 20 steps | lower `learning_rate`, raise `warmup_steps` |
| repeated data | the text is read for the fifth time | more text, fewer steps, a smaller model |
| learning by heart | over three evaluations validation rises while training falls | stop, or more text, or `dropout` |
| slow data | more than a tenth of the step time is waiting for batches | a faster disk, more threads |
| plateau suspected | in ten evaluations validation has not improved by 0.5 %, before 90 % of the steps | `caslon rewind`, below |

## Going back

`caslon rewind RUN --steps 100 --lr-scale 0.1 --for 200` goes back to the kept checkpoint nearest to 100 steps before the newest,
trains 200 steps at a tenth of the rate, and then holds the schedule again. What the run had done after that point stays in
`pretrain/lines/1/`: its checkpoints, its log and its metrics. `history` among the settings of the stage says what was done, so
such a run is never taken for one that was not touched. `patience = 5` ends a run after five evaluations without a better one."""


if __name__ == "__main__":
    main()
