"""The memory that a process really grows by, against the plan. Slow: each shape in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from engine_cases import KERNELS, need_kernels

from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.tokenizer.alphabet import byte_tokenizer

MEASURE = """
import json, sys
from pathlib import Path
import torch
from caslon.engine.engine import Engine
from caslon.engine.planner import kv_block_bytes, step_bytes, weight_bytes
from caslon.engine.request import SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.model.folder import ModelFolder

def resident():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024

folder = Path(sys.argv[1])
torch.randn(512, 512) @ torch.randn(512, 512)  # what torch itself takes at its first product
config = ModelFolder.open(folder).config
before = resident()
settings = EngineSettings(kernels=sys.argv[2], kv_memory_gib=0.125, max_running=8, max_step_tokens=256)
engine = Engine.load(folder, settings)
blocks = engine.stats().blocks_total
engine.generate([[number % 250] * 250 for number in range(blocks * 16 // 256)], SamplingParams(max_tokens=2))
planned = weight_bytes(config, "auto", "float32") + blocks * kv_block_bytes(config, "float32", 16)
print(json.dumps({"planned": planned + step_bytes(config, "float32", 256, 8), "grown": resident() - before}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux to read a process's memory")
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("family", "width", "layers"), [("llama", 768, 8), ("gpt2", 512, 12), ("qwen3", 640, 8)])
@pytest.mark.promise("engine", "A process grows by what was planned for weights, cache and a step, within 10 %")
def test_growth_is_within_a_tenth_of_the_plan(
    family: str, width: int, layers: int, kernels: str, tmp_path: Path
) -> None:
    need_kernels(kernels)
    tokenizer = byte_tokenizer([])
    decoder = Decoder(
        DecoderConfig(
            family=family, vocab_size=tokenizer.vocab_size, hidden_size=width, num_hidden_layers=layers,
            num_attention_heads=width // 64, max_position_embeddings=256,
        )
    )  # fmt: skip
    decoder.initialise(1)
    save_model_folder(tmp_path, decoder, tokenizer, sidecar={})
    command = [sys.executable, "-c", MEASURE, str(tmp_path), kernels]
    found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert found["grown"] == pytest.approx(found["planned"], rel=0.1)
