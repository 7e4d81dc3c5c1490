"""A nanoGPT-style checkpoint (`.pt`) into a model folder of the GPT-2 family.

The one place where a pickle is opened, and only in torch's weights-only mode, which builds tensors and plain values and runs no
code. Names lose the prefixes that torch.compile and DDP add, where they are present; linear layers are turned to lie input-first,
as in GPT-2's files; biases that were not trained become zeros. What the checkpoint does not say is asked for, never guessed.
Source of the layout: https://github.com/karpathy/nanoGPT (train.py, model.py).
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.model.weights import load_disk_tensors
from caslon.tokenizer.tokenizer import Tokenizer

PREFIXES = ("_orig_mod.", "module.")  # of torch.compile and of DistributedDataParallel
SHAPE_KEYS = {
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_embd": "hidden_size",
    "block_size": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
ACTIVATION = "gelu"  # nanoGPT's own, where the checkpoint names none
INPUT_FIRST = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
MASKS = (".attn.bias", ".attn.masked_bias")  # buffers of old versions


def import_checkpoint(
    checkpoint: Path, target: Path, *, tokenizer: Tokenizer | None = None, shape: Mapping[str, int] | None = None
) -> DecoderConfig:
    """Write a checkpoint as a model folder; return its shape. `shape` gives values that the checkpoint lacks.

    Without a tokenizer the folder holds none: it loads in transformers, and here once a tokenizer lies in it.
    """
    content = _opened(checkpoint)
    stored = _weights(content, checkpoint)
    arguments = {**_mapping(content.get("model_args")), **(shape or {})}
    config = _config(arguments, stored, checkpoint)
    if tokenizer is not None and config.vocab_size > tokenizer.vocab_size:
        config = DecoderConfig.from_json(config.to_json() | {"pad_vocab_to": config.vocab_size})
    decoder = Decoder(config)
    try:
        load_disk_tensors(decoder, _gpt2_tensors(stored, config))
    except UserError as error:
        raise UserError(
            error.what, where=str(checkpoint), fix="check that this is a nanoGPT-style checkpoint"
        ) from None
    sidecar = {"imported_from": checkpoint.name, "step": content.get("iter_num"), "objective": "lm", "parent": None}
    save_model_folder(target, decoder, tokenizer, sidecar=sidecar)
    return config


def _opened(checkpoint: Path) -> dict[str, Any]:
    if not checkpoint.is_file():
        raise UserError("there is no checkpoint here", where=str(checkpoint), fix="check the path")
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the file cannot be read without running what is in it: {reason}",
            where=str(checkpoint),
            fix="save it again with tensors, numbers and strings only",
        ) from None
    if not isinstance(content, dict):
        raise UserError("this is not a checkpoint: it holds no dictionary", where=str(checkpoint))
    return content


def _weights(content: Mapping[str, Any], checkpoint: Path) -> dict[str, Tensor]:
    """Return the state dict, below the key `model` or bare, with plain names."""
    state = _mapping(content.get("model")) or {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if not state:
        raise UserError("the checkpoint holds no weights: the key 'model' is missing", where=str(checkpoint))
    return {_plain_name(name): tensor for name, tensor in state.items()}


def _plain_name(name: str) -> str:
    while name.startswith(PREFIXES):
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
    return name


def _config(arguments: Mapping[str, Any], stored: Mapping[str, Tensor], checkpoint: Path) -> DecoderConfig:
    missing = [key for key in SHAPE_KEYS if arguments.get(key) is None]
    if missing:
        raise UserError(
            f"the checkpoint does not say its shape: model_args lacks {', '.join(missing)}",
            where=str(checkpoint),
            fix="give what is missing: " + " ".join(f"--shape {key}=NUMBER" for key in missing),
        )
    head, table = stored.get("lm_head.weight"), stored.get("transformer.wte.weight")
    sizes: dict[str, Any] = {ours: int(arguments[theirs]) for theirs, ours in SHAPE_KEYS.items()}
    return DecoderConfig(
        family="gpt2",
        **sizes,
        dropout=float(arguments.get("dropout") or 0.0),
        hidden_act=str(arguments.get("activation") or ACTIVATION),
        bias=any(name.endswith(".bias") and ".mlp." not in name and not name.endswith(MASKS) for name in stored),
        tie_word_embeddings=head is None or (table is not None and torch.equal(head, table)),
    )


def _gpt2_tensors(stored: Mapping[str, Tensor], config: DecoderConfig) -> dict[str, Tensor]:
    """Return the tensors as GPT-2's files hold them: input-first, with every bias."""
    tensors = {
        name: tensor.t().contiguous() if name.endswith(INPUT_FIRST) else tensor
        for name, tensor in stored.items()
        if not name.endswith(MASKS)
    }
    width, inner = config.hidden_size, config.intermediate_size
    biases = {"mlp.c_fc": inner, "mlp.c_proj": width}
    if config.bias:
        biases |= {"ln_1": width, "ln_2": width, "attn.c_attn": 3 * width, "attn.c_proj": width}
        tensors.setdefault("transformer.ln_f.bias", torch.zeros(width))
    for layer in range(config.num_hidden_layers):
        for part, size in biases.items():
            tensors.setdefault(f"transformer.h.{layer}.{part}.bias", torch.zeros(size))
    return tensors


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
