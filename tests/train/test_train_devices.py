"""Which device trains, tried on lists of GPUs that no machine here has."""

import pytest
import torch

from caslon.errors import UserError
from caslon.train import precision
from caslon.train.gpus import Gpu, choose_gpus, visible_gpus
from caslon.train.precision import choose, choose_compute
from caslon.train.settings import DeviceSettings

GB = 1_000_000_000
BIG = Gpu(1, "NVIDIA H100", 80 * GB, 85 * GB, (9, 0))
BUSY = Gpu(0, "NVIDIA H100", 3 * GB, 85 * GB, (9, 0))
OLD = Gpu(2, "Tesla T4", 15 * GB, 16 * GB, (7, 5))


def chosen(**changes: object) -> DeviceSettings:
    return DeviceSettings(**changes)  # type: ignore[arg-type]


@pytest.mark.promise("pretraining", "every key of device choice has an effect")
def test_auto_takes_the_first_gpu_with_enough_free_memory() -> None:
    assert choose(chosen(), [BUSY, BIG, OLD]).device == torch.device("cuda", 1)
    assert choose(chosen(min_gpu_memory_gb=2), [BUSY, BIG, OLD]).device == torch.device("cuda", 0)


def test_max_gpus_limits_how_many_processes_get_one() -> None:
    assert [gpu.index for gpu in choose_gpus([BUSY, BIG, OLD], max_gpus=0, min_free_gb=8).used] == [1, 2]
    choice = choose_gpus([BUSY, BIG, OLD], max_gpus=1, min_free_gb=8)
    assert [gpu.index for gpu in choice.used] == [1]
    assert "min_gpu_memory_gb = 8" in choice.left_out[0]
    assert "Tesla T4 (cuda:2), 15.0 of 16.0 GB free: beyond max_gpus = 1" in choice.left_out
    assert choose(chosen(), [BIG, OLD], rank=1).device == torch.device("cuda", 2)
    with pytest.raises(UserError, match="process 1 has no GPU of its own"):
        choose(chosen(max_gpus=1), [BIG, OLD], rank=1)


def test_the_cpu_is_taken_when_asked_for_or_when_no_gpu_will_do() -> None:
    assert choose(chosen(device="cpu"), [BIG]).device.type == "cpu"
    assert choose(chosen(), []).device.type == "cpu"
    compute = choose(chosen(), [BUSY])
    assert compute.device.type == "cpu"
    assert "3.0 of 85.0 GB free" in compute.reason


@pytest.mark.promise("pretraining", "a device or precision that is not there is refused unless falling back is allowed")
def test_cuda_asked_for_but_absent() -> None:
    with pytest.raises(UserError, match="no CUDA device is available") as raised:
        choose(chosen(device="cuda"), [])
    assert raised.value.fix is not None and "--allow-fallback" in raised.value.fix
    with pytest.raises(UserError, match="min_gpu_memory_gb = 8"):
        choose(chosen(device="cuda"), [BUSY])
    compute = choose(chosen(device="cuda", fallback_to_cpu=True), [])
    assert (compute.device.type, "fallen back to the CPU" in compute.reason) == ("cpu", True)


def test_bf16_asked_for_without_support() -> None:
    with pytest.raises(UserError, match=r"CUDA capability 7\.5 does not compute bf16"):
        choose(chosen(precision="bf16"), [OLD])
    compute = choose(chosen(precision="bf16", fallback_to_fp32=True), [OLD])
    assert (compute.precision, "fallen back to fp32" in compute.reason) == ("fp32", True)


def test_auto_is_bf16_only_where_it_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(chosen(), [BIG]).precision == "bf16"
    assert choose(chosen(), [OLD]).precision == "fp32"
    for flags, expected in ((frozenset({"amx_bf16"}), "bf16"), (frozenset({"avx2"}), "fp32")):
        monkeypatch.setattr(precision, "_cpu_flags", lambda flags=flags: flags)
        assert choose(chosen(device="cpu"), []).precision == expected


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_fp32_and_fp16_are_obeyed(name: str) -> None:
    compute = choose(chosen(precision=name), [BIG])
    assert compute.precision == name
    assert compute.scales_loss == (name == "fp16")


def test_threads_and_determinism_are_set_for_the_process() -> None:
    try:
        compute = choose_compute(chosen(device="cpu", threads=1, deterministic=True))
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        assert "deterministic" in compute.reason
    finally:
        choose_compute(chosen(device="cpu", threads=1))
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_report_names_device_precision_reason_and_versions() -> None:
    text = choose_compute(chosen(device="cpu", precision="fp32", threads=1)).describe()
    assert text.startswith("training on CPU, 1 thread in fp32: as set\n")
    assert f"torch {torch.__version__}" in text


def test_a_gpu_is_set_up_and_reported() -> None:
    if not visible_gpus():
        pytest.skip("no CUDA device")
    compute = choose_compute(chosen(min_gpu_memory_gb=1, gpu_memory_fraction=0.5))
    assert "GB free" in compute.describe()
    assert "TF32 on" in compute.reason
    assert "at most 50%" in compute.reason
