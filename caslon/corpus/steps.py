"""Documents through a row of steps: each step is guarded, timed, and counted so that nothing goes missing unseen."""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from caslon.corpus.document import Document, Reject
from caslon.corpus.filters import reject

Step = Callable[[Document], Document | Reject]
TRACED_FRAMES = 8


@dataclass
class StepCounts:
    """What one step did: in = out + rejected, and for characters also + removed + changed."""

    documents_in: int = 0
    documents_out: int = 0
    documents_rejected: int = 0
    characters_in: int = 0
    characters_out: int = 0
    characters_rejected: int = 0
    characters_removed: int = 0
    characters_changed: int = 0  # what rewriting (white space, hyphens, separators) took away or, below zero, added
    seconds: float = 0.0

    def add(self, other: "StepCounts") -> None:
        """Add another count of the same step."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    def note(self, before: Document, after: Document | Reject) -> None:
        """Count one document that went through the step."""
        if isinstance(after, Reject):
            self.note_reject(len(before.text))
            return
        characters = len(before.text)
        removed = sum(removal.characters for removal in after.removals[len(before.removals) :])
        left = len(after.text) if after.blocks is not before.blocks else characters
        self.documents_in += 1
        self.characters_in += characters
        self.documents_out += 1
        self.characters_out += left
        self.characters_removed += removed
        self.characters_changed += characters - left - removed

    def note_reject(self, characters: int) -> None:
        """Count one document that the step dropped."""
        self.documents_in += 1
        self.characters_in += characters
        self.documents_rejected += 1
        self.characters_rejected += characters

    def note_passed(self, characters: int) -> None:
        """Count one document that came out of the step as it went in."""
        self.documents_in += 1
        self.characters_in += characters
        self.documents_out += 1
        self.characters_out += characters


def add_counts(totals: dict[str, StepCounts], counts: Mapping[str, StepCounts]) -> None:
    """Add the counts of a batch to those of the corpus, step by step."""
    for name, count in counts.items():
        totals.setdefault(name, StepCounts()).add(count)


def through(document: Document, steps: Mapping[str, Step], counts: dict[str, StepCounts]) -> Document | Reject:
    """Return the document after all steps, or the reject of the step that dropped it."""
    for name, step in steps.items():
        count = counts.setdefault(name, StepCounts())
        begun = time.process_time()
        after = guarded(name, step, document)
        count.seconds += time.process_time() - begun
        count.note(document, after)
        if isinstance(after, Reject):
            return with_removals(after, document)
        document = after
    return document


def with_removals(dropped: Reject, document: Document) -> Reject:
    """Return a reject that also keeps what earlier steps had taken out of the document."""
    if not document.removals:
        return dropped
    removals = [asdict(removal) for removal in document.removals]
    return replace(dropped, metadata={**dropped.metadata, "removals": removals})


def guarded(name: str, step: Step, document: Document) -> Document | Reject:
    """Return what the step returns; a crash, or a document without text, becomes a reject."""
    try:
        result = step(document)
    except Exception as error:
        return reject(document, name, "step_failed", failure(error))
    if isinstance(result, Document) and not result.blocks:
        return reject(document, name, "no_text", f"nothing was left after {name}")
    return result


def failure(error: BaseException) -> str:
    """Return an exception and where it came from, without the paths of this machine."""
    frames = traceback.extract_tb(error.__traceback__)[-TRACED_FRAMES:]
    trail = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__}: {error} (at {trail})"
