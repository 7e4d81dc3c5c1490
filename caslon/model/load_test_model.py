"""Makes a small model folder with random weights, for load tests: it computes as a real one does, and its text can be read.

A Llama of 4 layers, 256 wide, or the shape of a preset, with room for the longest load of the contract. Only entries that are
readable words can be chosen: the output rows of all others are zero, which the best of thousands of random scores is always
above.
"""

from pathlib import Path
from typing import Any, Literal

from caslon.model.config import DecoderConfig
from caslon.model.folder import save_model_folder

VOCAB_SIZE = 4096
POSITIONS = 8704  # 8,192 in, 256 out, and as much again to spare


def write_load_test_model(
    folder: Path, seed: int = 1, *, preset: str | None = None, dtype: Literal["float32", "bfloat16"] = "float32"
) -> Path:
    """Write the folder and return it. A `preset` names another shape, whose vocabulary it gets too."""
    import torch

    from caslon.corpus.collect.library import library_files
    from caslon.model.decoder import Decoder
    from caslon.tokenizer.train import train_tokenizer

    vocab_size = DecoderConfig.preset(preset).vocab_size if preset else VOCAB_SIZE
    files = [path for path, _ in library_files()][: vocab_size // 20]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in files]
    tokenizer = train_tokenizer(texts, vocab_size=vocab_size)
    config = _shape(preset, tokenizer.vocab_size)
    decoder = Decoder(config)
    decoder.initialise(seed)
    readable = [_is_readable(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)]
    assert decoder.lm_head is not None
    with torch.no_grad():
        decoder.lm_head.weight[~torch.tensor(readable)] = 0.0
    sidecar = {"made_for": "load tests; the weights are random"}
    save_model_folder(folder, decoder, tokenizer, sidecar=sidecar, dtype=getattr(torch, dtype))
    return folder


def _shape(preset: str | None, vocab_size: int) -> DecoderConfig:
    changes: dict[str, Any] = {
        "vocab_size": vocab_size, "max_position_embeddings": POSITIONS, "tie_word_embeddings": False,
    }  # fmt: skip
    if preset is not None:
        return DecoderConfig.preset(preset, **changes)
    return DecoderConfig(family="llama", hidden_size=256, num_hidden_layers=4, num_attention_heads=4, **changes)


def _is_readable(token: bytes) -> bool:
    text = token.strip()
    return len(text) > 1 and text.isalpha() and text.isascii()
