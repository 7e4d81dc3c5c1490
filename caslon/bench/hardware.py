"""The machines under a service, from a descriptor file (TOML), or this machine as it is.

A result names its hardware by such a file, so that two results of one cluster say the same words.
"""

import os
import platform
import shutil
import subprocess
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field

from caslon.errors import UserError
from caslon.settings import Settings, checked, nearest


class Hardware(Settings):
    """A cluster of equal nodes."""

    name: str = Field(min_length=1, description="what people call it")
    nodes: int = Field(1, ge=1, description="machines")
    gpus_per_node: int = Field(0, ge=0, description="GPUs of one machine; 0 for a CPU alone")
    gpu: str = Field("", description="name of the GPU")
    gpu_memory_gb: float = Field(0, ge=0, description="memory of one GPU")
    cpus_per_node: int = Field(1, ge=1, description="CPU sockets of one machine, or cores where that is all it tells")
    cpu: str = Field("", description="name of the CPU")
    ram_gib_per_node: float = Field(gt=0, description="memory of one machine")
    fabric: str = Field("none", description="what connects the machines")

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return self.nodes * self.gpus_per_node


def described_hardware(name_or_path: str) -> dict[str, Any]:
    """Return a descriptor by the name of one that is shipped, or by its path; `UserError` where it is wrong."""
    shipped = {
        entry.name.removesuffix(".toml"): entry for entry in files("caslon.bench").joinpath("hardware").iterdir()
    }
    if name_or_path in shipped:
        text = shipped[name_or_path].read_text(encoding="utf-8")
    elif Path(name_or_path).is_file():
        text = Path(name_or_path).read_text(encoding="utf-8")
    else:
        guess = nearest(name_or_path, shipped)
        raise UserError(
            f"no hardware descriptor '{name_or_path}'",
            fix=f"did you mean {guess}?" if guess else f"give a file, or one of: {', '.join(sorted(shipped))}",
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not TOML: {error}", where=name_or_path) from None
    return checked(Hardware, **values).model_dump()


def this_machine() -> dict[str, Any]:
    """Return the descriptor of the machine this runs on, as it tells itself."""
    gpus = _gpus()
    gpu, memory = gpus[0] if gpus else ("", 0.0)
    cpu = _cpu_name()
    found = Hardware(
        name=f"{len(gpus)} x {gpu}" if gpus else f"{os.cpu_count()} cores of {cpu}",
        gpus_per_node=len(gpus),
        gpu=gpu,
        gpu_memory_gb=memory,
        cpus_per_node=os.cpu_count() or 1,
        cpu=cpu,
        ram_gib_per_node=round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
    )
    return found.model_dump()


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _gpus() -> list[tuple[str, float]]:
    """Return name and memory in GB of each GPU, by NVIDIA's own tool where it is installed."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    rows = [line.split(", ") for line in listed.stdout.splitlines() if ", " in line]
    return [(name, round(float(mebibytes) * 2**20 / 1e9, 1)) for name, mebibytes in rows]
