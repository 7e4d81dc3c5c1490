"""A run to an earlier point of itself, from which it goes on with a lower rate; what it had done after that point is kept.

The earlier course lies in `lines/1/` (then 2, ...): its checkpoints, its log and its metrics. The checkpoint gone back to is
there as it was; in its old place stands one that holds the lowered rate, so that a kill at any later moment changes nothing.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from caslon.errors import UserError
from caslon.train.checkpoint import Checkpoint, Checkpoints

LINES_FOLDER = "lines"
LOGS = ("events.jsonl", "metrics.jsonl")


@dataclass(frozen=True)
class Rewind:
    """What was done: from the newest checkpoint to an earlier one."""

    from_step: int
    to_step: int
    line: Path

    def describe(self, lr_scale: float, for_steps: int) -> str:
        """Return it in words, as the history of a run keeps it."""
        end = self.to_step + for_steps
        return f"back from step {self.from_step} to {self.to_step}; learning rate x {lr_scale:g} until step {end}"


def rewind(folder: Path, checkpoints: Checkpoints, *, steps: int, lr_scale: float, for_steps: int) -> Rewind:
    """Make the kept checkpoint nearest to `steps` before the newest the last one, with the rate lowered for a stretch.

    `folder` is the training's; `UserError` when it keeps no earlier checkpoint.
    """
    found = checkpoints.all()
    earlier = [item for item in found[:-1] if item.problem() is None]
    if not earlier:
        raise UserError(
            "no earlier checkpoint is kept to go back to",
            where=str(checkpoints.folder),
            fix="train on until there are two; save_every and keep say how many there are",
        )
    newest = found[-1].step
    chosen = min(earlier, key=lambda item: (abs(item.step - (newest - steps)), item.step))
    line = _keep_line(folder, found, chosen)
    stretch = {"stretch_scale": lr_scale, "stretch_until": chosen.step + for_steps, "regular": True}
    checkpoints.change_state(chosen, stretch, line / checkpoints.folder.name)
    checkpoints.go_on_from(chosen, chosen.state()["best_step"])
    return Rewind(newest, chosen.step, line)


def _keep_line(folder: Path, found: list[Checkpoint], chosen: Checkpoint) -> Path:
    """Copy the logs of the course so far, and move the checkpoints after `chosen` out of the way."""
    lines = folder / LINES_FOLDER
    line = lines / str(1 + len(list(lines.glob("*"))))
    kept = line / chosen.path.parent.name
    kept.mkdir(parents=True)
    for name in LOGS:
        if (folder / name).is_file():
            shutil.copy2(folder / name, line / name)
    for item in reversed(found):
        if item.step > chosen.step:
            item.path.rename(kept / item.path.name)
    return line
