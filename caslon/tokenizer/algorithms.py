"""Texts to the `tokenizer.json` of an exact tokenizer: byte-level BPE, word pieces or unigrams, learned by HF `tokenizers`.

BPE: Sennrich et al., arXiv:1508.07909. Word pieces: Schuster and Nakajima 2012. Unigrams: Kudo, arXiv:1804.10959. All work on the
symbols of bytes, hold all 256, and know no normaliser: nothing is unknown and nothing is lost. The library learns; the
vocabulary is laid out here, since its own orders differ: special tokens, bytes, then learned entries, then entries for tags.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from caslon.tokenizer import special
from caslon.tokenizer.guarantee import Merge, least_entries, with_guaranteed
from caslon.tokenizer.patterns import Cut

ALGORITHMS = ("bpe", "wordpiece", "unigram")
REPRODUCIBLE = ("bpe",)  # equal runs of the library's other two trainers differ
NEVER_CHOSEN = -1e6  # the score of unigram entries that no text is cut into
CLEARLY_BETTER = 0.01  # a guaranteed unigram entry beats the next best cutting by this much
ENDLESS = 1_000_000_000  # letters of a word; the cut has bounded it long before


@dataclass(frozen=True)
class Plan:
    """What a vocabulary must hold, and how many entries in all."""

    algorithm: str
    cut: Cut
    vocab_size: int
    min_frequency: int
    special_tokens: Sequence[str]
    guaranteed: Sequence[str] = ()  # in byte symbols, each one piece of the cut
    unlearned: Sequence[str] = ()  # entries that no text is cut into, at the end

    @property
    def least_size(self) -> int:
        """The least `vocab_size`: bytes, special tokens, guaranteed words and what they are built from."""
        fixed = len(self.special_tokens) + len(self.unlearned)
        if self.algorithm == "bpe":
            return fixed + least_entries(_alphabet(), self.guaranteed)
        alphabet = self.alphabet
        return fixed + len(alphabet) + sum(word not in alphabet for word in self.guaranteed)

    @property
    def alphabet(self) -> list[str]:
        """The entries for single bytes."""
        symbols = _alphabet()
        if self.algorithm == "wordpiece":
            return [*symbols, *(special.CONTINUATION + symbol for symbol in symbols)]
        return symbols

    @property
    def learned_room(self) -> int:
        """How many entries may be learned or guaranteed."""
        return self.vocab_size - len(self.special_tokens) - len(self.alphabet) - len(self.unlearned)


@dataclass(frozen=True)
class Learned:
    """A tokenizer as the library writes it, and how many learned entries made room for guaranteed ones."""

    tokenizer_json: str
    left_out: int


def learn(texts: Iterable[str], plan: Plan) -> Learned:
    """Return the tokenizer learned from texts (read once, streamed) after `plan`."""
    make = {"bpe": _bpe, "wordpiece": _word_pieces, "unigram": _unigrams}[plan.algorithm]
    model, left_out = make(texts, plan)
    return Learned(_tokenizer_json(model, plan), left_out)


def _alphabet() -> list[str]:
    return sorted(special.byte_symbols())


def _trained(model: Any, trainer: Any, texts: Iterable[str], plan: Plan) -> dict[str, Any]:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = plan.cut.pre_tokenizer(plan.algorithm)
    tokenizer.train_from_iterator(texts, trainer)
    parsed: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return parsed


def _bpe(texts: Iterable[str], plan: Plan) -> tuple[dict[str, Any], int]:
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocab_size - len(plan.unlearned),
        min_frequency=plan.min_frequency,
        special_tokens=_added_tokens(plan.special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    found = _trained(models.BPE(), trainer, texts, plan)
    merges: list[Merge] = [(left, right) for left, right in found["merges"]]
    alphabet = plan.alphabet
    merges, left_out = with_guaranteed(merges, alphabet, plan.guaranteed, plan.learned_room + len(alphabet))
    learned = [left + right for left, right in merges]
    # llama.cpp takes a piece that is an entry whole where the pattern is Llama 3's, whatever the merges say
    model = {
        **found,
        "ignore_merges": plan.cut.pattern == "llama3",
        "vocab": _ids([*plan.special_tokens, *alphabet, *learned, *plan.unlearned]),
        "merges": [list(merge) for merge in merges],
    }
    return model, left_out


def _word_pieces(texts: Iterable[str], plan: Plan) -> tuple[dict[str, Any], int]:
    trainer = trainers.WordPieceTrainer(
        vocab_size=plan.vocab_size,
        min_frequency=plan.min_frequency,
        special_tokens=_added_tokens(plan.special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        continuing_subword_prefix=special.CONTINUATION,
        show_progress=False,
    )
    model = models.WordPiece(unk_token=special.UNKNOWN, max_input_chars_per_word=ENDLESS)
    found = _trained(model, trainer, texts, plan)
    alphabet = plan.alphabet
    known = {*alphabet, *plan.special_tokens}
    learned = [entry for entry in sorted(found["vocab"], key=found["vocab"].__getitem__) if entry not in known]
    entries, left_out = _with_words(learned, alphabet, plan)
    vocab = _ids([*plan.special_tokens, *alphabet, *entries, *plan.unlearned])
    return {**found, "vocab": vocab, "max_input_chars_per_word": ENDLESS}, left_out


def _unigrams(texts: Iterable[str], plan: Plan) -> tuple[dict[str, Any], int]:
    trainer = trainers.UnigramTrainer(
        vocab_size=plan.vocab_size - len(plan.special_tokens) - len(plan.unlearned) + 1,
        special_tokens=[special.UNKNOWN],
        unk_token=special.UNKNOWN,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    found = _trained(models.Unigram(), trainer, texts, plan)
    scores = {entry: float(score) for entry, score in found["vocab"] if entry != special.UNKNOWN}
    alphabet = plan.alphabet
    floor = min(scores.values())
    for symbol in alphabet:
        scores.setdefault(symbol, floor)
    single = set(alphabet)
    learned = sorted((entry for entry in scores if entry not in single), key=lambda entry: (-scores[entry], entry))
    entries, left_out = _with_words(learned, alphabet, plan)
    kept = {entry: scores[entry] for entry in (*alphabet, *entries) if entry in scores}
    _raise_scores(kept, plan.guaranteed)
    never = dict.fromkeys((*plan.special_tokens, *plan.unlearned), NEVER_CHOSEN)
    order = [*plan.special_tokens, *alphabet, *entries, *plan.unlearned]
    vocab = [[entry, never.get(entry, kept.get(entry))] for entry in order]
    return {**found, "vocab": vocab, "unk_id": order.index(special.UNKNOWN)}, left_out


def _with_words(learned: Sequence[str], alphabet: Sequence[str], plan: Plan) -> tuple[list[str], int]:
    """Return learned entries, the best first, with the guaranteed words among them, and the number left out for those."""
    known = {*alphabet, *plan.guaranteed}
    words = [word for word in plan.guaranteed if word not in set(alphabet)]
    others = [entry for entry in learned if entry not in known]
    room = plan.learned_room - len(words)
    kept = {*others[:room], *words}
    in_order = [entry for entry in learned if entry in kept]
    found = set(in_order)
    return in_order + [word for word in words if word not in found], max(len(others) - room, 0)


def _raise_scores(scores: dict[str, float], words: Sequence[str]) -> None:
    """Give each word a score that beats every other cutting of it; shorter words first, for they may be parts of longer ones."""
    for word in sorted(words, key=lambda word: (len(word), word)):
        if len(word) > 1:
            others = _best_score(word, scores) + CLEARLY_BETTER
            scores[word] = max(scores.get(word, others), others)


def _best_score(word: str, scores: dict[str, float]) -> float:
    """Return the score of the best cutting of a word into at least two entries."""
    best = [0.0] + [float("-inf")] * len(word)
    for end in range(1, len(word) + 1):
        for start in range(end):
            if end - start < len(word):
                best[end] = max(best[end], best[start] + scores.get(word[start:end], float("-inf")))
    return best[-1]


def _ids(entries: Iterable[str]) -> dict[str, int]:
    return {entry: id for id, entry in enumerate(dict.fromkeys(entries))}


def _added_tokens(names: Sequence[str]) -> list[Any]:
    return [AddedToken(name, special=True, normalized=False) for name in names]


def _tokenizer_json(model: dict[str, Any], plan: Plan) -> str:
    """Return the whole file; made by the library from the parts, so that it reads back as it stands."""
    shell = tokenizers.Tokenizer(models.BPE())
    shell.pre_tokenizer = plan.cut.pre_tokenizer(plan.algorithm)
    shell.decoder = _decoder(plan.algorithm)
    parsed = json.loads(shell.to_str())
    parsed["model"] = model
    parsed["added_tokens"] = [
        {"id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for id, name in enumerate(plan.special_tokens)
    ]  # fmt: skip
    text: str = tokenizers.Tokenizer.from_str(json.dumps(parsed, ensure_ascii=False)).to_str()
    return json.dumps(json.loads(text), ensure_ascii=False, indent=1) + "\n"


def _decoder(algorithm: str) -> Any:
    if algorithm != "wordpiece":
        return decoders.ByteLevel()
    return decoders.Sequence([decoders.Replace(special.CONTINUATION, ""), decoders.ByteLevel()])
