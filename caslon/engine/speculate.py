"""Guesses what a sequence will say next, so that one step can check several tokens.

Guesses change no answer. The sampler draws each token as it would without them, with the sequence's own random numbers,
and goes on to the next row only while what it drew is what was guessed: rejection sampling (arXiv:2211.17192) with a
guess that is certain of itself, so the same seed gives the same tokens with and without speculation. Drafted tokens
never reach penalties or a grammar, and what a refused one left in the cache is overwritten.

Prompt lookup: arXiv:2304.04487, github.com/apoorvumang/prompt-lookup-decoding.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from caslon.engine.request import Sequence
from caslon.engine.settings import EngineSettings
from caslon.tokenizer.tokenizer import Tokenizer

LONGEST_MATCH = 3
LOOKUP_TOKENS = 5
WINDOW = 64  # drafted tokens over which acceptance is judged
LEAST_ACCEPTANCE = 0.3


class Drafter(Protocol):
    """What guesses tokens."""

    tokens: int  # most guesses for one step

    def draft(self, sequences: list[Sequence]) -> list[tuple[int, ...]]:
        """Return for each sequence what it may say next; nothing where there is no guess."""
        ...

    def forget(self, sequence: Sequence) -> None:
        """Let go of what is kept for a sequence; harmless for one that is not known."""
        ...


class NoDrafter:
    """Guesses nothing."""

    tokens = 0

    def draft(self, sequences: list[Sequence]) -> list[tuple[int, ...]]:
        """Return no guess for each sequence."""
        return [()] * len(sequences)

    def forget(self, sequence: Sequence) -> None:
        """Do nothing."""


class _Lookup:
    """Where each run of one to three tokens of a sequence was last followed by something."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._known = 0

    def following(self, ids: list[int], tokens: int) -> tuple[int, ...]:
        """Return what followed the longest run at the end of `ids` when it last occurred before.

        A run of three tokens is trusted for five, one of two for three, a single token for one.
        """
        for end in range(self._known + 1, len(ids)):
            for length in range(1, min(LONGEST_MATCH, end) + 1):
                self._after[tuple(ids[end - length : end])] = end
        self._known = max(self._known, len(ids) - 1)
        for length in range(min(LONGEST_MATCH, len(ids)), 0, -1):
            start = self._after.get(tuple(ids[-length:]))
            if start is not None:
                return self._copied(ids, start, min(tokens, 2 * length - 1))
        return ()

    @staticmethod
    def _copied(ids: list[int], start: int, tokens: int) -> tuple[int, ...]:
        """Return the tokens from `start` on; where they run into the end, what was copied goes on being copied."""
        found: list[int] = []
        for place in range(start, start + tokens):
            found.append(ids[place] if place < len(ids) else found[place - len(ids)])
        return tuple(found)


class NgramDrafter:
    """Guesses that a sequence repeats itself: what followed its last tokens before follows them again."""

    tokens = LOOKUP_TOKENS

    def __init__(self) -> None:
        self._lookups: dict[Sequence, _Lookup] = {}

    def draft(self, sequences: list[Sequence]) -> list[tuple[int, ...]]:
        """Return for each sequence what followed its last three, two or one tokens before."""
        return [self._lookups.setdefault(one, _Lookup()).following(one.ids, self.tokens) for one in sequences]

    def forget(self, sequence: Sequence) -> None:
        """Drop the sequence's table."""
        self._lookups.pop(sequence, None)


def drafter_for(settings: EngineSettings, blocks: int, tokenizer: Tokenizer) -> Drafter:
    """Return what `speculate` asks for; a draft model gets a cache of as many blocks as the model's."""
    if settings.speculate == "ngram":
        return NgramDrafter()
    if settings.speculate == "off":
        return NoDrafter()
    from caslon.engine.draft import DraftModel

    return DraftModel.load(Path(settings.speculate.removeprefix("draft:")), settings, blocks, tokenizer)


@dataclass
class SpeculationCounts:
    """Tokens guessed and guessed right over the engine's life, in all and by their place in a draft."""

    drafted: int = 0
    accepted: int = 0
    emitted: int = 0  # accepted ones and the token each checked draft yields beside them
    drafted_at: Counter[int] = field(default_factory=Counter)
    accepted_at: Counter[int] = field(default_factory=Counter)
    turned_off: int = 0  # sequences whose drafts were refused too often

    def acceptance_by_place(self) -> list[float]:
        """Return which share of the guesses at the first, second, ... place came true."""
        return [self.accepted_at[place] / count for place, count in sorted(self.drafted_at.items())]


class Speculator:
    """Asks a drafter for guesses where they may pay, and counts what becomes of them."""

    def __init__(self, drafter: Drafter) -> None:
        self.drafter = drafter
        self.counts = SpeculationCounts()
        self._recent: dict[Sequence, deque[bool]] = {}
        self._off: set[Sequence] = set()

    def propose(self, running: Iterable[Sequence]) -> None:
        """Set the guesses of the running sequences."""
        if not self.drafter.tokens:
            return
        asked = []
        for sequence in running:
            sequence.guesses = ()
            if self._may_guess(sequence):
                asked.append(sequence)
        for sequence, guesses in zip(asked, self.drafter.draft(asked), strict=True):
            # the token that is chosen anyway is the last one when one less is left to say
            sequence.guesses = guesses[: sequence.params.total_tokens - sequence.output_tokens - 1]

    def record(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        """Count a checked draft; a sequence whose guesses fail too often gets no more."""
        counts = self.counts
        counts.drafted += drafted
        counts.accepted += accepted
        counts.emitted += accepted + 1
        counts.drafted_at.update(range(drafted))
        counts.accepted_at.update(range(accepted))
        recent = self._recent.setdefault(sequence, deque(maxlen=WINDOW))
        recent.extend([True] * accepted + [False] * (drafted - accepted))
        if len(recent) == WINDOW and sum(recent) < LEAST_ACCEPTANCE * WINDOW:
            self._off.add(sequence)
            counts.turned_off += 1
            self.drafter.forget(sequence)

    def forget(self, sequence: Sequence) -> None:
        """Let go of what is kept for a sequence that ended."""
        self.drafter.forget(sequence)
        self._recent.pop(sequence, None)
        self._off.discard(sequence)

    def _may_guess(self, sequence: Sequence) -> bool:
        return (
            sequence.wants_tokens
            and sequence.remaining == 1
            and sequence.params.width == 1
            and sequence not in self._off
        )
