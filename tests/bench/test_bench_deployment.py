"""What is known of a service comes from the service and its command, never from two places that differ."""

from pathlib import Path
from typing import Any

import pytest

from caslon.bench.deployment import Deployment, known, launched, read_deployment
from caslon.bench.hardware import described_hardware, this_machine
from caslon.bench.health import is_garbled
from caslon.bench.profiles import CONTRACT, profile_named
from caslon.bench.prompts import drawn_prompts
from caslon.bench.server_metrics import totals
from caslon.errors import UserError

TOLD: dict[str, Any] = {
    "served_model_name": "m",
    "model": "m",
    "engine": "vllm",
    "engine_version": "0.19.1",
    "vocab_size": 9,
}
LAUNCH = "vllm serve m --tensor-parallel-size 8 -pp=2 --dtype bfloat16 --quantization fp8 --enable-expert-parallel"


def test_a_command_line_says_how_the_model_is_spread() -> None:
    assert launched(LAUNCH) == {"tp": 8, "pp": 2, "dp": 1, "ep": True, "dtype": "bfloat16", "quantization": "fp8"}
    assert launched("vllm serve m") == {"tp": 1, "pp": 1, "dp": 1, "ep": False, "quantization": "none"}


@pytest.mark.promise(
    "bench", "metadata that the service contradicts is refused, and so are more GPUs than the hardware has"
)
def test_metadata_is_checked() -> None:
    cluster = described_hardware("h200-2x8")
    facts = known(TOLD, Deployment(launch=LAUNCH), cluster)
    assert (facts["gpus"], facts["dtype"], facts["hardware"]["gpu"]) == (16, "bfloat16", "NVIDIA H200")
    with pytest.raises(UserError, match=r"engine_version: the service says '0\.19\.1', its description '0\.18'"):
        known(TOLD, Deployment(engine_version="0.18"), cluster)
    with pytest.raises(UserError, match="started for 32 GPUs, the hardware '2 x 8 H200' has 16"):
        known(TOLD, Deployment(launch=f"{LAUNCH} -dp 2"), cluster)
    assert known(TOLD, Deployment(), cluster)["gpus"] is None  # nothing says how it is spread
    told = {**TOLD, "tp": 1, "pp": 1, "dp": 1, "ep": False, "device": "cpu"}
    assert known(told, Deployment(), this_machine())["gpus"] == 0


def test_descriptor_files(tmp_path: Path) -> None:
    path = tmp_path / "box.toml"
    path.write_text('name = "box"\nram_gib_per_node = 16\ngpus_per_node = 1\n')
    assert described_hardware(str(path))["gpus_per_node"] == 1
    path.write_text('name = "box"\nram_gib_per_node = 16\ngpu_count = 1\n')
    with pytest.raises(UserError, match="unknown key 'gpu_count'"):
        described_hardware(str(path))
    with pytest.raises(UserError, match="did you mean h200-2x8"):
        described_hardware("h200-2x9")
    assert this_machine()["ram_gib_per_node"] > 0
    path.write_text('launch = "vllm serve m"\ntp = 4\n')
    with pytest.raises(UserError, match="unknown key 'tp'"):
        read_deployment(path)


def test_a_name_is_a_load() -> None:
    assert profile_named("latency-1024x256-c1") == CONTRACT[0]
    assert not CONTRACT[0].scaled
    scaled = profile_named("serve-128x32-c4-n24-poisson2.5")
    assert (scaled.prompts, scaled.arrivals, scaled.request_rate, scaled.scaled) == (24, "poisson", 2.5, True)
    for wrong in ("fast-1x1-c1", "latency-0x1-c1", "serve-1024x256", "serve-1024x256-c16-n0"):
        with pytest.raises(UserError, match="is no profile"):
            profile_named(wrong)


def test_prompts_are_distinct_from_their_first_token_on() -> None:
    prompts = drawn_prompts(200, 64, 4096, seed=3)
    assert len({prompt[0] for prompt in prompts}) == 200
    assert all(len(prompt) == 64 and min(prompt) >= 512 and max(prompt) < 3584 for prompt in prompts)
    assert prompts == drawn_prompts(200, 64, 4096, seed=3) != drawn_prompts(200, 64, 4096, seed=4)
    few = drawn_prompts(50, 8, 16, seed=0)  # more prompts than ids: two ids tell them apart
    assert len({tuple(prompt[:2]) for prompt in few}) == 50
    with pytest.raises(UserError, match="cannot all begin differently"):
        drawn_prompts(50, 1, 16, seed=0)


def test_metrics_are_summed_over_labels() -> None:
    text = '# HELP x\nvllm:a_total{m="x",r="stop"} 2.0\nvllm:a_total{m="x",r="length"} 3\nvllm:b_bucket{le="1"} 4\ngo_info 1\n'
    assert totals(text) == {"vllm:a_total": 5.0}


def test_garbled_text() -> None:
    assert is_garbled("�" * 20)
    assert is_garbled("!" * 40)
    assert is_garbled("\x01\x02" * 10)
    assert not is_garbled("!")
    assert not is_garbled("the quick brown fox jumps over it")
