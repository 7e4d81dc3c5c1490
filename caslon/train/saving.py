"""A model in training to a checkpoint on disk: at once on a CPU, in the background on a GPU.

On a GPU training waits for one copy of the state to the memory of the host; the files are written beside it by a thread, one
checkpoint at a time: the next one waits for it. Of several processes the first works on the folder, and the others hear what
came of it; where each holds a part of the optimiser's state, each writes its own.
"""

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from caslon.model.decoder import Decoder
from caslon.train.checkpoint import PREFIX, Checkpoint, Checkpoints
from caslon.train.distributed import ALONE, Processes

SaveModel = Callable[[Decoder, Path, Mapping[str, Any]], None]
"""Write a model as a complete model folder at a path, with these facts in its sidecar."""


class Saver:
    """Saves the checkpoints of one run. In the background `save` returns before they are written, `wait` after.

    Every method is to be called by all processes.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        save_model: SaveModel,
        processes: Processes = ALONE,
        *,
        in_background: bool,
    ) -> None:
        self.checkpoints, self.save_model, self.processes = checkpoints, save_model, processes
        self._pool = ThreadPoolExecutor(1, "checkpoints") if in_background and processes.is_first else None
        self._writing: Future[Checkpoint | None] | None = None

    def save(
        self, step: int, model: Decoder, optimizer: Mapping[str, Tensor], state: Mapping[str, Any], *, best: bool
    ) -> bool:
        """Save a checkpoint; return whether it is written, or on its way. False means that it could not be written."""
        self.wait()
        whole = self.processes.whole(model)
        if not self._write_parts(step, optimizer):
            return False
        return self.processes.first(lambda: self._save(step, whole, optimizer, state, best))

    def wait(self) -> bool:
        """Wait for the checkpoint that is being written; return whether it could be, and raise what its thread raised."""

        def written() -> bool:
            writing, self._writing = self._writing, None
            return writing is None or writing.result() is not None

        return self.processes.first(written)

    def newest_intact(self) -> Checkpoint | None:
        """Return the newest undamaged checkpoint, `None` when there never was one; `StorageError` when all are damaged."""
        return self._told(self.checkpoints.newest_intact)

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint, damaged or not."""
        return self._told(self.checkpoints.newest)

    def best(self) -> Checkpoint | None:
        """Return the best checkpoint, after old ones were removed."""
        self.processes.first(self.checkpoints.prune)
        return self._told(self.checkpoints.best)

    def go_on_from(self, checkpoint: Checkpoint, best_step: int | None) -> None:
        """Make `checkpoint` the last one: later ones are removed, and both links are set as they were at its step."""
        self.processes.first(lambda: self.checkpoints.go_on_from(checkpoint, best_step))

    def _save(
        self, step: int, model: Decoder, optimizer: Mapping[str, Tensor], state: Mapping[str, Any], best: bool
    ) -> bool:
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        _, parts = self.processes.part
        save = partial(self.checkpoints.save, best=best, weight_bytes=size, parts=parts)
        if self._pool is None:
            return save(step, partial(self.save_model, model), optimizer, state) is not None
        write = partial(self.save_model, on_host(model))
        tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in optimizer.items()}
        self._writing = self._pool.submit(save, step, write, tensors, copy.deepcopy(dict(state)))
        return True

    def _write_parts(self, step: int, optimizer: Mapping[str, Tensor]) -> bool:
        """Let each process but the first write its part, if it has one; return whether all are there."""
        part, parts = self.processes.part
        if parts == 1:
            return True
        size = parts * sum(tensor.nbytes for tensor in optimizer.values())
        if not self.processes.first(lambda: self.checkpoints.make_room(size)):
            return False
        failed = False
        if part > 0:
            try:
                self.checkpoints.write_part(step, optimizer, part, parts)
            except (OSError, SafetensorError):
                failed = True
        if self.processes.agree(failed):
            self.checkpoints.warn(f"checkpoint at step {step} could not be written: a process could not write its part")
            return False
        return True

    def _told(self, find: Callable[[], Checkpoint | None]) -> Checkpoint | None:
        def step() -> int | None:
            found = find()
            return None if found is None else found.step

        told = self.processes.first(step)
        return None if told is None else Checkpoint(self.checkpoints.folder / f"{PREFIX}{told:06d}", told)


def on_host(model: Decoder) -> Decoder:
    """Return a copy of a model in the memory of the host; the model's own device holds no second copy at any time."""
    tensors: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to("cpu", copy=True), parameter.requires_grad)
        for parameter in model.parameters()
    }
    tensors |= {id(buffer): buffer.detach().to("cpu", copy=True) for buffer in model.buffers()}
    return copy.deepcopy(model, tensors)
