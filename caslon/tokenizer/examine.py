"""A tokenizer put to the test: is it exact, and how well does it fit text it was not trained on?

Round trip: `decode(encode(text)) == text` for held-out text, random Unicode and hand-made hard cases. Fit: tokens per character,
bytes per token, tokens per word (fertility), how much of the vocabulary is used.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from caslon.tokenizer import special
from caslon.tokenizer.bulk import BulkEncoder
from caslon.tokenizer.tokenizer import Tokenizer

RANDOM_TEXTS = 2_000
HELD_OUT_CHARACTERS = 5_000_000  # enough for four digits of tokens per character
SAMPLE_CHARACTERS = 600
HARD_TEXTS = (
    # white space and control characters
    "", " ", "  two  spaces  ", "\ttabs\t\t", "line\r\nline\r\n", "\n\n\n", "nul\x00byte", "\ufeffbyte order mark",
    "\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u3000", " " * 5_000,
    # one character in two spellings, joined emoji, old print, scripts, the ends of Unicode
    "caf\u00e9", "cafe\u0301", "\u212bngstr\u00f6m A\u030a",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f4\u200d\u2620\ufe0f",
    "Cheap\u017fide, Con\ufb01dence, \ufb02eet, \ufb05", "\u00a35 3s. 6d., \u00bd, \u2014, \u2018quoted\u2019",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627", "\u6f22\u5b57\u304b\u306a", "\ufffd\ufffe\uffff\U0010ffff",
    # words, numbers, marks of other tokenizers
    "I'll you've WE'VE 'tis", "1666 1834 10l. 5s. 6d. 3,141.59 007", "##word", "\u2581low line", "a" * 5_000,
    # special spellings, whole, half and joined
    *special.SPECIAL_TOKENS, "before<|endoftext|>after", "<|end|><|assistant|>", "<|endof", "<| end |>",
)  # fmt: skip


@dataclass(frozen=True)
class Failure:
    """A text that did not come back as it was."""

    text: str
    decoded: str
    position: int  # first character that differs


@dataclass(frozen=True)
class Fit:
    """How well a tokenizer fits a text."""

    texts: int
    characters: int
    text_bytes: int
    words: int
    tokens: int
    used_entries: int
    vocab_size: int

    @property
    def tokens_per_character(self) -> float:
        """Tokens for one character; less is better."""
        return self.tokens / max(self.characters, 1)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes one token stands for; more is better."""
        return self.text_bytes / max(self.tokens, 1)

    @property
    def tokens_per_word(self) -> float:
        """Tokens for one white-space separated word (fertility)."""
        return self.tokens / max(self.words, 1)

    @property
    def used_share(self) -> float:
        """The share of the vocabulary that occurs in the text."""
        return self.used_entries / self.vocab_size

    def to_json(self) -> dict[str, Any]:
        """Return all figures."""
        derived = ("tokens_per_character", "bytes_per_token", "tokens_per_word", "used_share")
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}


@dataclass(frozen=True)
class Examination:
    """What the tests found."""

    vocab_size: int
    held_out: Fit
    round_trips: int
    failures: tuple[Failure, ...]
    disagreements: tuple[Failure, ...]  # texts the bulk encoder and `encode` give different ids for
    forged: tuple[str, ...]  # special spellings that became special ids
    sample: str  # the beginning of the held-out text

    @property
    def passed(self) -> bool:
        """Whether every text came back and no path differed."""
        return not (self.failures or self.disagreements or self.forged)


def examine(tokenizer: Tokenizer, held_out: Iterable[str], *, seed: int = 0) -> Examination:
    """Test a tokenizer on held-out texts (the first 5 million characters), random Unicode and hard cases."""
    encoder = BulkEncoder(tokenizer)
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    texts = characters = text_bytes = words = checked = 0
    failures: list[Failure] = []
    disagreements: list[Failure] = []
    sample = ""
    for text in held_out:
        ids = encoder.encode(text).tolist()
        counts += np.bincount(ids, minlength=tokenizer.vocab_size) if ids else 0
        texts, characters, words = texts + 1, characters + len(text), words + len(text.split())
        text_bytes += len(text.encode())
        failures += _failures(text, tokenizer.decode(ids))
        sample = sample or text[:SAMPLE_CHARACTERS]
        if characters >= HELD_OUT_CHARACTERS:
            break
    for text in [*HARD_TEXTS, *random_texts(seed)]:
        ids = tokenizer.encode(text)
        failures += _failures(text, tokenizer.decode(ids))
        bulk = encoder.encode(text).tolist()
        disagreements += _failures(str(ids), str(bulk))
        checked += 1
    forged = [token for token in tokenizer.special_tokens if tokenizer.special_ids & set(tokenizer.encode(token))]
    used = int((counts > 0).sum())
    fit = Fit(texts, characters, text_bytes, words, int(counts.sum()), used, tokenizer.vocab_size)
    return Examination(
        tokenizer.vocab_size, fit, texts + checked, tuple(failures), tuple(disagreements), tuple(forged), sample
    )


def random_texts(seed: int, number: int = RANDOM_TEXTS) -> list[str]:
    """Return random Unicode strings of 0 to 40 characters from all planes, surrogates left out."""
    generator = random.Random(seed)  # noqa: S311 (test material)
    limits = (0x80, 0x250, 0x3000, 0x10000, 0x110000)
    return [
        "".join(_character(generator, limits) for _ in range(generator.randrange(41))) for _ in range(number)
    ]  # fmt: skip


def _character(generator: random.Random, limits: Sequence[int]) -> str:
    code = generator.randrange(generator.choice(limits))
    return chr(code) if not 0xD800 <= code < 0xE000 else "\ufffd"


def _failures(text: str, decoded: str) -> list[Failure]:
    if text == decoded:
        return []
    pairs = zip(text, decoded, strict=False)
    position = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(text), len(decoded)))
    return [Failure(text, decoded, position)]
