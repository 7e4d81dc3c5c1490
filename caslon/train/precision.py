"""Which device trains and in which number format, with the reason, and how fast that device multiplies matrices.

bf16 is chosen only where the hardware computes it: on a CPU without AVX512-BF16 or AMX it is emulated, about 200 times slower.
"""

import ctypes
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from caslon.errors import UserError
from caslon.train.settings import Precision

CPU_BF16_FLAGS = ("avx512_bf16", "amx_bf16")
# mallopt's parameters and the highest values it takes (glibc, malloc.h)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_TRIM_BYTES, LARGEST_MMAP_BYTES = 2**31 - 1, 32 << 20
PEAK_SIZE = 1536  # large enough for full speed, 45 ms a product on two cores
PEAK_ROUNDS = 4


@dataclass(frozen=True)
class Compute:
    """Where and how to compute. `reason` says why this precision."""

    device: torch.device
    precision: Literal["fp32", "bf16"]
    reason: str

    @property
    def product_dtype(self) -> torch.dtype:
        """The number format of matrix products."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which matrix products run in the chosen precision; weights stay float32."""
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=self.product_dtype)
        return nullcontext()

    def describe(self) -> str:
        """Return one line for the user."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        threads = f", {torch.get_num_threads()} threads" if self.device.type == "cpu" else ""
        return f"training on {name}{threads} in {self.precision}: {self.reason}"


def choose_compute(device: str, precision: Precision, threads: int) -> Compute:
    """Return the device and precision to use; `UserError` when what was asked for by name is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device = 'cuda', but no CUDA device is available", fix="use device = 'auto' or 'cpu'")
    kind = "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"
    if kind == "cpu":
        torch.set_num_threads(threads or available_cores())
        _keep_freed_memory()
    has_bf16, reason = _native_bf16(kind)
    if precision == "bf16" and not has_bf16:
        raise UserError(f"precision = 'bf16', but {reason}", fix="use precision = 'auto' or 'fp32'")
    if precision == "fp32":
        return Compute(torch.device(kind), "fp32", "as set")
    return Compute(torch.device(kind), "bf16" if has_bf16 else "fp32", reason)


def _keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step, where it is glibc.

    Otherwise it returns the memory of every large tensor, and the system clears it page by page when it is asked for again:
    12,000 pages a step, 8 to 10 % of the time at width 256 in bf16.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_BYTES)
        mallopt(M_TRIM_THRESHOLD, LARGEST_TRIM_BYTES)


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _native_bf16(kind: str) -> tuple[bool, str]:
    if kind == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return major >= 8, f"CUDA capability {major}.{minor} {'computes' if major >= 8 else 'does not compute'} bf16"
    found = [flag for flag in CPU_BF16_FLAGS if flag in _cpu_flags()]
    if found:
        return True, f"the CPU has {' and '.join(found)}"
    return False, "the CPU has neither AVX512-BF16 nor AMX, where bf16 is emulated and slow"


def _cpu_flags() -> frozenset[str]:
    """Return the CPU's feature flags as Linux names them; none where they cannot be read."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return frozenset()
    for line in info.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def matmul_flops_per_second(compute: Compute) -> float:
    """Return the measured rate of large matrix products: the best of a few rounds, in about a third of a second."""
    generator = torch.Generator(compute.device).manual_seed(0)
    left = torch.randn(PEAK_SIZE, PEAK_SIZE, device=compute.device, generator=generator).to(compute.product_dtype)
    best = float("inf")
    for _ in range(PEAK_ROUNDS):
        began = time.perf_counter()
        float((left @ left)[0, 0])  # reading one value waits for the device
        best = min(best, time.perf_counter() - began)
    return float(2 * PEAK_SIZE**3 / best)
