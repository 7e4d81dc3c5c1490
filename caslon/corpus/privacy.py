"""Documents with personal data become documents with placeholders, or rejects: the step that masks, drops and reports.

What is done depends on the kind (`corpus.privacy`). Figures say kind, count and place, never the value: a masked passage
becomes a removal without text, and earlier removals, the title and the metadata are masked too. Program text keeps its bytes, so
there masking turns into reporting; secrets drop it as everything else. Rejects and raw files still hold the values.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from caslon.corpus.document import BLOCK_SEPARATOR, Block, Document, Reject, Removal
from caslon.corpus.filters import part_of_block, reject
from caslon.corpus.personal_data import KINDS, Finding, check_names_extra, find
from caslon.corpus.settings import PrivacySettings

STEP = "privacy"
MASKED_CODE = "masked"
DROPPED_CODE = "secret_found"  # the closed list of codes has this one for all that is dropped for privacy
PLACES = 100  # places kept of each kind in a report; the count is always whole
PLACEHOLDERS = {
    "secret": "SECRET",
    "url_credentials": "CREDENTIALS",
    "email": "EMAIL",
    "iban": "IBAN",
    "card": "CARD",
    "ip": "IP",
    "ni": "NATIONAL_INSURANCE",
    "phone": "PHONE",
    "name": "PERSON",
}


def privacy(document: Document, settings: PrivacySettings) -> Document | Reject:
    """Return the document with placeholders for what is masked and counts in its metadata, or a `secret_found` reject.

    `metadata["privacy"]` is `{kind: count}`, `metadata["privacy_places"]` the raw ranges of the first hundred of each kind;
    documents without findings come back unchanged. `UserError` when names are wanted and the extra is missing.
    """
    actions = actions_of(settings, document.tier)
    found = find(document.text, actions)
    dropped = [finding for finding in found if actions[finding.kind] == "drop"]
    if dropped:
        noted = _noted(document, found)
        return reject(noted, STEP, DROPPED_CODE, _reason(document, dropped))
    if not found:
        return _masked_apart(document, actions)
    masked = [finding for finding in found if actions[finding.kind] == "mask"]
    return _masked_apart(_masked(_noted(document, found), masked), actions)


def check_privacy(settings: PrivacySettings) -> None:
    """Raise `UserError` before any work when a kind is wanted that cannot be looked for."""
    if settings.name != "off":
        check_names_extra()


def actions_of(settings: PrivacySettings, tier: str = "general") -> dict[str, str]:
    """Return what is done with each kind that is looked for. Program text is not altered, and has no names."""
    actions = {kind: str(getattr(settings, kind)) for kind in KINDS}
    if tier == "code":
        actions["name"] = "off"
        actions = {kind: "report" if action == "mask" else action for kind, action in actions.items()}
    return {kind: action for kind, action in actions.items() if action != "off"}


def mask(text: str, kinds: Sequence[str]) -> str:
    """Return a text with a placeholder for each value of these kinds."""
    return _with_placeholders(text, [(one.start, one.end, _placeholder(one.kind)) for one in find(text, kinds)])


@dataclass
class ConversationMask:
    """Consistent placeholders for one conversation: the same value is `[EMAIL_1]` in every turn."""

    settings: PrivacySettings
    counts: Counter[str] = field(default_factory=Counter)  # of findings by kind
    dropped: Counter[str] = field(default_factory=Counter)  # of those whose action is to drop the conversation
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)

    def mask(self, text: str) -> str:
        """Return a turn's text with its placeholders, and count what was found."""
        actions = actions_of(self.settings)
        places = []
        for one in find(text, actions):
            self.counts[one.kind] += 1
            self.dropped[one.kind] += actions[one.kind] == "drop"
            if actions[one.kind] == "mask":
                number = self.number(one.kind, text[one.start : one.end])
                places.append((one.start, one.end, f"[{PLACEHOLDERS[one.kind]}_{number}]"))
        return _with_placeholders(text, places)

    def number(self, kind: str, value: str) -> int:
        """Return the number of a value among those of its kind, counted from 1 in the order they came."""
        same = sum(1 for other, _ in self._numbers if other == kind)
        return self._numbers.setdefault((kind, "".join(value.casefold().split())), same + 1)


def _placeholder(kind: str) -> str:
    return f"[{PLACEHOLDERS[kind]}]"


def _with_placeholders(text: str, places: Sequence[tuple[int, int, str]]) -> str:
    parts, position = [], 0
    for start, end, placeholder in places:
        parts += [text[position:start], placeholder]
        position = end
    return "".join([*parts, text[position:]]) if parts else text


def _block_starts(document: Document) -> list[int]:
    starts, position = [], 0
    for block in document.blocks:
        starts.append(position)
        position += len(block.text) + len(BLOCK_SEPARATOR)
    return starts


def _parts(document: Document, starts: Sequence[int], finding: Finding) -> list[tuple[int, int, int]]:
    """Return the parts of a finding as `(block, start, end)`; only a key with blank lines in it has more than one."""
    parts = []
    number = max(bisect_right(starts, finding.start) - 1, 0)
    while number < len(starts) and starts[number] < finding.end:
        start = max(finding.start - starts[number], 0)
        end = min(finding.end - starts[number], len(document.blocks[number].text))
        if start < end:
            parts.append((number, start, end))
        number += 1
    return parts


def _raw_range(document: Document, starts: Sequence[int], finding: Finding) -> tuple[int, int]:
    parts = [
        part_of_block(document.blocks[number], start, end) for number, start, end in _parts(document, starts, finding)
    ]
    return min(part.start for part in parts), max(part.end for part in parts)


def _noted(document: Document, found: Sequence[Finding]) -> Document:
    starts = _block_starts(document)
    counts = Counter(one.kind for one in found)
    places: dict[str, list[list[int]]] = {}
    for one in found:
        kept = places.setdefault(one.kind, [])
        if len(kept) < PLACES:
            kept.append(list(_raw_range(document, starts, one)))
    return replace(document, metadata={**document.metadata, "privacy": dict(counts), "privacy_places": places})


def _reason(document: Document, dropped: Sequence[Finding]) -> str:
    starts = _block_starts(document)
    counts = Counter(one.rule or one.kind for one in dropped)
    named = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    start, end = _raw_range(document, starts, dropped[0])
    return f"{named}; the first at characters {start}-{end} of the raw text"


def _masked(document: Document, masked: Sequence[Finding]) -> Document:
    """Return the document with a placeholder for each finding and a removal that holds no text."""
    starts = _block_starts(document)
    places: dict[int, list[tuple[int, int, str]]] = {}
    removals = []
    for finding in masked:
        for number, start, end in _parts(document, starts, finding):
            places.setdefault(number, []).append((start, end, _placeholder(finding.kind)))
            raw = part_of_block(document.blocks[number], start, end)
            removals.append(Removal(MASKED_CODE, "", raw.start, raw.end, end - start))
    blocks = tuple(
        Block(_with_placeholders(block.text, places[number]), block.start, block.end) if number in places else block
        for number, block in enumerate(document.blocks)
    )
    return replace(document, blocks=blocks, removals=(*document.removals, *removals)) if removals else document


def _masked_apart(document: Document, actions: dict[str, str]) -> Document:
    """Return the document with title, metadata and earlier removals masked: whatever is written with it."""
    kinds = [kind for kind, action in actions.items() if action == "mask"]
    if not kinds:
        return document
    values = [kind for kind in kinds if kind != "name"]  # authors keep their names
    title = mask(document.title, values)
    metadata = _masked_value(document.metadata, values)
    removals = tuple(
        replace(removal, text=mask(removal.text, kinds), characters=removal.characters) for removal in document.removals
    )
    if (title, metadata, removals) == (document.title, document.metadata, document.removals):
        return document
    return replace(document, title=title, metadata=metadata, removals=removals)


def _masked_value(value: Any, kinds: Sequence[str]) -> Any:
    if isinstance(value, str):
        return mask(value, kinds)
    if isinstance(value, dict):
        return {key: _masked_value(item, kinds) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_masked_value(item, kinds) for item in value)
    return value
