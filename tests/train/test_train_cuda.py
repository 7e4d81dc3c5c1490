"""What only a GPU can show: its kernels agree with the plain ones, compiled layers learn the same, a stopped run goes on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import PLAN, train

from caslon.model.attention import document_attention, document_mask, reference_attention
from caslon.train.batches import document_starts
from caslon.train.precision import Compute, choose_compute
from caslon.train.settings import DeviceSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is available")


@pytest.fixture
def gpu() -> Compute:
    return choose_compute(DeviceSettings(device="cuda"))


@pytest.mark.promise("pretraining", "on a GPU packed documents see only themselves, as on the CPU")
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_flash_attention_of_documents_equals_the_definition(kv_heads: int) -> None:
    generator = torch.Generator("cuda").manual_seed(1)
    ids = torch.tensor([[0] * 40 + [1] * 24, [5] * 64, [2] * 1 + [3] * 62 + [4]])
    shapes = [(3, heads, 64, 64) for heads in (4, kv_heads, kv_heads)]
    wide = [torch.randn(shape, device="cuda", generator=generator) for shape in shapes]
    half = [tensor.bfloat16().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for tensor in wide]
    fast = document_attention(ids.cuda(), document_starts(ids).cuda())(0, *half)
    slow_inputs = [tensor.detach().float().requires_grad_() for tensor in half]
    keys, values = (tensor.repeat_interleave(4 // kv_heads, dim=1) for tensor in slow_inputs[1:])
    slow = reference_attention(slow_inputs[0], keys, values, document_mask(ids.cuda()))
    torch.testing.assert_close(fast.float(), slow, atol=2e-2, rtol=2e-2)
    weights = torch.randn(slow.shape, device="cuda", generator=generator)
    (fast.float() * weights).sum().backward()
    (slow * weights).sum().backward()
    for left, right in zip(half, slow_inputs, strict=True):
        assert left.grad is not None and right.grad is not None
        torch.testing.assert_close(left.grad.float(), right.grad, atol=6e-2, rtol=6e-2)


@pytest.mark.promise("pretraining", "on a GPU compiled layers learn what plain ones learn")
def test_compiled_layers_learn_what_plain_ones_learn(tmp_path: Path, tokens_folder: Path, gpu: Compute) -> None:
    plain, compiled = (
        train(tmp_path / compilation, tokens_folder, compute=replace(gpu, compilation=compilation)).metrics
        for compilation in ("off", "on")
    )
    assert compiled["eval/val_loss"] == pytest.approx(plain["eval/val_loss"], rel=0.02)


def test_a_gpu_learns_what_a_cpu_learns(tmp_path: Path, tokens_folder: Path, gpu: Compute) -> None:
    there = train(tmp_path / "gpu", tokens_folder, plan=replace(PLAN, seed=8), compute=gpu).metrics
    here = train(tmp_path / "cpu", tokens_folder, plan=replace(PLAN, seed=8)).metrics
    assert there["eval/val_loss"] == pytest.approx(here["eval/val_loss"], rel=0.05)
