"""The state of a run, or an evaluation, to the one line that the terminal shows of it."""

from collections.abc import Mapping

from caslon.train.speed import Speed


def step_line(step: int, steps: int, loss: float, rate: float, norm: float, speed: Speed) -> str:
    """Return `step 1200/60000 | loss 3.4412 | lr 2.97e-04 | gnorm 0.71 | ...` with the speed and the time left."""
    parts = [f"step {step}/{steps}", f"loss {loss:.4f}", f"lr {rate:.2e}", f"gnorm {norm:.2f}"]
    return " | ".join([*parts, speed.describe(steps - step)])


def evaluation_line(values: Mapping[str, float], steps: int) -> str:
    """Return `eval 1200/60000 | train loss 3.3812 | val loss 3.4409 on 51,200 tokens | ...` of an evaluation's measures."""
    parts = [f"eval {values['eval/iter']:.0f}/{steps}"]
    if "eval/train_loss" in values:
        parts.append(f"train loss {values['eval/train_loss']:.4f}")
    if "eval/val_loss" in values:
        parts.append(f"val loss {values['eval/val_loss']:.4f} on {values['eval/val_tokens']:,.0f} tokens")
        parts.append(f"ppl {values['eval/val_ppl']:.4g}")
    if "eval/val_bpb" in values:
        parts.append(f"{values['eval/val_bpb']:.4f} bits/byte")
    return " | ".join(parts)
