"""A device to its peak rate of matrix products: from the table of data sheets, or the best measured so far.

The best measurement so far is kept in `$XDG_CACHE_HOME/caslon/peaks.json` (`~/.cache` without the variable), so that the shares
of the peak that a machine prints can be compared from run to run: one taken on a busy machine is a peak for no one.
"""

import json
import os
import platform
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from caslon.errors import StorageError
from caslon.folders import write_atomic
from caslon.train.devices import USABLE_SHARE, device_of
from caslon.train.precision import Compute, matmul_flops_per_second

FILE = Path("caslon") / "peaks.json"


@dataclass(frozen=True)
class Peak:
    """The fastest a device multiplies matrices, and where that figure comes from."""

    flops_per_second: float
    device: str
    precision: str
    origin: str  # "data sheet" or "measured"

    def describe(self) -> str:
        """Return what a share of the peak is a share of: `989 TFLOP/s (H200 bf16)`."""
        measured = ", measured" if self.origin == "measured" else ""
        return f"{self.flops_per_second / 1e12:.3g} TFLOP/s ({self.device} {self.precision}{measured})"


def peak_of(compute: Compute) -> Peak:
    """Return the peak rate of the device a run computes on."""
    if compute.device.type == "cuda" and (known := device_of(torch.cuda.get_device_name(compute.device))):
        return Peak(known.peak(compute.precision), known.name, compute.precision, "data sheet")
    device = machine_name(compute)
    kept = _kept()
    key = f"{device} | torch {torch.__version__} | {compute.precision}"
    measured = matmul_flops_per_second(compute)
    if measured > kept.get(key, 0.0):
        kept[key] = measured
        _keep(kept)
    short = torch.cuda.get_device_name(compute.device) if compute.device.type == "cuda" else "CPU"
    return Peak(kept[key], short, compute.precision, "measured")


def machine_name(compute: Compute) -> str:
    """Return what tells one machine's speed from another's: the processor and how many threads compute on it."""
    if compute.device.type == "cuda":
        return torch.cuda.get_device_name(compute.device)
    return f"{_processor()}, {torch.get_num_threads()} threads"


def memory_gb(device: torch.device) -> float:
    """Return the most memory this process has held so far, on its GPU or, on a CPU, in all, in GB (powers of ten)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def free_bytes(compute: Compute) -> int:
    """Return how much of a GPU's memory training may fill now."""
    free, _ = torch.cuda.mem_get_info(compute.device)
    return int(USABLE_SHARE * free)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping")
    first = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {name.strip(): value.strip() for name, value in first.items()}
    return " ".join(facts[name] for name in wanted if name in facts) or platform.processor() or platform.machine()


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / FILE


def _kept() -> dict[str, float]:
    file = _file()
    if not file.is_file():
        return {}
    with suppress(json.JSONDecodeError):  # damaged by hand: measure anew
        kept: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
        return kept
    return {}


def _keep(kept: dict[str, float]) -> None:
    with suppress(OSError, StorageError):  # a home that cannot be written: measure again next time
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomic(_file(), json.dumps(kept, indent=2) + "\n")
