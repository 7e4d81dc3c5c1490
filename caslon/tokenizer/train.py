"""Texts to a byte-level BPE tokenizer (Sennrich et al., arXiv:1508.07909), learned by Hugging Face's `tokenizers`.

Layout of the ids: special tokens, the 256 bytes, then learned entries by rank. No normaliser, so every text comes back exactly.
Equal texts and settings give equal files, whatever the number of threads.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from caslon.errors import UserError
from caslon.tokenizer import special
from caslon.tokenizer.tokenizer import TEMPLATE_FILE, Tokenizer

ALGORITHMS = ("bpe",)
PRE_TOKENIZER = "gpt-2"  # the name GGUF runtimes know this pattern by
PARALLELISM = "TOKENIZERS_PARALLELISM"


def train_tokenizer(
    texts: Iterable[str],
    *,
    vocab_size: int,
    min_frequency: int = 2,
    warn: Callable[[str], None] | None = None,
    record: Mapping[str, Any] | None = None,
) -> Tokenizer:
    """Return a tokenizer of at most `vocab_size` entries, everything counted, learned from `texts` (read once, streamed).

    A pair must occur `min_frequency` times to be merged. When the texts cannot fill the vocabulary, `warn` is told and the
    tokenizer has its true, smaller size. `record` is added to caslon_tokenizer.json. `UserError` when there is no text or
    the vocabulary is too small for the bytes and the special tokens.
    """
    check_vocab_size(vocab_size)
    counted = _Counted(texts)
    learned = _learn(counted, vocab_size, min_frequency)
    if counted.characters == 0:
        raise UserError("there is no text to train a tokenizer on", fix="check the corpus: its train split is empty")
    size = learned.get_vocab_size(with_added_tokens=True)
    if warn and size < vocab_size:
        warn(f"the corpus fills {size:,} of the {vocab_size:,} entries asked for; the vocabulary has {size:,}")
    if warn and counted.special_spellings:
        warn(f"{counted.special_spellings:,} texts spell a special token; it is plain text there")
    return Tokenizer(
        tokenizer_json=_canonical(learned.to_str()),
        config=_config(),
        chat_template=default_chat_template(),
        record={
            "format": 1,
            "algorithm": "bpe",
            "pre_tokenizer": PRE_TOKENIZER,
            "min_frequency": min_frequency,
            "vocab_size": size,
            "vocab_size_asked": vocab_size,
            "tokenizers_version": tokenizers.__version__,
            **(record or {}),
        },
    )


def check_vocab_size(vocab_size: int) -> None:
    """Raise `UserError` naming the least size when a vocabulary cannot hold the special tokens and the bytes."""
    if vocab_size < special.LEAST_VOCAB_SIZE:
        raise UserError(
            f"vocab_size = {vocab_size} is too small for {len(special.SPECIAL_TOKENS)} special tokens "
            f"and {special.BYTE_COUNT} bytes",
            fix=f"set tokenizer.vocab_size to {special.LEAST_VOCAB_SIZE} or more",
        )


def default_chat_template() -> str:
    """Return caslon's chat template, the one that training and serving share."""
    return resources.files("caslon.tokenizer").joinpath(TEMPLATE_FILE).read_text(encoding="utf-8")


def _learn(texts: Iterable[str], vocab_size: int, min_frequency: int) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special.SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with _threads():
        tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class _Counted:
    """Passes texts on and counts their characters and the texts that spell a special token."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.characters = 0
        self.special_spellings = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.characters += len(text)
            if "<|" in text and any(token in text for token in special.SPECIAL_TOKENS):
                self.special_spellings += 1
            yield text


@contextmanager
def _threads() -> Iterator[None]:
    """Let the library use threads here and nowhere later, so that a fork after training is safe and prints no warning."""
    if PARALLELISM in os.environ:  # the user decided
        yield
        return
    os.environ[PARALLELISM] = "true"
    try:
        yield
    finally:
        os.environ[PARALLELISM] = "false"


def _canonical(tokenizer_json: str) -> str:
    return json.dumps(json.loads(tokenizer_json), ensure_ascii=False, indent=1) + "\n"


def _config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "bos_token": special.START_OF_TEXT,
        "eos_token": special.END_OF_TEXT,
        "pad_token": special.PAD,
        "unk_token": special.UNKNOWN,
        "mask_token": special.MASK,
    }
