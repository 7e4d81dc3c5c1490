"""A small network, an objective and batches through the package's training loop: what networks of the ladder need of it."""

import shutil
from pathlib import Path
from typing import Literal, cast

from safetensors.torch import save_file
from torch import nn

from caslon.model.decoder import Decoder
from caslon.observe.events import EventLog
from caslon.train.batches import Batches
from caslon.train.checkpoint import Checkpoints
from caslon.train.objectives.objective import Objective
from caslon.train.plan import Defaults, TrainPlan, make_plan
from caslon.train.precision import choose_compute
from caslon.train.settings import DeviceSettings, OptimizationSettings, UpkeepSettings
from caslon.train.trainer import Trainer

WARMUP_SHARE = 0.07
LAST_RATE = 0.02  # of the peak


def train_by_loop(
    network: nn.Module,
    objective: Objective,
    batches: Batches,
    plan: TrainPlan,
    folder: Path,
    events: EventLog,
    *,
    precision: Literal["auto", "fp32"] = "fp32",
) -> None:
    """Train a network to the plan's last step; `folder` holds the loop's checkpoint meanwhile and is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    trainer = Trainer(
        plan,
        cast(Decoder, network),  # the loop asks a decoder for nothing that these networks lack
        objective,
        batches,
        checkpoints=Checkpoints(folder, plan.keep, events.warn),
        events=events,
        compute=choose_compute(DeviceSettings(precision=precision, compilation="off")),
        save_model=lambda _network, path, _facts: save_weights(path, network),
    )
    trainer.run()
    shutil.rmtree(folder)


def save_weights(folder: Path, network: nn.Module) -> None:
    """Write a network's weights for the loop's checkpoint."""
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "model.safetensors")


def loop_plan(
    *, steps: int, batch: int, context: int, learning_rate: float, optimizer: Literal["adamw", "muon"], seed: int
) -> TrainPlan:
    """Return the loop's plan: a short warm-up, then a cosine to nearly nothing; a number that is not finite stops."""
    optimization = OptimizationSettings(
        steps=steps,
        batch=batch,
        context=context,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=0.01,
        min_rate_ratio=LAST_RATE,
        on_nan="stop",
    )
    defaults = Defaults(
        context=context,
        batch=batch,
        learning_rate=learning_rate,
        steps=lambda _: steps,
        steps_why="the rung's",
        why="the rung's",
        warmup_share=WARMUP_SHARE,
    )
    plan, _ = make_plan(optimization, UpkeepSettings(eval_every=steps, keep=1), defaults, seed=seed)
    return plan
