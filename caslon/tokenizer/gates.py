"""What an examination found, to gates: each with its bound, what was measured, and pass, fail or not applicable with the reason.

Exactness is asked of every tokenizer. The bounds of fit were measured for the London recipe (byte-level BPE with learned digits
on English of 1500-1850), so they hold for tokenizers with the London lexicon alone, on enough held-out text.
"""

from dataclasses import asdict, dataclass
from typing import Any

from caslon.tokenizer.examine import HELD_OUT_CHARACTERS, Examination
from caslon.tokenizer.tokenizer import Tokenizer

PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "not applicable"
TOKENS_PER_CHARACTER = {30_000: 0.25, 16_000: 0.26, 8_000: 0.28, 2_000: 0.35}  # by vocabulary size, at most
FULL_SIZE = 30_000
TOKENS_PER_WORD = 1.40
BATTERY_SHARE = 0.80
USED_SHARE = 0.75
# Above this share of the entries, guaranteed words make another vocabulary of it: the London lexicon moved tokens per character
# from 0.3404 to 0.3762 at 2,000 entries, from 0.2409 to 0.2410 at 30,000.
DISPLACED_SHARE = 0.10


@dataclass(frozen=True)
class Gate:
    """One line of the test table."""

    test: str
    bound: str
    measured: str
    verdict: str  # PASS | FAIL | NOT_APPLICABLE
    reason: str = ""  # why it is not applicable

    def to_json(self) -> dict[str, Any]:
        """Return the line."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingUse:
    """How the training text uses the learned entries."""

    learned: int
    unused: int


def gates(tokenizer: Tokenizer, found: Examination, training: TrainingUse | None = None) -> tuple[Gate, ...]:
    """Return all lines of the test table in its order."""
    changed = found.changed_by_saving
    return (
        *_exact(found),
        *_fit(tokenizer, found),
        *_words(tokenizer, found),
        *_use(tokenizer, found, training),
        _gate("unknown tokens", "0", str(found.unknown_tokens), not found.unknown_tokens),
        _gate("train, save, load, encode", "same ids", _of(changed, "texts changed"), not changed),
    )  # fmt: skip


def _exact(found: Examination) -> list[Gate]:
    exact = found.round_trips - len(found.failures)
    trips = f"{exact:,} of {found.round_trips:,} texts, {found.segments:,} of them held-out segments"
    wrong = len(found.disagreements) + found.miscounted
    return [
        _gate("exact round trip", "100 %", trips, not found.failures),
        _gate(
            "tokens equal ids in number, ids in range, batch = single, slow path = fast path",
            "all",
            _of(wrong, "texts differ"),
            not wrong,
        ),
        _gate("special spellings stay text", "all", _of(len(found.forged), "spellings forged"), not found.forged),
    ]


def _fit(tokenizer: Tokenizer, found: Examination) -> list[Gate]:
    fit = found.held_out
    reason = _why_no_fit(tokenizer, found)
    size = next((size for size in TOKENS_PER_CHARACTER if tokenizer.vocab_size >= size), None)
    bound = TOKENS_PER_CHARACTER.get(size or 0)
    small = _why_too_small(tokenizer)
    full = "" if size == FULL_SIZE else f"the bound is for {FULL_SIZE:,} entries"
    return [
        _gate(
            "tokens per character", f"at most {bound} at {size:,} entries" if size else "none", f"{fit.tokens_per_character:.4f}",
            bound is not None and fit.tokens_per_character <= bound, reason or small,
        ),
        _against_reference(found, reason or full),
        _gate(
            "tokens per word (fertility)", f"at most {TOKENS_PER_WORD:.2f}", f"{fit.tokens_per_word:.3f}",
            fit.tokens_per_word <= TOKENS_PER_WORD, reason or full,
        ),
    ]  # fmt: skip


def _why_too_small(tokenizer: Tokenizer) -> str:
    if tokenizer.vocab_size < min(TOKENS_PER_CHARACTER):
        return f"the least size with a bound is {min(TOKENS_PER_CHARACTER):,} entries"
    displaced = int(tokenizer.record.get("left_out_for_guaranteed", 0))
    if displaced > DISPLACED_SHARE * tokenizer.vocab_size:
        return f"the bound was measured without guaranteed words, which took the place of {displaced:,} learned entries"
    return ""


def _against_reference(found: Examination, reason: str) -> Gate:
    test = "tokens per character against the GPT-2 table"
    if found.reference is None:
        return _gate(test, "not above it", "", False, "no such table was given (--against FOLDER)")
    name, theirs = found.reference
    ours = found.held_out.tokens_per_character
    measured = f"{ours:.4f}; {name} ({theirs.vocab_size:,} entries): {theirs.tokens_per_character:.4f}"
    return _gate(test, "not above it", measured, ours <= theirs.tokens_per_character, reason)


def _words(tokenizer: Tokenizer, found: Examination) -> list[Gate]:
    name = tokenizer.special_map.get("lexicon")
    reason = "" if name else "the tokenizer has no lexicon"
    mode = reason or ("words are tags with marks in this mode" if tokenizer.tags else "")
    known = sum(bool(sentence.whole_words) for sentence in found.battery)
    share = known / max(len(found.battery), 1)
    return [
        _gate(
            "lexicon words as one token, four forms each", "100 %", f"{found.whole_forms:,} of {found.lexicon_forms:,} forms",
            found.whole_forms == found.lexicon_forms, mode,
        ),
        _gate(
            "period sentences with a lexicon word as one token", f"at least {BATTERY_SHARE:.0%}",
            f"{known} of {len(found.battery)}", share >= BATTERY_SHARE,
            reason or ("" if name == "london" else "the sentences are for the London lexicon"),
        ),
    ]  # fmt: skip


def _use(tokenizer: Tokenizer, found: Examination, training: TrainingUse | None) -> list[Gate]:
    fit = found.held_out
    unmeasured = "" if training else "the training text was not given (--training FILES)"
    use = training or TrainingUse(0, 0)
    return [
        _gate(
            "vocabulary used on held-out text", f"at least {USED_SHARE:.0%}", f"{fit.used_share:.1%}",
            fit.used_share >= USED_SHARE, _why_no_fit(tokenizer, found),
        ),
        _gate(
            "learned entries used by the training text", "every one, the rest listed",
            f"{use.learned - use.unused:,} of {use.learned:,}, {use.unused:,} listed" if training else "", True, unmeasured,
        ),
    ]  # fmt: skip


def _why_no_fit(tokenizer: Tokenizer, found: Examination) -> str:
    record = tokenizer.record
    lexicon = record.get("lexicon") or {}
    if lexicon.get("name") != "london":
        return "the bounds are for tokenizers with the London lexicon"
    if (record.get("algorithm"), record.get("digits"), tokenizer.tags) != ("bpe", "none", None):
        return "the bounds are for byte-level BPE with learned digits and words"
    if found.held_out.characters < HELD_OUT_CHARACTERS:
        return f"the bounds need {HELD_OUT_CHARACTERS:,} held-out characters; there were {found.held_out.characters:,}"
    return ""


def _gate(test: str, bound: str, measured: str, passed: bool, reason: str = "") -> Gate:
    verdict = NOT_APPLICABLE if reason else PASS if passed else FAIL
    return Gate(test, bound, measured, verdict, reason)


def _of(number: int, what: str) -> str:
    return f"{number:,} {what}"
