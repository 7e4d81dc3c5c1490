"""One raw file to all that the pipeline makes of it: type, every step before and after, scores, verdict and segments.

The steps are those of a build, called one after another. Three things only a build can know: which texts repeat others, which
lines and paragraphs stand in many documents, and which words the other sources use (the list that ships stands in for them).
Personal data and secrets are not shown, whatever the settings do with them.
"""

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from caslon.corpus.collect import Limits, RawFile, raw_files
from caslon.corpus.collect.entries import is_local, paths_of
from caslon.corpus.detect import Detected, detect
from caslon.corpus.differences import NO_DIFFERENCES, Differences, differences
from caslon.corpus.document import Document, Reject
from caslon.corpus.filters import with_measures
from caslon.corpus.forget import Forget
from caslon.corpus.lexicon import Lexicon
from caslon.corpus.personal_data import find
from caslon.corpus.phases.finishing import last_steps
from caslon.corpus.phases.judging import steps_of
from caslon.corpus.privacy import actions_of
from caslon.corpus.read import raw_text
from caslon.corpus.read.limited import LimitedReader
from caslon.corpus.registry import PYTHON, SourceEntry, load_sources
from caslon.corpus.repair import repair
from caslon.corpus.segments import segments_of
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import Segment
from caslon.corpus.steps import Step, guarded
from caslon.corpus.thresholds import Score, held_against
from caslon.errors import UserError

ORDER = ("read", "forget", "repair", "ocr", "language", "period", "quality", "contamination")
WHOLE_CORPUS_STEPS = ("exact duplicates", "near duplicates", "source share", "boilerplate")
SWITCHES = {  # what brings in a step that is not always there
    "forget": "forget names no file",
    "ocr": 'ocr_repair = "off"',
    "language": "no languages are set",
    "period": "no period is set",
    "contamination": "decontaminate names no file",
}
KEPT = "kept"
BEGINNING_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Stage:
    """What one step did. `outcome`: unchanged, changed, rejected, off, not reached, or whole corpus (cannot be told here)."""

    name: str
    outcome: str
    note: str = ""
    characters_before: int = 0
    characters_after: int = 0
    differences: Differences = NO_DIFFERENCES


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment, or a piece too short to be one (`code` is then its reject code)."""

    id: str
    characters: int
    start: int
    end: int
    begins: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class InspectedDocument:
    """A document of the file and its way through the steps. `verdict` is `kept` or the code of its reject."""

    id: str
    address: str
    verdict: str
    reason: str = ""
    title: str = ""
    year: int | None = None
    tier: str = ""
    licence: str = ""
    stages: tuple[Stage, ...] = ()
    scores: tuple[Score, ...] = ()
    segments: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True)
class InspectedFile:
    """The file, or a member of it when it is an archive: what its bytes are."""

    address: str
    bytes: int
    sha256: str
    kind: str
    encoding: str = ""
    language: str = ""  # of source code
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that was found out about a file. `complete` is False when it holds more documents than were asked for."""

    path: str
    source: str
    files: tuple[InspectedFile, ...]
    documents: tuple[InspectedDocument, ...]
    complete: bool = True
    registered: bool = True  # whether a source of the recipe holds the file, so that its facts were used

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain JSON values."""
        found = asdict(self)
        for document, row in zip(self.documents, found["documents"], strict=True):
            row["scores"] = [score.to_json() for score in document.scores]
        return found


def inspect(
    path: Path,
    settings: CorpusSettings,
    base: Path,
    entries: Sequence[SourceEntry] = (),
    *,
    tier: str = "",
    documents: int = 0,
) -> Inspection:
    """Return what the pipeline makes of the file at `path`: its first `documents` documents and rejects, all when 0.

    The facts of the one of `entries` that holds the file are used, such as its tier and licence; `tier` overrides that of the
    source. Raises `UserError` when there is no such file. Relative paths in the settings start at `base`.
    """
    if not path.is_file():
        raise UserError("there is no such file", where=str(path), fix="give one file or archive; folders are built")
    found = _entry_of(path.resolve(), entries)
    entry = found or load_sources(str(path.resolve()), base)[0]
    if tier:
        entry = replace(entry, tier=tier)
    walk = _Walk(settings, base)
    items = walk.items(entry)
    taken = tuple(islice(items, documents or None))
    more = next(items, None) is not None
    items.close()
    return Inspection(str(path), entry.id, tuple(walk.files), taken, not more, found is not None)


def _entry_of(path: Path, entries: Sequence[SourceEntry]) -> SourceEntry | None:
    """Return the source that holds a file, narrowed to that file; its documents then have the ids of a build."""
    for entry in entries:
        names = [name for place, name in paths_of(entry) if place.resolve() == path] if is_local(entry) else []
        if names:
            narrowed = {"include": (names[0],)} if entry.location == PYTHON else {"location": names[0]}
            return replace(entry, **narrowed)
    return None


@dataclass
class _Walk:
    """The steps of a build, ready to be taken one at a time."""

    settings: CorpusSettings
    base: Path
    files: list[InspectedFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.settings
        forget = Forget.load(self.base / settings.forget) if settings.forget else None
        self.forget = forget
        self.steps: dict[str, Step] = {"forget": forget.check} if forget else {}
        self.steps["repair"] = partial(repair, long_s=settings.long_s)
        self.steps |= steps_of(settings, Lexicon.shipped(), self.base)
        if settings.period is None:
            del self.steps["period"]
        if not settings.languages:
            del self.steps["language"]

    def items(self, entry: SourceEntry) -> Generator[InspectedDocument, None, None]:
        """Yield every document and every reject of the reader."""
        with LimitedReader(self.settings.limits) as reader:
            for raw in raw_files((entry,), limits=Limits(file_bytes=self.settings.collect.max_file_bytes)):
                self.files.append(_file(raw))
                forgotten = self.forget.check_raw(raw) if self.forget else None
                for item in (forgotten,) if forgotten else reader.read(raw):
                    yield self._rejected(item) if isinstance(item, Reject) else self._document(item, raw)

    def _rejected(self, found: Reject) -> InspectedDocument:
        characters = len(found.text)
        steps = [Stage(found.step, "rejected", found.reason, characters)]
        steps += [Stage(name, "not reached") for name in self._all_steps() if name != found.step]
        return InspectedDocument(found.id, found.origin.address, found.code, found.reason, stages=tuple(steps))

    def _all_steps(self) -> tuple[str, ...]:
        return (*(name for name in ORDER if name in ("read", *self.steps)), *WHOLE_CORPUS_STEPS, "privacy", "segments")

    def _document(self, document: Document, raw: RawFile) -> InspectedDocument:
        shown = _Shown(self.settings, document.tier)
        stages = [_stage("read", _raw_passage(document, raw), document, shown)]
        result: Document | Reject = document
        for name in ORDER[1:]:
            if name not in self.steps:
                stages.append(Stage(name, "off", SWITCHES[name]))
            else:
                result = self._through(name, self.steps[name], result, stages, shown)
        judged = result
        stages += [Stage(name, "whole corpus", "only a build can tell") for name in WHOLE_CORPUS_STEPS]
        privacy = last_steps(self.settings, frozenset(), frozenset())["privacy"]
        result = self._through("privacy", privacy, result, stages, shown)
        pieces = self._pieces(result, shown) if isinstance(result, Document) else ()
        stages.append(_segment_stage(result, pieces))
        return _inspected(document, judged, result, stages, pieces, self.settings, shown)

    def _through(
        self, name: str, step: Step, before: Document | Reject, stages: list[Stage], shown: "_Shown"
    ) -> Document | Reject:
        if isinstance(before, Reject):
            stages.append(Stage(name, "not reached"))
            return before
        after = guarded(name, step, before)
        if isinstance(after, Reject):
            stages.append(Stage(name, "rejected", f"{after.code}: {after.reason}", len(before.text)))
        else:
            stages.append(_stage(name, before.text, after, shown, before))
        return after

    def _pieces(self, document: Document, shown: "_Shown") -> tuple[Piece, ...]:
        pieces = []
        for piece in segments_of(document, self.settings.segments):
            if isinstance(piece, Segment):
                pieces.append(Piece(piece.id, len(piece.text), piece.start, piece.end, shown.beginning(piece.text)))
            else:
                start, end = piece.metadata["start"], piece.metadata["end"]
                pieces.append(Piece("", len(piece.text), start, end, shown.beginning(piece.text), piece.code))
        return tuple(pieces)


class _Shown:
    """Texts as they may be shown: with the kind in place of each piece of personal data, whatever the settings do with it."""

    def __init__(self, settings: CorpusSettings, tier: str) -> None:
        self._kinds = list(actions_of(settings.privacy, tier))

    def __call__(self, text: str) -> str:
        parts, position = [], 0
        for one in find(text, self._kinds):
            parts += [text[position : one.start], f"‹{one.kind} of {one.end - one.start} characters›"]
            position = one.end
        return "".join([*parts, text[position:]])

    def beginning(self, text: str) -> str:
        words = " ".join(self(text[: 2 * BEGINNING_CHARACTERS]).split())
        return words if len(words) <= BEGINNING_CHARACTERS else words[: BEGINNING_CHARACTERS - 1] + "…"


def _file(raw: RawFile) -> InspectedFile:
    detected = detect(raw.bytes, raw.name) if raw.bytes or not raw.problems else Detected("not read")
    warnings = (*detected.warnings, *(f"{code}: {reason}" for code, reason in raw.problems))
    return InspectedFile(
        raw.origin.address, len(raw.bytes), raw.sha256, detected.kind, detected.encoding, detected.language, warnings
    )


def _raw_passage(document: Document, raw: RawFile) -> str:
    """Return the raw text a document is made from: the file's, or the part of it that its record takes."""
    text = raw_text(raw)
    if not document.origin.record:
        return text
    ranges = [(block.start, block.end) for block in document.blocks]
    ranges += [(removal.start, removal.end) for removal in document.removals]
    return text[min(start for start, _ in ranges) : max(end for _, end in ranges)]


def _stage(name: str, before: str, after: Document, shown: _Shown, previous: Document | None = None) -> Stage:
    text = after.text
    found = differences(shown(before), shown(text)) if before != text else NO_DIFFERENCES
    outcome = "changed" if before != text else "unchanged"
    note = _note(name, after, previous)
    return Stage(name, outcome, note, len(before), len(text), found)


def _note(name: str, after: Document, before: Document | None) -> str:
    known = after.metadata
    notes = {
        "read": f"{known.get('type', '')} read as {len(after.blocks):,} blocks",
        "repair": _counts(known.get("repairs", {})),
        "ocr": _ocr_note(known),
        "language": _counts({code: f"{part:.0%}" for code, part in known.get("language_shares", {}).items()}),
        "period": f"{known['period']}: {known['period_reason']}" if "period" in known else "",
        "privacy": _counts(known.get("privacy", {})),
    }
    removals = after.removals[len(before.removals) if before else 0 :]
    taken = f"{len(removals):,} removals, {sum(one.characters for one in removals):,} characters" if removals else ""
    codes = ", ".join(sorted({one.code for one in removals}))
    return "; ".join(part for part in (notes.get(name, ""), f"{taken} ({codes})" if taken else "") if part)


def _counts(counts: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {count:,}" if isinstance(count, int) else f"{name} {count}" for name, count in counts.items()
    )


def _ocr_note(known: dict[str, Any]) -> str:
    suspects, edits = known.get("ocr_suspects", 0), len(known.get("ocr_edits", ()))
    done = f"{edits:,} put right" if edits else "none put right"
    return f"{suspects:,} words look misread, {done}" if suspects else ""


def _segment_stage(result: Document | Reject, pieces: tuple[Piece, ...]) -> Stage:
    if isinstance(result, Reject):
        return Stage("segments", "not reached")
    short = sum(1 for piece in pieces if piece.code)
    note = f"{len(pieces) - short:,} segments" + (f", {short:,} pieces too short" if short else "")
    kept = sum(piece.characters for piece in pieces if not piece.code)
    return Stage("segments", "changed" if short else "unchanged", note, len(result.text), kept)


def _inspected(
    document: Document,
    judged: Document | Reject,
    result: Document | Reject,
    stages: list[Stage],
    pieces: tuple[Piece, ...],
    settings: CorpusSettings,
    shown: _Shown,
) -> InspectedDocument:
    verdict, reason = (result.code, result.reason) if isinstance(result, Reject) else (KEPT, "")
    return InspectedDocument(
        document.id,
        document.origin.address,
        verdict,
        reason,
        shown(document.title),
        document.year,
        document.tier,
        document.licence,
        tuple(stages),
        _scores(document, judged, settings),
        pieces,
    )


def _scores(document: Document, judged: Document | Reject, settings: CorpusSettings) -> tuple[Score, ...]:
    """Return all scores; a text that was dropped before its quality was measured is measured as it then stood."""
    if isinstance(judged, Document):
        return held_against(judged.text, judged.tier, judged.year, judged.scores, settings)
    scores = dict(judged.metadata.get("scores", {}))
    if "words" not in scores and document.tier != "code":
        scores = {**with_measures(document).scores, **scores}
    return held_against(judged.text, document.tier, document.year, scores, settings)
