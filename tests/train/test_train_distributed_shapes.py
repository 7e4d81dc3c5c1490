"""Models too large to build here, cut for several processes as shapes without memory."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.testing._internal.distributed.fake_pg import FakeStore

from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.size import parameter_counts
from caslon.train.distributed import ALONE, idle_gpus_note
from caslon.train.parts import rows_of_part
from caslon.train.precision import Compute
from caslon.train.sharded import ShardedProcesses, cut

EIGHT_BILLION = DecoderConfig.from_depth(
    32,
    family="llama",
    vocab_size=128_256,
    context=8192,
    hidden_size=4096,
    num_attention_heads=32,
    num_key_value_heads=8,
    intermediate_size=14_336,
    tie_word_embeddings=False,
)


@pytest.mark.promise("pretraining", "a model of 8 billion parameters is cut into equal parts, gathered layer by layer")
def test_eight_billion_parameters_are_cut_for_eight_processes() -> None:
    dist.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    try:
        with torch.device("meta"):
            decoder = Decoder(EIGHT_BILLION)
        decoder.checkpoint_every = 1
        cut(decoder, init_device_mesh("cpu", (8,)), torch.bfloat16)
        several = ShardedProcesses(0, 8)
        parts = {name: several.own_part(parameter) for name, parameter in decoder.named_parameters()}
        assert (
            sum(isinstance(module, FSDPModule) for module in decoder.modules()) == 33
        )  # each layer, and what is around
        own, whole = sum(part.numel() for part in parts.values()), parameter_counts(EIGHT_BILLION).trained
        assert whole == 8_030_261_248
        assert own == whole / 8
        for name, parameter in decoder.named_parameters():
            rows = rows_of_part(parameter.shape[0], 0, 8)
            assert parts[name].shape[0] == rows.stop - rows.start, name
            assert parameter.dtype == torch.float32, name
    finally:
        dist.destroy_process_group()


@pytest.mark.promise(
    "pretraining", "a plain start on a machine of several GPUs says so, with the line that uses them all"
)
def test_idle_gpus_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr("sys.argv", ["caslon", "run", "a recipe.toml"])
    gpu, cpu = (Compute(torch.device(kind), "bf16", "test") for kind in ("cuda", "cpu"))
    note = idle_gpus_note(ALONE, gpu, 0)
    assert note is not None
    assert note.startswith("this machine has 8 GPUs and one of them is used; for all: ")
    assert note.endswith("torchrun --nproc_per_node=8 -m caslon run 'a recipe.toml'")
    assert idle_gpus_note(ALONE, gpu, 1) is None
    assert idle_gpus_note(ALONE, cpu, 0) is None
    assert idle_gpus_note(ShardedProcesses(0, 8), gpu, 0) is None
