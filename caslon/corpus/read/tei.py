"""TEI: turns P5, TEI.2 (P4), the upper-case P3 of the Text Creation Partnership and bare records into documents.

One document per file, but one per trial and front matter in the Old Bailey's sessions. Speeches, lists and stanzas are one
block with their lines; notes stand aside in the metadata; a gap gives one mark; editors' headers give title, author and year.
Of a file that breaks off, the whole blocks and records are kept and the rest is rejected with its place. Names, places,
occupations and dates that are marked in the text (London Lives) stand aside as annotations with their range in the source.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.entities import html5
from typing import Any

from caslon.corpus.document import Reject
from caslon.corpus.read.blocks import BlockBuilder
from caslon.corpus.read.reading import Extracted, ReadSettings, Source
from caslon.corpus.read.safe_xml import (
    MalformedXml,
    Places,
    UnsafeXml,
    malformed_reject,
    unsafe_reject,
    walk,
    xml_bytes,
)
from caslon.corpus.read.tei_facts import OldBaileyRecord, TeiHeader

STEP = "read"

# What an element does to the text; names are compared without prefix and in lower case. All others are inline.
ACTIONS = {
    "drop": """temphead idg header interp interpgrp xptr ptr join link fw figdesc facsimile standoff sourcedoc am del index
        anchor certainty alt""",
    "header": "teiheader",
    "note": "note tailnote",
    "block": """p ab head div div0 div1 div2 div3 div4 div5 div6 div7 text body front back group lg trailer byline epigraph
        page document record para argument titlepage titlepart docimprint figure postscript floatingtext letter castgroup""",
    "group": "sp list table castlist opener closer",  # one block, whose parts are lines
    "line": "l item row speaker castitem addrline signed salute dateline label",
    "space": "pb cb gb milestone lb cell",
    "placed": "stage bibl",  # inline in running text, else a line or a block of its own
    "padded": "role roledesc docauthor docdate publisher pubplace",  # inline, but never one word with its neighbours
    "gap": "gap",
    "glyph": "g",
    "reading": "reg sic expan",  # in a choice the other reading is taken: original spelling, corrected errors
}
ACTION_OF = {name: action for action, names in ACTIONS.items() for name in names.split()}
HOLDERS = frozenset(("p", "ab", "l", "head", "item", "speaker", "cell", "titlepart", "byline", "trailer", "stage"))
LINES_IN_GROUPS = frozenset(("p", "ab", "head", "lg", "trailer", "byline", "castgroup"))
TAGS = re.compile(r"<[^>]*>")
JOINING_GLYPHS = ("char:EOLhyphen", "char:EOLunhyphen")
NOTHING_LOST = frozenset(("duplicate",))  # reasons of a gap where the text stands elsewhere
OLD_BAILEY = ("sessionsPaper", "ordinarysAccount")
LONDON_LIVES = "london_lives"  # the profile of its pages


def read_tei(source: Source, settings: ReadSettings) -> Iterator[Extracted | Reject]:
    """Yield the documents of a TEI file."""
    reading = _Reading(source, settings)
    try:
        for _ in walk(reading.data, reading, settings.max_xml_depth):
            yield from reading.take_finished()
    except UnsafeXml as error:
        yield unsafe_reject(source, error)
        return
    except MalformedXml as error:
        reading.break_off()
        yield from reading.take_finished()
        yield malformed_reject(source, error, reading.whole_until)
        return
    reading.finish()
    yield from reading.take_finished()


@dataclass(frozen=True)
class _OpenRecord:
    """A division of an Old Bailey paper that is being read."""

    facts: OldBaileyRecord
    start: int  # in characters
    outer: BlockBuilder  # of the text around it


class _Reading:
    """One file on its way through: takes the events of the walk and collects finished documents."""

    def __init__(self, source: Source, settings: ReadSettings) -> None:
        self.settings = settings
        self.data = xml_bytes(source.text)
        self.whole_until = 0  # characters up to the last block or record that was read whole
        self._places = Places(source.text, self.data)
        self._source = source
        self._finished: list[Extracted | Reject] = []
        self._builder = BlockBuilder(close_up_points=source.metadata.get("profile") == LONDON_LIVES)
        self._header = TeiHeader()
        self._paper: OldBaileyRecord | None = None
        self._records: list[_OpenRecord] = []  # now and then a trial stands inside another division
        self._open: list[tuple[str, str]] = []  # name and action of every open element
        self._dropped = 0  # open elements from the outermost dropped one on
        self._held = 0  # open elements that hold running text
        self._grouped = 0
        self._after_label = False
        self._in_header = False
        self._note: list[str] | None = None
        self._notes: list[tuple[int, str]] = []
        self._unknown: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._annotated = frozenset(settings.annotated)
        self._open_annotations: list[tuple[int, dict[str, Any]]] = []  # with the number of open elements around each
        self._annotations: list[dict[str, Any]] = []

    # --- what the walk calls -------------------------------------------------------------------------------------------

    def start(self, name: str, attributes: dict[str, str], place: int) -> None:
        """Open an element."""
        name = self._names.get(name) or self._names.setdefault(name, name.rpartition(":")[2].lower())
        if self._dropped:
            self._start_dropped(name, attributes)
            return
        action = self._action(name, attributes)
        self._open.append((name, action))
        if name in HOLDERS:
            self._held += 1
        if name in self._annotated:
            found = {"kind": name, "start": self._places.character_at(place), "attributes": dict(attributes)}
            self._open_annotations.append((len(self._open), found))
        if action != "inline":
            self._act(action, name, attributes, place)

    def end(self, name: str, place: int) -> None:
        """Close an element."""
        if self._dropped:
            self._dropped -= 1
            if self._in_header:
                self._header.end()
            if not self._dropped:
                self._end_dropped()
            return
        if self._open_annotations and self._open_annotations[-1][0] == len(self._open):
            self._annotate(place)
        name, action = self._open.pop()
        if name in HOLDERS:
            self._held -= 1
        if action in ("block", "group", "record"):
            self._grouped -= action == "group"
            self._border(place)
        elif action == "line":
            self._end_line(name)
        elif action in ("space", "padded"):
            self._builder.space()
        if action == "record":
            self._end_record(place)

    def text(self, text: str) -> None:
        """Take character data."""
        if not self._dropped:
            self._builder.add(text)
        elif self._in_header:
            self._header.text(text)
        elif self._note is not None:
            self._note.append(text)

    def entity(self, name: str) -> None:
        """Take an entity the file uses without declaring it: a named character, or else something that is lost."""
        character = html5.get(f"{name};")
        if character is None and not self._dropped:
            self._unknown[name] = self._unknown.get(name, 0) + 1
        self.text(character or self.settings.gap_mark)

    # --- what the reader calls -----------------------------------------------------------------------------------------

    def take_finished(self) -> Iterator[Extracted | Reject]:
        """Yield the documents finished since the last call."""
        finished, self._finished = self._finished, []
        yield from finished

    def finish(self) -> None:
        """Close the last block and the document of the whole file."""
        self._border(len(self.data))
        self._finish_file()

    def break_off(self) -> None:
        """Finish with what is whole: an open record is not, nor is an open block."""
        if not self._records:
            self._finish_file()

    # --- elements ------------------------------------------------------------------------------------------------------

    def _action(self, name: str, attributes: dict[str, str]) -> str:
        """Return what an element does to the text where it stands."""
        if name in ("div0", "div1"):
            return self._division(name, attributes)
        if name == "lb" and attributes.get("break") == "no":
            return "join"
        action = ACTION_OF.get(name, "inline")
        if action == "reading":
            return "drop" if self._open and self._open[-1][0] == "choice" else "inline"
        if action == "placed":
            return "padded" if self._held else "line" if self._grouped else "block"
        if self._grouped:
            return "line" if name in LINES_IN_GROUPS else action
        return "inline" if name == "label" else action

    def _division(self, name: str, attributes: dict[str, str]) -> str:
        """Return what a division does: in an Old Bailey paper some are records, others are left out."""
        kind = attributes.get("type", attributes.get("TYPE", ""))
        if name == "div0" and kind in OLD_BAILEY:
            self._paper = OldBaileyRecord(attributes.get("id", ""), kind)
            self._builder = BlockBuilder(self._builder.blocks, close_up_points=True)
        elif name == "div1" and self._paper is not None and self._paper.kind == "sessionsPaper":
            if kind in self.settings.old_bailey_records or not self._records:
                return "record"
            return "padded"  # one that begins in the middle of another's sentence
        return "block"

    def _act(self, action: str, name: str, attributes: dict[str, str], place: int) -> None:
        if action in ("block", "group"):
            self._border(place)
            self._grouped += action == "group"
        elif action == "line":
            self._start_line(name)
        elif action in ("space", "padded"):
            self._builder.space()
        elif (action == "glyph" and attributes.get("ref") in JOINING_GLYPHS) or action == "join":
            self._builder.add("\u00ad")
        elif action == "record":
            self._start_record(attributes, place)
        elif action in ("drop", "header", "note", "gap"):
            self._start_drop(action, name, attributes, place)

    def _start_drop(self, action: str, name: str, attributes: dict[str, str], place: int) -> None:
        self._open.pop()
        if name in HOLDERS:
            self._held -= 1
        self._dropped = 1
        if action == "gap" and (attributes.get("reason") or attributes.get("DESC")) not in NOTHING_LOST:
            self._builder.add(self.settings.gap_mark)
        elif action == "note":
            self._note = []
            self._note_place = self._places.character_at(place)
        elif action == "header":
            self._in_header = True
        elif name == "interp":
            self._interpret(attributes)

    def _start_dropped(self, name: str, attributes: dict[str, str]) -> None:
        self._dropped += 1
        if self._in_header:
            self._header.start(name)
        elif self._note is not None:
            joins = name == "g" and attributes.get("ref") in JOINING_GLYPHS
            self._note.append("\u00ad" if joins else "" if ACTION_OF.get(name, "inline") == "inline" else " ")

    def _end_dropped(self) -> None:
        self._in_header = False
        if self._note is None:
            return
        note = BlockBuilder()
        note.add("".join(self._note))
        block = note.border(0)
        if block is not None:
            self._notes.append((self._note_place, block.text))
        self._note = None

    def _start_line(self, name: str) -> None:
        if self._after_label and name == "item":
            self._builder.space()
        elif not self._builder.at_line_start():
            self._builder.line()
        self._after_label = False

    def _end_line(self, name: str) -> None:
        self._after_label = name == "label"
        if not self._after_label:
            self._builder.line()

    def _annotate(self, place: int) -> None:
        """Close an annotation: its range in the source, and its words without tags."""
        _, found = self._open_annotations.pop()
        found["end"] = self._places.character_at(place)
        inner = self._source.text.find(">", found["start"], found["end"]) + 1
        found["text"] = " ".join(TAGS.sub("", self._source.text[inner : found["end"]]).split())
        self._annotations.append(found)

    def _border(self, place: int) -> None:
        at = self._places.character_at(place)
        if self._builder.border(at) is not None and not self._records:
            self.whole_until = at

    # --- documents -----------------------------------------------------------------------------------------------------

    def _start_record(self, attributes: dict[str, str], place: int) -> None:
        if not self._records:
            self._border(place)
        start = self._places.character_at(place)
        facts = OldBaileyRecord(attributes.get("id", "") or f"at-{start}", attributes.get("type", ""))
        self._records.append(_OpenRecord(facts, start, self._builder))
        self._builder = BlockBuilder(close_up_points=True)
        self._border(place)

    def _end_record(self, place: int) -> None:
        opened = self._records.pop()
        end = self._places.character_at(place)
        if opened.facts.kind in self.settings.old_bailey_records:
            self._finished.append(self._record_document(opened.facts))
        else:
            self._finished.append(self._left_out(opened, end))
        self._builder = opened.outer
        if self._records:
            self._builder.space()
        else:
            self._border(place)
            self.whole_until = end

    def _record_document(self, record: OldBaileyRecord) -> Extracted:
        assert self._paper is not None
        return Extracted(
            blocks=tuple(self._builder.blocks),
            title=record.title(),
            year=record.year() or self._paper.year(),
            record=record.id,
            group=f"old-bailey:{self._paper.id}",
            metadata={**record.metadata(), "session": self._paper.id, **self._asides()},
        )

    def _left_out(self, opened: "_OpenRecord", end: int) -> Reject:
        kinds = ", ".join(self.settings.old_bailey_records)
        reason = f"a division of type '{opened.facts.kind}'; documents are made of {kinds}"
        origin = replace(self._source.origin, record=opened.facts.id)
        text = self._source.text[opened.start : end]
        self._asides()
        return Reject(origin, STEP, "source_surplus", reason, text, opened.start, end)

    def _interpret(self, attributes: dict[str, str]) -> None:
        record = self._records[-1].facts if self._records else self._paper
        if record is not None:
            record.interpret(attributes.get("inst", ""), attributes.get("type", ""), attributes.get("value", ""))

    def _finish_file(self) -> None:
        """Finish the text outside records: all of it in most files."""
        metadata: dict[str, Any] = {**self._asides(), **self._header.metadata()}
        paper = self._paper
        year = self._header.year()
        if paper is not None:
            metadata = {**metadata, **paper.metadata()}
            year = paper.year()
        self._finished.append(
            Extracted(
                blocks=tuple(self._builder.blocks),
                title=self._header.title_text(),
                year=year,
                record=paper.id if paper is not None else "",
                group=f"old-bailey:{paper.id}" if paper is not None else "",
                metadata=metadata,
            )
        )

    def _asides(self) -> dict[str, Any]:
        asides: dict[str, Any] = {}
        if self._notes:
            asides["notes"] = [list(note) for note in self._notes]
        if self._unknown:
            asides["unknown_entities"] = dict(self._unknown)
        if self._annotations:
            asides["annotations"] = self._annotations
        self._notes, self._unknown, self._annotations = [], {}, []
        return asides
