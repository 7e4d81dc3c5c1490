"""The duration of steps to the speed that is shown: smoothed, and as a share of what the device could do."""

import torch

from caslon.train.peak import Peak, memory_gb

SMOOTHING = 0.9  # from the sixth step on; the first ones warm up
FIRST_SMOOTHED_STEP = 6


class Speed:
    """The speed of one run; evaluation, saving and compilation are not part of a step's duration."""

    def __init__(
        self,
        tokens_per_step: int,
        flops_per_token: int,
        peak: Peak | None,
        device: torch.device,
        devices: int = 1,
    ) -> None:
        self.tokens_per_step, self.flops_per_token, self.peak, self.device = (
            tokens_per_step,
            flops_per_token,
            peak,
            device,
        )
        self.devices = devices  # of that peak, at work together
        self.step_seconds = 0.0  # smoothed
        self._steps = 0

    def note(self, seconds: float, waited_seconds: float) -> dict[str, float]:
        """Take in the duration of a step, of which so much was waiting for its batch; return the values to log."""
        self._steps += 1
        smoothed = self._steps >= FIRST_SMOOTHED_STEP
        self.step_seconds = SMOOTHING * self.step_seconds + (1 - SMOOTHING) * seconds if smoothed else seconds
        values = {
            "train/dt_ms": seconds * 1e3,
            "train/data_ms": waited_seconds * 1e3,
            "train/tokens_per_s": self.tokens_per_second,
            "train/mem_gb": memory_gb(self.device),
        }
        return values if self.peak_share is None else {**values, "train/mfu": self.peak_share}

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained per second; 0 before the first step."""
        return self.tokens_per_step / self.step_seconds if self.step_seconds else 0.0

    @property
    def peak_share(self) -> float | None:
        """Which share of the device's peak training uses; None where the peak is not known."""
        if self.peak is None:
            return None
        return self.tokens_per_second * self.flops_per_token / (self.devices * self.peak.flops_per_second)

    def describe(self, steps_left: int) -> str:
        """Return `214,300 tok/s | mfu 14.7% of 989 TFLOP/s (H200 bf16) | mem 18.2 GB | eta 1h24m`."""
        parts = [f"{self.tokens_per_second:,.0f} tok/s"]
        if self.peak is not None:
            times = f"{self.devices} x " if self.devices > 1 else ""
            parts.append(f"mfu {self.peak_share:.1%} of {times}{self.peak.describe()}")
        parts += [f"mem {memory_gb(self.device):.1f} GB", f"eta {short_duration(steps_left * self.step_seconds)}"]
        return " | ".join(parts)


def short_duration(seconds: float) -> str:
    """Return seconds as a clock would: `42s`, `6m05s`, `1h24m`, `3d04h`."""
    whole = round(seconds)
    for unit, size, below, below_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // below_size:02d}{below}"
    return f"{whole}s"
