"""An inspected file to a page: what it is, and for every document its way through the steps, its scores and its segments."""

from collections.abc import Iterator

from caslon.corpus.inspect import InspectedDocument, InspectedFile, Inspection, Stage
from caslon.report.blocks import Block, Code, Details, Fact, Facts, Notice, Page, Section, Table

SHOWN_FILES = 200
SHOWN_SEGMENTS = 100


def page_of(found: Inspection) -> Page:
    """Return everything that was found out about a file as one page."""
    kept = sum(document.verdict == "kept" for document in found.documents)
    sections = [Section("The file", _file_blocks(found))]
    sections += [Section(_name(document), list(_document_blocks(document))) for document in found.documents]
    return Page(
        title=found.path.rpartition("/")[2],
        subtitle=f"documents looked at: {len(found.documents):,}; kept: {kept:,}",
        sections=sections,
        kicker="caslon corpus inspect",
    )


def _file_blocks(found: Inspection) -> list[Block]:
    shown: list[Block] = []
    if not found.complete:
        shown.append(Notice("The file holds more documents than are shown here; --documents 0 shows all."))
    if not found.registered:
        shown.append(Notice("No source of a recipe holds this file: default facts (tier, language, years) are used."))
    shown += [Notice(text, "warning") for file in found.files for text in file.warnings]
    if len(found.files) == 1:
        shown.append(_facts(found.files[0]))
    elif found.files:
        rows = [(one.address, one.kind, one.encoding, one.bytes) for one in found.files[:SHOWN_FILES]]
        shown.append(Table(("file", "type", "encoding", "bytes"), rows))
    if len(found.documents) > 1:
        rows_of = [(one.id, one.address, one.title, one.verdict, one.reason) for one in found.documents]
        shown.append(Table(("id", "from", "title", "verdict", "why"), rows_of))
    return shown


def _facts(file: InspectedFile) -> Facts:
    facts = [
        Fact("type", file.kind),
        Fact("bytes", file.bytes),
        Fact("SHA-256", f"{file.sha256[:12]}…", note=file.sha256),
    ]
    facts += [Fact("encoding", file.encoding)] if file.encoding else []
    facts += [Fact("language", file.language)] if file.language else []
    return Facts(facts)


def _name(document: InspectedDocument) -> str:
    return document.title or document.address.rpartition("#")[2] or document.id


def _document_blocks(document: InspectedDocument) -> Iterator[Block]:
    if document.verdict == "kept":
        yield Notice("Kept by every step that can be taken on one file alone.")
    else:
        yield Notice(f"Dropped ({document.verdict}): {document.reason}", "warning")
    facts = [Fact("id", document.id), Fact("tier", document.tier or "unknown")]
    facts += [Fact("year", str(document.year))] if document.year else []
    facts += [Fact("segments", sum(1 for piece in document.segments if not piece.code))]
    yield Facts(facts)
    yield _steps(document)
    yield from (_change(stage) for stage in document.stages if stage.differences.lines)
    if document.scores:
        yield _scores(document)
    if document.segments:
        yield _segments(document)


def _steps(document: InspectedDocument) -> Table:
    rows = [
        (stage.name, stage.outcome, stage.characters_before or None, stage.characters_after or None, stage.note)
        for stage in document.stages
    ]
    told = frozenset(number for number, stage in enumerate(document.stages) if stage.outcome == "rejected")
    return Table(("step", "outcome", "characters before", "after", "what was found"), rows, "Every step", told)


def _change(stage: Stage) -> Details:
    found = stage.differences
    more = f"{found.left_out:,} more lines are not shown." if found.left_out else ""
    what = f"{stage.name}: {stage.characters_before:,} to {stage.characters_after:,} characters"
    return Details(what, [Code("\n".join(found.lines), more)])


def _scores(document: InspectedDocument) -> Table:
    rows = [
        (score.name, score.value, score.limits, {True: "ok", False: score.code, None: ""}[score.passed], score.note)
        for score in document.scores
    ]
    outside = frozenset(number for number, score in enumerate(document.scores) if score.passed is False)
    return Table(("score", "value", "limit", "result", "what it is"), rows, "Scores beside their thresholds", outside)


def _segments(document: InspectedDocument) -> Details:
    rows = [
        (piece.id or piece.code, piece.start, piece.end, piece.characters, piece.begins)
        for piece in document.segments[:SHOWN_SEGMENTS]
    ]
    left_out = len(document.segments) - len(rows)
    caption = f"{left_out:,} more are not shown." if left_out else ""
    table = Table(("segment", "from", "to", "characters", "begins"), rows, caption)
    return Details(f"{len(document.segments):,} segments and short pieces", [table])
