"""Makes a small model folder with random weights, for load tests: it computes as a real one does, and its text can be read.

A Llama of 4 layers, 256 wide, with room for the longest load of the contract. Only entries that are readable words can be
chosen: the output rows of all others are zero, which the best of thousands of random scores is always above.
"""

from pathlib import Path

from caslon.model.config import DecoderConfig
from caslon.model.folder import save_model_folder

VOCAB_SIZE = 4096
POSITIONS = 8704  # 8,192 in, 256 out, and as much again to spare


def write_load_test_model(folder: Path, seed: int = 1) -> Path:
    """Write the folder and return it."""
    import torch

    from caslon.corpus.collect.library import library_folder
    from caslon.model.decoder import Decoder
    from caslon.tokenizer.train import train_tokenizer

    files = sorted(library_folder().glob("*.py"))[:60]
    tokenizer = train_tokenizer([path.read_text(encoding="utf-8") for path in files], vocab_size=VOCAB_SIZE)
    config = DecoderConfig(
        family="llama",
        vocab_size=tokenizer.vocab_size,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
    )
    decoder = Decoder(config)
    decoder.initialise(seed)
    readable = [_is_readable(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)]
    assert decoder.lm_head is not None
    with torch.no_grad():
        decoder.lm_head.weight[~torch.tensor(readable)] = 0.0
    save_model_folder(folder, decoder, tokenizer, sidecar={"made_for": "load tests; the weights are random"})
    return folder


def _is_readable(token: bytes) -> bool:
    text = token.strip()
    return len(text) > 1 and text.isalpha() and text.isascii()
