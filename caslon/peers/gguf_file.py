"""A Qwen3 or Llama model folder to a GGUF file for a comparison: the same weights, and a vocabulary of numbers.

Written with the `gguf` package. No text is tokenised in a comparison, so each id stands there as its own number in brackets.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors import safe_open

from caslon.errors import UserError
from caslon.model.config import DecoderConfig

FORMATS = {"f32": "F32", "bf16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
TOP = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(folder: Path, config: DecoderConfig, file: Path, kind: str) -> None:
    """Write the model of a folder; `UserError` for a family that llama.cpp would need told otherwise."""
    if config.family not in ("qwen3", "llama") or kind not in FORMATS:
        raise UserError(f"no GGUF is written of family {config.family} in {kind}", fix=f"formats: {', '.join(FORMATS)}")
    writer = gguf.GGUFWriter(file, config.family)
    _describe(writer, config)
    for name, numbers in _tensors(folder, config):
        stored = getattr(gguf.GGMLQuantizationType, "F32" if numbers.ndim == 1 else FORMATS[kind])
        writer.add_tensor(name, gguf.quants.quantize(numbers, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: Any, config: DecoderConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"[{id}]" for id in range(config.vocab_size)])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_merges(["[ 0"])
    writer.add_eos_token_id(0)


def _tensors(folder: Path, config: DecoderConfig) -> Any:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - not a mapping
                yield _named(name, stored.get_tensor(name).float().numpy(), config)


def _named(name: str, numbers: "np.ndarray[Any, Any]", config: DecoderConfig) -> tuple[str, "np.ndarray[Any, Any]"]:
    if name in TOP:
        return f"{TOP[name]}.weight", numbers
    _, _, layer, part = name.removesuffix(".weight").split(".", 3)
    if config.family == "llama" and part in ("self_attn.q_proj", "self_attn.k_proj"):
        heads = config.num_attention_heads if part.endswith("q_proj") else config.num_key_value_heads
        # llama.cpp turns neighbouring channels of Llama's heads, Hugging Face those half a head apart
        halves = numbers.reshape(heads, 2, -1, numbers.shape[1])
        numbers = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(numbers.shape)
    return f"blk.{layer}.{LAYER[part]}.weight", numbers
