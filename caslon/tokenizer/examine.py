"""A tokenizer put to the test: is it exact, and how well does it fit text it was not trained on?

Round trip: `decode(encode(text)) == text` for held-out text, random Unicode and hand-made hard cases. Fit: tokens per character,
bytes per token, tokens per word (fertility), how much of the vocabulary is used.
"""

import json
import random
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from caslon.tokenizer import special
from caslon.tokenizer.bulk import BulkEncoder
from caslon.tokenizer.tags import word_pattern
from caslon.tokenizer.texts import segments_of
from caslon.tokenizer.tokenizer import TOKENIZER_FILE, Tokenizer

RANDOM_TEXTS = 2_000
SEGMENTS = 10_000
SAVED_TEXTS = 1_000
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
class BatterySentence:
    """A sentence of the period and the lexicon words that are one token in it."""

    kind: str
    text: str
    whole_words: tuple[str, ...]


@dataclass(frozen=True)
class Examination:
    """What the tests found."""

    vocab_size: int
    held_out: Fit
    round_trips: int
    segments: int  # of the round trips: stretches of held-out text
    failures: tuple[Failure, ...]
    disagreements: tuple[Failure, ...]  # texts the bulk encoder and `encode` give different ids for
    miscounted: int  # texts whose tokens and ids differ in number or whose ids are out of range
    unknown_tokens: int
    changed_by_saving: int  # texts that get other ids after saving and loading
    forged: tuple[str, ...]  # special spellings that became special ids
    lexicon_forms: int
    whole_forms: int  # of the lexicon's forms: those that are one token
    battery: tuple[BatterySentence, ...]
    sample: str  # the beginning of the held-out text
    reference: tuple[str, Fit] | None = None  # another tokenizer's name and its fit on the same text

    @property
    def passed(self) -> bool:
        """Whether every text came back and no path differed."""
        return not (self.failures or self.disagreements or self.forged or self.miscounted or self.changed_by_saving)


def examine(
    tokenizer: Tokenizer, held_out: Iterable[str], *, seed: int = 0, against: tuple[str, Tokenizer] | None = None
) -> Examination:
    """Test a tokenizer on held-out texts (the first 5 million characters), random Unicode and hard cases.

    `against` is another tokenizer and its name, measured on the same text.
    """
    measured = _Measured(tokenizer)
    reference = _Measured(against[1]) if against else None
    drawn = _Drawn(seed, SEGMENTS)
    failures: list[Failure] = []
    for text in held_out:
        failures += _failures(text, tokenizer.decode(measured.add(text)))
        if reference:
            reference.add(text)
        drawn.add(segments_of(text))
        if measured.characters >= HELD_OUT_CHARACTERS:
            break
    probes = [text for text in (*drawn.segments, *HARD_TEXTS, *random_texts(seed)) if tokenizer.takes(text)]
    encodings = [tokenizer.encoding(text, allow_special=False) for text in probes]
    for text, encoding in zip(probes, encodings, strict=True):
        failures += _failures(text, tokenizer.decode(encoding.ids))
    disagreements = [
        failure
        for encoding, batch in zip(encodings, tokenizer.encode_batch(probes), strict=True)
        for failure in _failures(str(encoding.ids), str(batch))
    ]
    unknown = tokenizer.special_tokens.get(special.UNKNOWN)
    forms = [(form, ids) for entry in tokenizer.special_map.get("entries", ()) for form, ids in entry["forms"].items()]
    return Examination(
        vocab_size=tokenizer.vocab_size,
        held_out=measured.fit,
        round_trips=measured.texts + len(probes),
        segments=len(drawn.segments),
        failures=tuple(failures),
        disagreements=tuple(disagreements),
        miscounted=sum(not _well_counted(encoding, tokenizer.vocab_size) for encoding in encodings),
        unknown_tokens=sum(encoding.ids.count(unknown) for encoding in encodings),
        changed_by_saving=_changed_by_saving(tokenizer, probes[:SAVED_TEXTS], encodings),
        forged=tuple(
            token
            for token in filter(tokenizer.takes, tokenizer.special_tokens)
            if tokenizer.special_ids & set(tokenizer.encode(token))
        ),
        lexicon_forms=len(forms),
        whole_forms=sum(len(tokenizer.encode(form)) == 1 for form, _ in forms),
        battery=battery(tokenizer),
        sample=measured.sample,
        reference=(against[0], reference.fit) if against and reference else None,
    )


def fit_of(tokenizer: Tokenizer, texts: Iterable[str]) -> Fit:
    """Return how a tokenizer fits texts (the first 5 million characters)."""
    measured = _Measured(tokenizer)
    for text in texts:
        measured.add(text)
        if measured.characters >= HELD_OUT_CHARACTERS:
            break
    return measured.fit


class _Measured:
    """Adds up how a tokenizer fits text after text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encoder = BulkEncoder(tokenizer)
        self._counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
        self.texts = self.characters = self._text_bytes = self._words = 0
        self.sample = ""

    def add(self, text: str) -> list[int]:
        """Count a text and return its ids."""
        ids: list[int] = self._encoder.encode(text).tolist()
        if ids:
            self._counts += np.bincount(ids, minlength=len(self._counts))
        self.texts += 1
        self.characters += len(text)
        self._text_bytes += len(text.encode())
        self._words += len(text.split())
        self.sample = self.sample or text[:SAMPLE_CHARACTERS]
        return ids

    @property
    def fit(self) -> Fit:
        """The fit so far."""
        used = int((self._counts > 0).sum())
        tokens = int(self._counts.sum())
        return Fit(self.texts, self.characters, self._text_bytes, self._words, tokens, used, len(self._counts))


class _Drawn:
    """A seeded sample of fixed size from segments that come one after another (Vitter's algorithm R, 1985)."""

    def __init__(self, seed: int, size: int) -> None:
        self._generator = random.Random(seed)  # noqa: S311 (test material)
        self._size = size
        self._seen = 0
        self.segments: list[str] = []

    def add(self, segments: Iterable[str]) -> None:
        """Give every segment the same chance."""
        for segment in segments:
            self._seen += 1
            if len(self.segments) < self._size:
                self.segments.append(segment)
            elif (place := self._generator.randrange(self._seen)) < self._size:
                self.segments[place] = segment


def battery(tokenizer: Tokenizer) -> tuple[BatterySentence, ...]:
    """Return fifty sentences of the period, each with the words of the tokenizer's lexicon that are one token in it."""
    words = [entry["word"] for entry in tokenizer.special_map.get("entries", ())]
    pattern = word_pattern(words) if words else None
    text = resources.files("caslon.tokenizer").joinpath("battery.json").read_text(encoding="utf-8")
    return tuple(
        BatterySentence(row["kind"], row["text"], _whole_words(tokenizer, row["text"], pattern))
        for row in json.loads(text)["sentences"]
    )


def _whole_words(tokenizer: Tokenizer, text: str, pattern: re.Pattern[str] | None) -> tuple[str, ...]:
    if pattern is None:
        return ()
    spans = set(tokenizer.encoding(text, allow_special=False).offsets)
    return tuple(
        found["word"]
        for found in pattern.finditer(text)
        if {(found.start("word"), found.end()), (found.start("word") - 1, found.end())} & spans
    )


def _well_counted(encoding: Any, vocab_size: int) -> bool:
    return len(encoding.ids) == len(encoding.offsets) and all(0 <= id < vocab_size for id in encoding.ids)


def _changed_by_saving(tokenizer: Tokenizer, texts: Sequence[str], encodings: Sequence[Any]) -> int:
    """Return how many texts get other ids from the saved folder, read by caslon and by the library alone."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        loaded = Tokenizer.load(Path(folder))
        library = tokenizers.Tokenizer.from_file(str(Path(folder) / TOKENIZER_FILE))
    library.encode_special_tokens = True
    library.no_truncation()
    library.no_padding()
    changed = 0
    for text, encoding in zip(texts, encodings, strict=False):
        other = encoding.ids if tokenizer.tags else library.encode(text, add_special_tokens=False).ids
        changed += loaded.encode(text) != encoding.ids or other != encoding.ids
    return changed


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
