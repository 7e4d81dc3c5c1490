"""Texts to a tokenizer that gives every text back exactly: byte-level BPE, word pieces or unigrams (see `algorithms`).

Layout of the ids: special tokens, the 256 bytes, then learned entries by rank, the words of a lexicon among them. No normaliser,
so every text comes back. Equal texts and settings give equal BPE files, whatever the number of threads.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

import tokenizers

from caslon.errors import CaslonError, UserError
from caslon.folders import digest_of
from caslon.tokenizer import special
from caslon.tokenizer.algorithms import ALGORITHMS, REPRODUCIBLE, Plan, learn
from caslon.tokenizer.lexicon import NO_LEXICON, Lexicon
from caslon.tokenizer.patterns import cut_of, digit_groups
from caslon.tokenizer.tags import MARKS, tag_spelling, word_pattern
from caslon.tokenizer.tokenizer import TEMPLATE_FILE, Tokenizer

SPECIAL_MODES = ("words", "tags")
PARALLELISM = "TOKENIZERS_PARALLELISM"
MODEL_MAX_LENGTH = 1_024


@dataclass(frozen=True)
class TrainingSettings:
    """What kind of tokenizer to learn. `vocab_size` counts everything; `UserError` from `plan` for what cannot be had."""

    vocab_size: int = 30_000
    algorithm: str = "bpe"
    min_frequency: int = 2
    digits: str = "none"
    pattern: str = "gpt2"
    lexicon: Lexicon = NO_LEXICON
    special_mode: str = "words"
    special_tokens: tuple[str, ...] = ()  # names for the reserved tokens, in their order
    sentinels: int = 0
    model_max_length: int = MODEL_MAX_LENGTH

    @property
    def plan(self) -> Plan:
        """The entries the vocabulary must hold."""
        for kind, name, known in (
            ("algorithm", self.algorithm, ALGORITHMS),
            ("special mode", self.special_mode, SPECIAL_MODES),
        ):
            if name not in known:
                raise UserError(f"there is no {kind} {name!r}", fix=f"use one of {', '.join(known)}")
        cut = cut_of(self.pattern, self.digits)
        words = () if self.tags else self.lexicon.forms
        digits = digit_groups() if cut.groups_digits else ()
        return Plan(
            algorithm=self.algorithm,
            cut=cut,
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=special.special_tokens(self.special_tokens, self.sentinels),
            guaranteed=tuple(special.in_symbols(form) for form in (*words, *digits)),
            unlearned=tuple(special.in_symbols(tag) for tag in self._tag_entries()),
        )

    @property
    def tags(self) -> bool:
        """Whether lexicon words become tags."""
        return self.special_mode == "tags" and bool(self.lexicon)

    def _tag_entries(self) -> tuple[str, ...]:
        if not self.tags:
            return ()
        entries = (*MARKS, *(tag_spelling(entry.word) for entry in self.lexicon.entries))
        taken = set(special.special_tokens(self.special_tokens, self.sentinels)) | set(MARKS)
        for entry in self.lexicon.entries:
            if tag_spelling(entry.word) in taken:
                raise UserError(
                    f"the tag of the lexicon word {entry.word!r} repeats a special token",
                    fix='take the word out, or set special_mode = "words"',
                )
        return entries

    def check(self) -> Plan:
        """Return the plan; `UserError` naming the least size when the vocabulary cannot hold what it must."""
        plan = self.plan
        least = plan.least_size
        if plan.vocab_size < least:
            raise UserError(
                f"vocab_size = {plan.vocab_size} is too small for {_necessities(plan)}",
                fix=f"set tokenizer.vocab_size to {least} or more",
            )
        return plan


def train_tokenizer(
    texts: Iterable[str],
    *,
    vocab_size: int | None = None,
    min_frequency: int = 2,
    settings: TrainingSettings | None = None,
    strict_size: bool = False,
    warn: Callable[[str], None] | None = None,
    record: Mapping[str, Any] | None = None,
) -> Tokenizer:
    """Return a tokenizer of at most `vocab_size` entries, everything counted, learned from `texts` (read once, streamed).

    `settings` says more than `vocab_size` and `min_frequency` alone do. When the texts cannot fill the vocabulary, `warn` is told
    and the tokenizer has its true, smaller size; with `strict_size` that is a `CaslonError`. `record` is added to
    caslon_tokenizer.json. `UserError` when there is no text or the vocabulary is too small.
    """
    chosen = settings or TrainingSettings(vocab_size=vocab_size or 30_000, min_frequency=min_frequency)
    plan = chosen.check()
    counted = _Counted(texts, plan.special_tokens)
    with library_threads():
        learned = learn(_without_tagged_words(not_empty(counted), chosen), plan)
    tokenizer = Tokenizer(
        tokenizer_json=learned.tokenizer_json, config=tokenizer_config(chosen), chat_template=default_chat_template()
    )
    size = tokenizer.vocab_size
    if size < chosen.vocab_size:
        what = f"the corpus fills {size:,} of the {chosen.vocab_size:,} entries asked for"
        if strict_size:
            raise CaslonError(what, fix="give more text, ask for fewer entries, or accept the smaller vocabulary")
        if warn:
            warn(f"{what}; the vocabulary has {size:,}")
    if warn and counted.special_spellings:
        warn(f"{counted.special_spellings:,} texts spell a special token; it is plain text there")
    return Tokenizer(
        tokenizer_json=learned.tokenizer_json,
        config=tokenizer.config,
        chat_template=tokenizer.chat_template,
        record=_record(chosen, plan, tokenizer, learned.left_out, counted) | dict(record or {}),
        special_map=special_map(tokenizer, chosen.lexicon, tags=chosen.tags),
    )


def default_chat_template() -> str:
    """Return caslon's chat template, the one that training and serving share."""
    return resources.files("caslon.tokenizer").joinpath(TEMPLATE_FILE).read_text(encoding="utf-8")


def special_map(tokenizer: Tokenizer, lexicon: Lexicon, *, tags: bool) -> dict[str, Any]:
    """Return the content of special_map.json: every lexicon word with its surface forms and the ids of each."""
    mode = "tags" if tags else "words"
    found: dict[str, Any] = {"format": 1, "lexicon": lexicon.name, "mode": mode, "portable": not tags, "entries": []}
    if tags:
        found["marks"] = {mark: tokenizer.id_of(mark) for mark in MARKS}
    for entry in lexicon.entries:
        row: dict[str, Any] = {
            "word": entry.word, "category": entry.category, "canonical": entry.canonical, "source": entry.source, "mode": mode,
        }  # fmt: skip
        if tags:
            row["id"] = tokenizer.id_of(special.in_symbols(tag_spelling(entry.word)))
        found["entries"].append(row)
    if not lexicon:
        return found
    with_tags = Tokenizer(tokenizer.tokenizer_json, tokenizer.config, special_map=found)
    for entry, row in zip(lexicon.entries, found["entries"], strict=True):
        forms = with_tags.tags.forms(entry.word) if with_tags.tags else entry.forms
        row["forms"] = {form: with_tags.encode(form) for form in forms}
        if not tags:
            split = [form for form, ids in row["forms"].items() if len(ids) > 1]
            if split:
                raise CaslonError(
                    f"the forms {split} of a lexicon word are not one token", fix="please report this with the word"
                )
            row["forms"] = {form: ids[0] for form, ids in row["forms"].items()}
    return found


def _necessities(plan: Plan) -> str:
    parts = [f"{len(plan.special_tokens)} special tokens", f"{len(plan.alphabet)} bytes"]
    if plan.guaranteed:
        parts.append(f"{len(plan.guaranteed):,} guaranteed words and what they are built from")
    if plan.unlearned:
        parts.append(f"{len(plan.unlearned)} tags")
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


class _Counted:
    """Passes texts on and counts their characters, bytes and those that spell a special token."""

    def __init__(self, texts: Iterable[str], special_tokens: Iterable[str]) -> None:
        self._texts = texts
        self._special = tuple(special_tokens)
        self.texts = 0
        self.text_bytes = 0
        self.special_spellings = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.texts += 1
            self.text_bytes += len(text.encode())
            if "<|" in text and any(token in text for token in self._special):
                self.special_spellings += 1
            yield text


def not_empty(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts; `UserError` when none holds a character, before the library sees any."""
    some = False
    for text in texts:
        if text:
            some = True
            yield text
    if not some:
        raise UserError("there is no text to train a tokenizer on", fix="check the corpus: its train split is empty")


def _without_tagged_words(texts: Iterable[str], chosen: TrainingSettings) -> Iterable[str]:
    """Return the texts without the words that tags stand for: nothing is to be learned for those."""
    if not chosen.tags:
        return texts
    pattern = word_pattern(entry.word for entry in chosen.lexicon.entries)
    return (part for text in texts for part in _between(pattern, text))


def _between(pattern: Any, text: str) -> Iterator[str]:
    at = 0
    for found in pattern.finditer(text):
        yield text[at : found.start()]
        at = found.end()
    yield text[at:]


@contextmanager
def library_threads() -> Iterator[None]:
    """Let the library use threads here and nowhere later, so that a fork after training is safe and prints no warning."""
    if PARALLELISM in os.environ:  # the user decided
        yield
        return
    os.environ[PARALLELISM] = "true"
    try:
        yield
    finally:
        os.environ[PARALLELISM] = "false"


def _record(
    chosen: TrainingSettings, plan: Plan, tokenizer: Tokenizer, left_out: int, counted: _Counted
) -> dict[str, Any]:
    lexicon = chosen.lexicon
    return {
        "format": 1,
        "algorithm": chosen.algorithm,
        "pattern": plan.cut.pattern,
        "digits": plan.cut.digits,
        "pre_tokenizer": plan.cut.runtime_name,
        "min_frequency": chosen.min_frequency,
        "vocab_size": tokenizer.vocab_size,
        "vocab_size_asked": chosen.vocab_size,
        "special_mode": chosen.special_mode,
        "lexicon": {
            "name": lexicon.name,
            "entries": len(lexicon.entries),
            "digest": digest_of([[entry.word, entry.category, entry.canonical] for entry in lexicon.entries]),
        },
        "special_tokens": len(plan.special_tokens),
        "sentinels": chosen.sentinels,
        "model_max_length": chosen.model_max_length,
        "left_out_for_guaranteed": left_out,
        "texts_read": counted.texts,
        "bytes_read": counted.text_bytes,
        "texts_with_special_spellings": counted.special_spellings,
        "reproducible": chosen.algorithm in REPRODUCIBLE,
        "portable": not chosen.tags,
        "lossy": False,
        "tokenizers_version": tokenizers.__version__,
    }


def tokenizer_config(chosen: TrainingSettings) -> dict[str, Any]:
    """Return the content of tokenizer_config.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "bos_token": special.START_OF_TEXT,
        "eos_token": special.END_OF_TEXT,
        "pad_token": special.PAD,
        "unk_token": special.UNKNOWN,
        "mask_token": special.MASK,
        "model_max_length": chosen.model_max_length,
    }
