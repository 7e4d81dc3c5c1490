"""A model in training to a checkpoint on disk: at once on a CPU, in the background on a GPU.

On a GPU training waits for one copy of the state to the memory of the host; the files are written beside it by a thread, one
checkpoint at a time: the next one waits for it.
"""

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from caslon.model.decoder import Decoder
from caslon.train.checkpoint import Checkpoint, Checkpoints

SaveModel = Callable[[Decoder, Path, Mapping[str, Any]], None]
"""Write a model as a complete model folder at a path, with these facts in its sidecar."""


class Saver:
    """Saves the checkpoints of one run. In the background `save` returns before they are written, `wait` after."""

    def __init__(self, checkpoints: Checkpoints, save_model: SaveModel, *, in_background: bool) -> None:
        self.checkpoints, self.save_model = checkpoints, save_model
        self._pool = ThreadPoolExecutor(1, "checkpoints") if in_background else None
        self._writing: Future[Checkpoint | None] | None = None

    def save(
        self, step: int, model: Decoder, optimizer: Mapping[str, Tensor], state: Mapping[str, Any], *, best: bool
    ) -> bool:
        """Save a checkpoint; return whether it is written, or on its way. False means that it could not be written."""
        self.wait()
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        if self._pool is None:
            write = partial(self.save_model, model)
            return self.checkpoints.save(step, write, optimizer, state, best=best, weight_bytes=size) is not None
        write = partial(self.save_model, on_host(model))
        tensors = {name: tensor.detach().to("cpu", copy=True) for name, tensor in optimizer.items()}
        self._writing = self._pool.submit(
            self.checkpoints.save, step, write, tensors, copy.deepcopy(dict(state)), best=best, weight_bytes=size
        )
        return True

    def wait(self) -> bool:
        """Wait for the checkpoint that is being written; return whether it could be, and raise what its thread raised."""
        writing, self._writing = self._writing, None
        return writing is None or writing.result() is not None


def on_host(model: Decoder) -> Decoder:
    """Return a copy of a model in the memory of the host; the model's own device holds no second copy at any time."""
    tensors: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to("cpu", copy=True), parameter.requires_grad)
        for parameter in model.parameters()
    }
    tensors |= {id(buffer): buffer.detach().to("cpu", copy=True) for buffer in model.buffers()}
    return copy.deepcopy(model, tensors)
