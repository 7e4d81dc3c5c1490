"""A list of GPUs and what may be used of them into the ones that train, with the reason each of the others is left out."""

from collections.abc import Sequence
from dataclasses import dataclass

GB = 1_000_000_000


@dataclass(frozen=True)
class Gpu:
    """What a GPU says of itself."""

    index: int
    name: str
    free_bytes: int
    total_bytes: int
    capability: tuple[int, int]

    def describe(self) -> str:
        """Return its name and memory: `NVIDIA H100 (cuda:0), 84.1 of 85.0 GB free`."""
        return f"{self.name} (cuda:{self.index}), {self.free_bytes / GB:.1f} of {self.total_bytes / GB:.1f} GB free"


@dataclass(frozen=True)
class GpuChoice:
    """The GPUs to use, in order of their index, and why the others are not used."""

    used: tuple[Gpu, ...]
    left_out: tuple[str, ...]


def visible_gpus() -> list[Gpu]:
    """Return the GPUs of this machine (those that `CUDA_VISIBLE_DEVICES` shows); none on a machine without CUDA."""
    import torch

    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        capability = torch.cuda.get_device_capability(index)
        found.append(Gpu(index, torch.cuda.get_device_name(index), free, total, capability))
    return found


def choose_gpus(gpus: Sequence[Gpu], *, max_gpus: int, min_free_gb: float) -> GpuChoice:
    """Return which of `gpus` to use: those with enough free memory, at most `max_gpus` of them (0 = all)."""
    roomy = [gpu for gpu in gpus if gpu.free_bytes >= min_free_gb * GB]
    used = roomy[: max_gpus or None]
    left_out = [f"{gpu.describe()}: less than min_gpu_memory_gb = {min_free_gb:g}" for gpu in gpus if gpu not in roomy]
    left_out += [f"{gpu.describe()}: beyond max_gpus = {max_gpus}" for gpu in roomy[len(used) :]]
    return GpuChoice(tuple(used), tuple(left_out))
