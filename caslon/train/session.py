"""A training run in a folder: checkpoints below it while it lasts, the best model in `model/` when it is over."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from caslon.errors import UserError
from caslon.folders import digest_of
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.model.transformers_model import TransformersModel
from caslon.observe.console import size
from caslon.observe.events import EventLog
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.batches import Batches
from caslon.train.checkpoint import MANIFEST_FILE, OPTIMIZER_FILES, STATE_FILE, Checkpoints
from caslon.train.distributed import ALONE, Processes
from caslon.train.extras import Extras, Outcome
from caslon.train.objectives import Objective
from caslon.train.plan import TrainPlan
from caslon.train.precision import Compute
from caslon.train.trainer import Trainer

CHECKPOINTS_FOLDER = "checkpoints"
MODEL_FOLDER = "model"
WORKING_FILES = (OPTIMIZER_FILES, STATE_FILE, MANIFEST_FILE)  # patterns


def train_in_folder(
    folder: Path,
    plan: TrainPlan,
    decoder: Decoder | TransformersModel,
    tokenizer: Tokenizer,
    objective: Objective,
    batches: Batches,
    *,
    compute: Compute,
    events: EventLog,
    extras: Extras,
    sidecar: Mapping[str, Any],
    processes: Processes = ALONE,
) -> Outcome:
    """Train, or go on training, below `folder`; leave the best checkpoint as a model folder in `folder/model`.

    `sidecar` goes into every checkpoint's caslon.json beside the step and the run, which is known by what it computes.
    `UserError` when the data set has less than one batch.
    """
    refuse_too_little(batches, plan)
    run = digest_of({"plan": plan.identity(), "objective": objective.name, **extras.lineage})[:16]

    def save_model(model: Decoder | TransformersModel, path: Path, facts: Mapping[str, Any]) -> None:
        known = {**sidecar, **facts, "run": run, "objective": objective.name}
        if isinstance(model, TransformersModel):
            model.save(path, tokenizer, sidecar=known)
        else:
            save_model_folder(path, model, tokenizer, sidecar=known)

    if isinstance(decoder, TransformersModel):
        extras = replace(extras, read_weights=decoder.weights_of)

    checkpoints = Checkpoints(
        folder / CHECKPOINTS_FOLDER, plan.keep, events.warn, plan.keep_every, owns=processes.is_first
    )
    trainer = Trainer(
        plan,
        cast(Decoder, decoder),  # the loop asks a decoder for nothing that the others lack
        objective,
        batches,
        checkpoints=checkpoints,
        events=events,
        compute=compute,
        save_model=save_model,
        extras=extras,
        processes=processes,
    )
    outcome = trainer.run()
    processes.first(lambda: publish(outcome.best, folder / MODEL_FOLDER))
    events.note(sizes(outcome.best))
    return outcome


def sizes(checkpoint: Path) -> str:
    """Return what a checkpoint takes on disk, weights alone and with the optimiser's state, in words."""
    found = {file.name: file.stat().st_size for file in checkpoint.glob("*.safetensors")}
    weights = sum(count for name, count in found.items() if name.startswith("model"))
    return f"a checkpoint takes {size(weights)} of weights, {size(sum(found.values()))} with the optimiser's state"


def rewind_command(run_folder: Path) -> str:
    """Return the command that goes back in a run and lowers its rate for a while."""
    return f"caslon rewind {os.path.relpath(run_folder)} --steps 100 --lr-scale 0.1 --for 200"


def refuse_too_little(batches: Batches, plan: TrainPlan) -> None:
    """Raise `UserError` when the data set does not fill one batch."""
    if batches.rows_per_epoch < plan.batch:
        have, need = batches.rows_per_epoch, plan.batch
        raise UserError(
            f"the data set has {have} rows of {plan.context} tokens, one batch needs {need} ({plan.tokens_per_step} tokens)",
            fix="use more text, a smaller batch or a shorter context",
        )


def publish(checkpoint: Path, target: Path) -> None:
    """Make `target` a model folder with a checkpoint's model files, without what only training needs."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in sorted(checkpoint.iterdir()):
        if not any(file.match(pattern) for pattern in WORKING_FILES):
            _link_or_copy(file, target / file.name)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
