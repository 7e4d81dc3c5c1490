"""A list of bytes or characters to a tokenizer that was never trained: one id for each, and one that closes a text.

Ids are those that lessons use: a byte's id is its value, a character's its place in the sorted alphabet (as in nanoGPT); special
tokens follow. A vocabulary of characters spells every text of its alphabet exactly and refuses any other.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from caslon.tokenizer import special
from caslon.tokenizer.texts import characters_of
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import MODEL_MAX_LENGTH


def byte_tokenizer(
    names: Sequence[str] = (), sentinels: int = 0, *, model_max_length: int = MODEL_MAX_LENGTH
) -> Tokenizer:
    """Return the tokenizer of the 256 bytes: exact for every text."""
    symbols = sorted(special.byte_symbols().items(), key=lambda item: item[1])
    library = tokenizers.Tokenizer(models.BPE(vocab=dict(symbols), merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return _finished(library, "bytes", special.untrained_special_tokens(names, sentinels), model_max_length)


def character_tokenizer(
    texts: Iterable[str], names: Sequence[str] = (), sentinels: int = 0, *, model_max_length: int = MODEL_MAX_LENGTH
) -> Tokenizer:
    """Return the tokenizer of the characters that occur in `texts`; `UserError` when there are none."""
    characters = characters_of(texts)
    library = tokenizers.Tokenizer(
        models.WordLevel({special.in_symbols(one): id for id, one in enumerate(characters)}, unk_token=special.UNKNOWN)
    )
    one_by_one = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [one_by_one, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return _finished(library, "characters", special.untrained_special_tokens(names, sentinels), model_max_length)


def _finished(
    library: tokenizers.Tokenizer, algorithm: str, special_tokens: Sequence[str], model_max_length: int
) -> Tokenizer:
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special_tokens])
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "eos_token": special.END_OF_TEXT,
        **{role: token for role, token in special.OTHER_ROLES.items() if token in special_tokens},
        "model_max_length": model_max_length,
    }
    text = json.dumps(json.loads(library.to_str()), ensure_ascii=False, indent=1) + "\n"
    record = {
        "format": 1,
        "algorithm": algorithm,
        "pre_tokenizer": "gpt-2" if algorithm == "bytes" else None,
        "vocab_size": library.get_vocab_size(with_added_tokens=True),
        "special_tokens": len(special_tokens),
        "model_max_length": model_max_length,
        "reproducible": True,
        "portable": algorithm == "bytes",
        "lossy": False,
        "tokenizers_version": tokenizers.__version__,
    }
    return Tokenizer(tokenizer_json=text, config=config, record=record)
