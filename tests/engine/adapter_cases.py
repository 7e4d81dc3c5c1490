"""PEFT folders written by hand, and the same model with the addition merged into its weights."""

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from caslon.model.decoder import Decoder

GPT2_MODULES = {
    "self_attn.qkv": "attn.c_attn",
    "self_attn.o_proj": "attn.c_proj",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
}


def write_adapter(folder: Path, tensors: dict[str, Tensor], *, rank: int, alpha: float, **config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors"
    )
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def random_adapter(folder: Path, decoder: Decoder, *, rank: int = 4, seed: int = 0, strength: float = 0.5) -> Decoder:
    """Write an adapter for q_proj, v_proj (or the fused c_attn) and the feed-forward layers; return the merged decoder."""
    generator = torch.Generator().manual_seed(seed)
    merged = copy.deepcopy(decoder)
    is_gpt2 = decoder.config.family == "gpt2"
    modules = ("self_attn.qkv", "mlp.up_proj") if is_gpt2 else ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    if decoder.config.has_experts:
        modules = ("self_attn.q_proj", "self_attn.v_proj")
    tensors = {}
    with torch.no_grad():
        for number, layer in enumerate(merged.model.layers):
            for module in modules:
                parts = [f"self_attn.{kind}_proj" for kind in "qkv"] if module == "self_attn.qkv" else [module]
                weights = [layer.get_submodule(part).weight for part in parts]
                outputs = sum(weight.shape[0] for weight in weights)
                down = torch.randn(rank, weights[0].shape[1], generator=generator)
                up = torch.randn(outputs, rank, generator=generator) * strength / rank
                for weight, piece in zip(weights, up.chunk(len(weights)), strict=True):
                    weight.add_(2.0 * piece @ down)
                path = (
                    f"transformer.h.{number}.{GPT2_MODULES[module]}" if is_gpt2 else f"model.layers.{number}.{module}"
                )
                tensors |= {f"{path}.lora_A.weight": down, f"{path}.lora_B.weight": up}
    write_adapter(folder, tensors, rank=rank, alpha=2.0 * rank)
    return merged
