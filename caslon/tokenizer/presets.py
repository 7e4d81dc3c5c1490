"""Texts to tokenizers as others make them, for comparison only: they lose text, and say how much.

`bert`: word pieces after lower-casing and stripping accents, words over 100 characters unknown (Devlin et al., arXiv:1810.04805).
`sentencepiece`: unigrams over characters with byte fallback after NFKC and joined spaces (Kudo and Richardson, arXiv:1808.06226).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from caslon.errors import UserError
from caslon.tokenizer import special
from caslon.tokenizer.algorithms import NEVER_CHOSEN
from caslon.tokenizer.examine import HARD_TEXTS, random_texts
from caslon.tokenizer.texts import segments_of
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import TrainingSettings, library_threads, not_empty, tokenizer_config

PRESETS = ("bert", "sentencepiece")
LOSS_SEGMENTS = 2_000
LOSS_TEXTS = 100  # the first ones, from which the segments come


def train_preset(
    preset: str,
    texts: Iterable[str],
    *,
    vocab_size: int,
    min_frequency: int = 2,
    warn: Callable[[str], None] | None = None,
) -> Tokenizer:
    """Return a lossy tokenizer whose record says what it loses. `UserError` for an unknown preset or no text."""
    if preset not in PRESETS:
        raise UserError(f"there is no preset {preset!r}", fix=f"use one of {', '.join(PRESETS)}")
    if vocab_size < special.LEAST_VOCAB_SIZE:
        raise UserError(
            f"vocab_size = {vocab_size} is too small for special tokens and bytes",
            fix=f"ask for {special.LEAST_VOCAB_SIZE}",
        )
    some = not_empty(texts)
    kept = list(islice(some, LOSS_TEXTS))
    make = {"bert": _bert, "sentencepiece": _sentencepiece}[preset]
    with library_threads():
        library = make(chain(kept, some), vocab_size, min_frequency)
    settings = TrainingSettings(vocab_size=vocab_size, min_frequency=min_frequency)
    text = json.dumps(json.loads(library.to_str()), ensure_ascii=False, indent=1) + "\n"
    found = Tokenizer(text, tokenizer_config(settings))
    loss = measured_loss(found, kept)
    if warn:
        warn(
            f"{preset} is lossy: {loss['lost']:,} of {loss['texts']:,} texts do not come back; use it for comparison only"
        )
    record = {
        "format": 1,
        "algorithm": preset,
        "preset": preset,
        "lossy": True,
        "loss": loss,
        "reproducible": False,
        "pre_tokenizer": None,
        "vocab_size": found.vocab_size,
        "vocab_size_asked": vocab_size,
        "min_frequency": min_frequency,
        "tokenizers_version": tokenizers.__version__,
    }
    return Tokenizer(text, found.config, None, record)


def measured_loss(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, Any]:
    """Return how many segments of the texts, hard cases and random strings do not come back."""
    segments = list(islice(_segments(texts), LOSS_SEGMENTS))
    groups = {"segments": segments, "hard": list(HARD_TEXTS), "random": random_texts(0)}
    lost = {
        name: sum(tokenizer.decode(tokenizer.encode(text)) != text for text in group) for name, group in groups.items()
    }
    return {
        "texts": sum(map(len, groups.values())),
        "lost": sum(lost.values()),
        **{f"lost_{name}": count for name, count in lost.items()},
    }


def _segments(texts: Iterable[str]) -> Iterator[str]:
    return (segment for text in texts for segment in segments_of(text))


def _bert(texts: Iterable[str], vocab_size: int, min_frequency: int) -> tokenizers.Tokenizer:
    library = tokenizers.Tokenizer(models.WordPiece(unk_token=special.UNKNOWN))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=_special_tokens(),
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    return library


def _sentencepiece(texts: Iterable[str], vocab_size: int, min_frequency: int) -> tokenizers.Tokenizer:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(special.BYTE_COUNT)]
    library = tokenizers.Tokenizer(models.Unigram())
    library.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - len(bytes_),
        special_tokens=_special_tokens(),
        unk_token=special.UNKNOWN,
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    parsed = json.loads(library.to_str())
    model = parsed["model"]
    first = len(special.SPECIAL_TOKENS)
    never = [[entry, NEVER_CHOSEN] for entry in bytes_]  # reached by fallback, hardly by a text that spells one
    model["vocab"] = [*model["vocab"][:first], *never, *model["vocab"][first:]]
    model["byte_fallback"] = True
    return tokenizers.Tokenizer.from_str(json.dumps(parsed))


def _special_tokens() -> list[Any]:
    return [tokenizers.AddedToken(token, special=True, normalized=False) for token in special.SPECIAL_TOKENS]
