"""Names of accelerators into what planning needs of them: peak rate and memory. Imports no torch.

Rates are those of the makers' data sheets for dense matrix products; float32 products run as TF32, at half the rate of bfloat16.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from caslon.errors import UserError
from caslon.settings import nearest

GIB = 1 << 30
USABLE_SHARE = 0.9  # of a device's memory: the rest goes to the driver, to kernels and to fragments
TF32_SHARE = 0.5  # of the bfloat16 rate


@dataclass(frozen=True)
class Device:
    """What a plan reckons with. `peak_flops_per_second` is that of bfloat16 products where the device has them."""

    name: str
    peak_flops_per_second: float
    memory_bytes: int

    @property
    def usable_bytes(self) -> int:
        """Memory that training may fill."""
        return int(USABLE_SHARE * self.memory_bytes)

    def peak(self, precision: str) -> float:
        """Return the peak rate of matrix products in FLOP per second."""
        return self.peak_flops_per_second * (TF32_SHARE if precision == "fp32" else 1.0)


KNOWN_DEVICES = {
    device.name: device
    for device in (
        Device("A30", 165e12, 24 * GIB),
        Device("A100", 312e12, 80 * GIB),
        Device("H100", 989e12, 80 * GIB),
        Device("H200", 989e12, 141 * 10**9),
    )
}


def device_named(name: str) -> Device:
    """Return a device of the table; `UserError` with the names that are known."""
    found = KNOWN_DEVICES.get(name.upper())
    if found is None:
        guess = nearest(name.upper(), KNOWN_DEVICES)
        hint = f"did you mean {guess}? " if guess else ""
        raise UserError(f"unknown device '{name}'", fix=f"{hint}known: this, {', '.join(KNOWN_DEVICES)}")
    return found


def device_of(full_name: str) -> Device | None:
    """Return the device of the table that a driver's name (`NVIDIA H100 80GB HBM3`) stands for, or None."""
    words = full_name.upper().replace("-", " ").split()
    return next((device for name, device in KNOWN_DEVICES.items() if name in words), None)


def free_memory_bytes() -> int:
    """Return how much of this machine's memory a new program may take (all of it, where the system does not say)."""
    info = Path("/proc/meminfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
