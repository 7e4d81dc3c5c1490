"""A trained model folder into one to give away: half the size in bf16, its vocabulary padded if wished, in shards when large.

Rows that pad a vocabulary are copies of the padding token's, which training pushes down and never up, so that a program that
knows nothing of them is as unlikely to sample them. Where the tokenizer has no padding token of its own, they are zero.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import ModelFolder, save_model_folder

SaveDtype = Literal["fp32", "bf16"]
DTYPES: dict[SaveDtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


def release(
    source: Path,
    target: Path,
    *,
    save_dtype: SaveDtype = "bf16",
    pad_vocab_to: int | None = None,
    shard_bytes: int | None = None,
) -> DecoderConfig:
    """Write a model folder anew in a number format and with a padded vocabulary; return its shape.

    The sidecar names the source's digest as the parent. `UserError` when the source is the target, or has more entries.
    """
    if source.resolve() == target.resolve():
        raise UserError("the folder to write is the one to read", where=str(target), fix="choose another folder")
    folder = ModelFolder.open(source)
    decoder, tokenizer = folder.load(), folder.tokenizer()
    if pad_vocab_to is not None:
        decoder = padded(
            decoder, pad_vocab_to, like=None if tokenizer.pad_id in tokenizer.stop_ids else tokenizer.pad_id
        )
    sidecar = {**folder.sidecar(), "parent": folder.digest(), "save_dtype": save_dtype}
    save_model_folder(target, decoder, tokenizer, sidecar=sidecar, dtype=DTYPES[save_dtype], shard_bytes=shard_bytes)
    return decoder.config


@torch.no_grad()
def padded(decoder: Decoder, vocab_size: int, *, like: int | None) -> Decoder:
    """Return the decoder with a vocabulary of `vocab_size` entries, the new rows like that of an id (None: zero)."""
    config = decoder.config
    if vocab_size < config.vocab_size:
        raise UserError(
            f"pad_vocab_to = {vocab_size} is less than the model's {config.vocab_size} entries",
            fix=f"use {config.vocab_size} or more",
        )
    wider = Decoder(replace(config, vocab_size=vocab_size, extra={**config.extra, "pad_vocab_to": vocab_size}))
    state = dict(decoder.state_dict())
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in state:
            row = torch.zeros_like(state[name][:1]) if like is None else state[name][like, None]
            state[name] = torch.cat((state[name], row.expand(vocab_size - config.vocab_size, -1)))
    wider.load_state_dict(state, assign=True)
    return wider.eval()
