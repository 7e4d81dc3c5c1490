import re

import pytest
import torch

from caslon.train.peak import Peak
from caslon.train.progress_line import evaluation_line, step_line
from caslon.train.speed import Speed, short_duration

LINE = re.compile(
    r"step \d+/\d+ \| loss \d+\.\d{4} \| lr \d\.\d\de[+-]\d\d \| gnorm \d+\.\d\d \| [\d,]+ tok/s \| "
    r"mfu \d+\.\d% of \S+ TFLOP/s \(\S+ \w+(, measured)?\) \| mem \d+\.\d GB \| eta (\d+[dhm]\d\d[hms]|\d+s)"
)


@pytest.mark.promise(
    "pretraining", "a line in the terminal says step, loss, rate, gradient norm, speed, memory and time left"
)
def test_the_line_has_its_form() -> None:
    speed = Speed(18_432, 676_159_488, Peak(989e12, "H200", "bf16", "data sheet"), torch.device("cpu"))
    speed.note(0.086, 0.0)
    line = step_line(1200, 60_000, 3.44119, 2.97e-4, 0.712, speed)
    assert LINE.fullmatch(line)
    assert line.startswith(
        "step 1200/60000 | loss 3.4412 | lr 2.97e-04 | gnorm 0.71 | 214,326 tok/s | mfu 14.7% of 989 TFLOP/s"
    )
    assert line.endswith("eta 1h24m")


def test_the_shown_speed_is_smoothed_from_the_sixth_step_on() -> None:
    speed = Speed(100, 0, None, torch.device("cpu"))
    for _ in range(5):
        values = speed.note(1.0, 0.1)
    assert values["train/tokens_per_s"] == 100
    assert values["train/data_ms"] == pytest.approx(100)
    assert "train/mfu" not in values
    assert speed.note(2.0, 0.0)["train/tokens_per_s"] == pytest.approx(100 / 1.1)
    assert speed.note(2.0, 0.0)["train/dt_ms"] == 2000


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0s"), (42, "42s"), (365, "6m05s"), (5040, "1h24m"), (273_600, "3d04h")]
)
def test_time_left(seconds: float, shown: str) -> None:
    assert short_duration(seconds) == shown


def test_an_evaluation_says_both_losses_and_how_many_tokens() -> None:
    values = {
        "eval/iter": 500.0, "eval/train_loss": 3.1, "eval/val_loss": 3.2, "eval/val_tokens": 51200.0, "eval/val_ppl": 24.53,
        "eval/val_bpb": 1.2,
    }  # fmt: skip
    assert evaluation_line(values, 1000) == (
        "eval 500/1000 | train loss 3.1000 | val loss 3.2000 on 51,200 tokens | ppl 24.53 | 1.2000 bits/byte"
    )
