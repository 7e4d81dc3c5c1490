"""Which device trains and in which number format, with the reason, and how fast that device multiplies matrices.

bf16 is chosen only where the hardware computes it: on a CPU without AVX512-BF16 or AMX it is emulated, about 200 times slower.
fp16 is never chosen, only obeyed: its gradients need a scale (`loss_scale.py`). Weights stay in float32 in every format.
"""

import ctypes
import os
import platform
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from caslon import __version__
from caslon.errors import UserError
from caslon.train.gpus import Gpu, GpuChoice, choose_gpus, visible_gpus
from caslon.train.settings import Compilation, DeviceSettings

CPU_BF16_FLAGS = ("avx512_bf16", "amx_bf16")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FIRST_BF16_CAPABILITY = (8, 0)
CUBLAS_WORKSPACE = ":4096:8"  # what NVIDIA asks for where matrix products are to repeat to the bit
# mallopt's parameters and the highest values it takes (glibc, malloc.h)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_TRIM_BYTES, LARGEST_MMAP_BYTES = 2**31 - 1, 32 << 20
PEAK_SIZE = 1536  # large enough for full speed, 45 ms a product on two cores
PEAK_ROUNDS = 4
SHORT_RUN_STEPS = 200


@dataclass(frozen=True)
class Compute:
    """Where and how to compute. `reason` says why this device and precision."""

    device: torch.device
    precision: Literal["fp32", "bf16", "fp16"]
    reason: str
    compilation: Compilation = "auto"

    def compiles(self, steps: int) -> bool:
        """Return whether a run of so many steps compiles its layers: half a minute of it pays on a GPU in longer runs."""
        wanted = self.device.type == "cuda" and steps > SHORT_RUN_STEPS
        return wanted if self.compilation == "auto" else self.compilation == "on"

    @property
    def product_dtype(self) -> torch.dtype:
        """The number format of matrix products."""
        return DTYPES[self.precision]

    @property
    def scales_loss(self) -> bool:
        """Whether gradients are too small for the format unless the loss is multiplied first."""
        return self.precision == "fp16"

    def autocast(self) -> AbstractContextManager[object]:
        """Return a context in which matrix products run in the chosen precision; weights stay float32."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.product_dtype)

    def describe(self) -> str:
        """Return a line on device and precision, and one on versions, for the user."""
        return f"training on {self._where()} in {self.precision}: {self.reason}\n{versions()}"

    def _where(self) -> str:
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            index = self.device.index or 0
            gpu = Gpu(index, torch.cuda.get_device_name(index), free, total, torch.cuda.get_device_capability(index))
            return gpu.describe()
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def versions() -> str:
    """Return the versions that decide what is computed, in one line."""
    cuda = f", CUDA {torch.version.cuda}" if torch.cuda.is_available() else ""
    return f"caslon {__version__}, Python {platform.python_version()}, torch {torch.__version__}{cuda}"


def choose_compute(chosen: DeviceSettings, *, rank: int = 0) -> Compute:
    """Return the device and precision to use and set this process up for them; `rank` is its number on this machine.

    `UserError` when what was asked for by name is not there and may not be replaced.
    """
    return _set_up(choose(chosen, visible_gpus() if chosen.device != "cpu" else (), rank=rank), chosen)


def choose(chosen: DeviceSettings, gpus: Sequence[Gpu], *, rank: int = 0) -> Compute:
    """Return what `choose_compute` does on a machine with these GPUs, without setting anything up."""
    choice = choose_gpus(gpus, max_gpus=chosen.max_gpus, min_free_gb=chosen.min_gpu_memory_gb)
    gpu, why_here = _device(chosen, choice, rank)
    precision, why = _precision(chosen, gpu)
    device = torch.device("cpu") if gpu is None else torch.device("cuda", gpu.index)
    return Compute(device, precision, "; ".join(filter(None, (why_here, why))), chosen.compilation)


def _set_up(compute: Compute, chosen: DeviceSettings) -> Compute:
    """Set threads, memory, TF32 and determinism of this process; return `compute` with what was done in its reason."""
    notes = [compute.reason]
    if chosen.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
        notes.append("deterministic")
    torch.use_deterministic_algorithms(chosen.deterministic)
    if compute.device.type == "cpu":
        torch.set_num_threads(chosen.threads or available_cores())
        _keep_freed_memory()
    else:
        torch.cuda.set_device(compute.device)
        torch.cuda.set_per_process_memory_fraction(chosen.gpu_memory_fraction, compute.device)
        torch.set_float32_matmul_precision("high")
        notes += ["TF32 on for float32 products", f"at most {chosen.gpu_memory_fraction:.0%} of its memory"]
    return replace(compute, reason="; ".join(notes))


def _device(chosen: DeviceSettings, choice: GpuChoice, rank: int) -> tuple[Gpu | None, str]:
    """Return the GPU this process computes on (None: the CPU) and why, where that is worth saying."""
    if chosen.device == "cpu":
        return None, ""
    if rank < len(choice.used):
        return choice.used[rank], ""
    why = "; ".join(choice.left_out) or "no CUDA device is available"
    if choice.used:
        raise UserError(f"process {rank} has no GPU of its own: {why}", fix=f"start {len(choice.used)} processes")
    if chosen.device == "cuda" and not chosen.fallback_to_cpu:
        raise UserError(
            f"device = 'cuda', but {why}", fix="use device = 'auto' or 'cpu', or allow the CPU with --allow-fallback"
        )
    return None, f"fallen back to the CPU: {why}" if chosen.device == "cuda" or choice.left_out else ""


def _precision(chosen: DeviceSettings, gpu: Gpu | None) -> tuple[Literal["fp32", "bf16", "fp16"], str]:
    if chosen.precision in ("fp32", "fp16"):
        return chosen.precision, "as set"
    has_bf16, reason = _native_bf16(gpu)
    if has_bf16:
        return "bf16", reason
    if chosen.precision == "bf16" and not chosen.fallback_to_fp32:
        raise UserError(
            f"precision = 'bf16', but {reason}",
            fix="use precision = 'auto' or 'fp32', or allow fp32 with --allow-fallback",
        )
    return "fp32", f"fallen back to fp32: {reason}" if chosen.precision == "bf16" else reason


def is_nondeterministic(error: BaseException) -> bool:
    """Return whether an error is torch's refusal of an operation that does not repeat to the bit; it names the operation."""
    return "deterministic" in str(error) and torch.are_deterministic_algorithms_enabled()


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


def _native_bf16(gpu: Gpu | None) -> tuple[bool, str]:
    if gpu is not None:
        has, (major, minor) = gpu.capability >= FIRST_BF16_CAPABILITY, gpu.capability
        return has, f"CUDA capability {major}.{minor} {'computes' if has else 'does not compute'} bf16"
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
