"""Documents into segments: whole paragraphs packed up to a size, longer ones cut where a sentence ends.

The pieces that stay, the pieces that are too short and the separators between them cover the document exactly, once. With an
overlap a segment also begins with the last sentences of the one before; its range then begins before that one's end.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from caslon.corpus.document import BLOCK_SEPARATOR, Document, Reject
from caslon.corpus.settings import SegmentSettings
from caslon.corpus.shards import Segment

# Words after which a full stop ends no sentence, of today and of the sixteenth to nineteenth century.
ABBREVIATION_LIST = """
    mr mrs messrs dr st sr jr rev revd hon honble esq esqr gent bart kt knt capt col lieut lt gen serj sergt maj
    prof treas gov jan feb apr aug sept sep oct nov dec tues wed thurs
    vol vols nos num numb pp pag fol cap chap sect ver vers viz vid ibid id ib sc scil i.e e.g
    lb lbs oz cwt qr qrs yd yds tho thos jno jas geo chas robt saml benj edw hen jos nath rich ric
    matt eliz marg abp bp archbp ld lds ldp maj majty maties wch wth yt yr yor honr honrs worpps
    &c etc cf eg ie a.d b.c n.b corp inc ltd dept univ figs eds
"""
ABBREVIATIONS = frozenset(ABBREVIATION_LIST.split())
NUMBERED = frozenset(
    ("no", "p", "ch", "sec", "par", "art", "fig", "cap", "ver", "chap", "vol", "nos", "pp")
)  # "No. 31"
SHORT_FORM = re.compile(r"[A-HJ-Za-hj-z]|[IVXLC]+|\d+[lsd]|[lsd]")  # an initial, a numeral, money
SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]]*(\s+)""")
LAST_WORD = re.compile(r"\S+$")
FIRST_CHARACTER = re.compile(r"\S")
CLAUSE_END = re.compile(r"[;:,—–][\"'”’)\]]*\s+")
SPACE = re.compile(r"\s+")
NEWLINES = re.compile(r"\n+")
CUT_LOOK_BACK = 400
LOOK_BACK = 24  # characters before a full stop that may be an abbreviation


@dataclass(frozen=True, slots=True)
class Piece:
    """A half-open range of the document's text."""

    start: int
    end: int

    @property
    def characters(self) -> int:
        """The length of the piece."""
        return self.end - self.start


def sentence_ends(text: str, start: int = 0, end: int | None = None) -> Iterator[int]:
    """Yield the places in `text[start:end]` where a sentence has ended and white space begins."""
    stop = len(text) if end is None else end
    for match in SENTENCE_END.finditer(text, start, stop):
        if _is_sentence_end(text, match.start(), match.end()):
            yield match.start(1)


def _is_sentence_end(text: str, mark: int, after: int) -> bool:
    found = FIRST_CHARACTER.search(text, after)
    following = found.group() if found else ""
    if following.islower() or text[mark] != ".":
        return not following.islower()
    before = LAST_WORD.search(text[max(0, mark - LOOK_BACK) : mark])
    word = before.group().strip("([\"'“‘—-") if before else ""
    if word.lower() in NUMBERED and following.isdigit():
        return False
    return word.lower() not in ABBREVIATIONS and not SHORT_FORM.fullmatch(word)


def cut(text: str, piece: Piece, maximum: int, *, code: bool = False) -> list[Piece]:
    """Return a piece cut into parts of at most `maximum` characters.

    Prose is cut at a sentence, else a clause, else a space, else hard; code at an empty line, else a line, so that the
    indentation of what follows stays whole.
    """
    parts: list[Piece] = []
    start = piece.start
    while piece.end - start > maximum:
        place = _line_place(text, start, start + maximum) if code else None
        if place is None:
            place = _cut_place(text, start, start + maximum)
            start_of_next = place + _spaces_at(text, place, piece.end)
        else:
            start_of_next = place + _newlines_at(text, place, piece.end)
        parts.append(Piece(start, place))
        start = start_of_next
    if start < piece.end:
        parts.append(Piece(start, piece.end))
    return parts


def _cut_place(text: str, start: int, limit: int) -> int:
    """Return the last good place after `start` and at or before `limit`."""
    for low in (max(start, limit - CUT_LOOK_BACK), start):  # the last end mostly stands near
        places = list(sentence_ends(text, low, limit + 1))
        if places:
            return places[-1]
    for pattern in (CLAUSE_END, SPACE):
        found = list(pattern.finditer(text, start + 1, limit + 1))
        if found:
            return found[-1].start() + len(found[-1].group().rstrip())
    return limit


def _line_place(text: str, start: int, limit: int) -> int | None:
    for separator in ("\n\n", "\n"):
        place = text.rfind(separator, start + 1, limit + len(separator))
        if place > start and (separator == "\n" or place - start > (limit - start) // 2):
            return place
    return None


def _newlines_at(text: str, place: int, end: int) -> int:
    match = NEWLINES.match(text, place, end)
    return len(match.group()) if match else 0


def _spaces_at(text: str, place: int, end: int) -> int:
    match = SPACE.match(text, place, end)
    return len(match.group()) if match else 0


def pieces_of(document: Document, settings: SegmentSettings) -> list[Piece]:
    """Return the document's pieces in order, those under the minimum included; none overlap, but there is room for it."""
    text = document.text
    if settings.unit == "document":
        return [Piece(0, len(text))] if text else []
    maximum = settings.maximum_characters - settings.overlap_characters
    settings = settings.model_copy(update={"maximum_characters": maximum, "overlap_characters": 0})
    packed: list[Piece] = []
    for part in _parts(document, text, maximum):
        last = packed[-1] if packed else None
        if last and part.end - last.start <= maximum:
            packed[-1] = Piece(last.start, part.end)
        else:
            packed.append(part)
    return _join_short(text, packed, settings, code=document.tier == "code")


def _parts(document: Document, text: str, maximum: int) -> Iterator[Piece]:
    position = 0
    for block in document.blocks:
        block_piece = Piece(position, position + len(block.text))
        position = block_piece.end + len(BLOCK_SEPARATOR)
        if block_piece.characters:
            yield from cut(text, block_piece, maximum, code=document.tier == "code")


def _join_short(text: str, pieces: list[Piece], settings: SegmentSettings, *, code: bool) -> list[Piece]:
    """Give a short piece to a neighbour where both fit, else move the border so that both are long enough."""
    minimum, maximum = settings.minimum_characters, settings.maximum_characters
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is None or min(piece.characters, last.characters) >= minimum:
            joined.append(piece)
        elif piece.end - last.start <= maximum:
            joined[-1] = Piece(last.start, piece.end)
        elif border := _shared_border(text, last, piece, settings, code=code):
            joined[-1:] = border
        else:
            joined.append(piece)
    return joined


def _shared_border(
    text: str, first: Piece, second: Piece, settings: SegmentSettings, *, code: bool
) -> list[Piece] | None:
    """Return both pieces with the border at a sentence's (in code a line's) end that leaves the minimum on both sides."""
    minimum, maximum = settings.minimum_characters, settings.maximum_characters
    low, high = first.start + minimum, min(first.start + maximum, second.end - minimum)
    start = max(low - 1, second.end - maximum - 1)
    places = (
        (match.start() for match in NEWLINES.finditer(text, start, high)) if code else sentence_ends(text, start, high)
    )
    skip = _newlines_at if code else _spaces_at
    for place in places:
        rest = Piece(place + skip(text, place, second.end), second.end)
        if place >= low and minimum <= rest.characters <= maximum:
            return [Piece(first.start, place), rest]
    return None


def segments_of(document: Document, settings: SegmentSettings) -> Iterator[Segment | Reject]:
    """Yield the document's segments, and a `short_segment` reject for each piece that stayed under the minimum."""
    text, identifier = document.text, document.id
    locate = _Locator(document)
    kept: Piece | None = None  # the piece before, unless it was too short
    for number, own in enumerate(pieces_of(document, settings)):
        piece = own
        words = text[piece.start : piece.end]
        raw_start, raw_end = locate(piece)
        if piece.characters < settings.minimum_characters and settings.unit == "packed":
            yield Reject(
                document.origin,
                "segments",
                "short_segment",
                f"{piece.characters} characters of the document's text from {piece.start}, fewer than "
                f"{settings.minimum_characters}, and no neighbour has room",
                words,
                raw_start,
                raw_end,
                {"document_id": identifier, "start": piece.start, "end": piece.end},
            )
            kept = None
            continue
        if kept and settings.overlap_characters and settings.unit == "packed":
            low = max(kept.start, own.start - settings.overlap_characters)
            piece = Piece(_overlap_start(text, low, kept, own, code=document.tier == "code"), own.end)
            words, (raw_start, raw_end) = text[piece.start : piece.end], locate(piece)
        kept = own
        yield Segment(
            id=f"{identifier}-{number:05d}",
            text=words,
            document_id=identifier,
            start=piece.start,
            end=piece.end,
            raw_start=raw_start,
            raw_end=raw_end,
            origin=document.origin,
            title=document.title,
            year=document.year,
            tier=document.tier,
            licence=document.licence,
        )


def _overlap_start(text: str, low: int, before: Piece, piece: Piece, *, code: bool) -> int:
    """Return the first start of a sentence (in code of a line) at or after `low`; where there is none, the piece's own."""
    if low == before.start:
        return low
    places = (match.start() for match in NEWLINES.finditer(text, low, before.end)) if code else sentence_ends(text, low)
    skip = _newlines_at if code else _spaces_at
    place = next(iter(places), piece.start)
    return min(place + skip(text, place, piece.start), piece.start)


class _Locator:
    """Finds the raw range of a piece: from the first to the last block it touches."""

    def __init__(self, document: Document) -> None:
        self._blocks = document.blocks
        self._starts: list[int] = []
        position = 0
        for block in document.blocks:
            self._starts.append(position)
            position += len(block.text) + len(BLOCK_SEPARATOR)

    def __call__(self, piece: Piece) -> tuple[int, int]:
        first = max(bisect_right(self._starts, piece.start) - 1, 0)
        last = max(bisect_right(self._starts, max(piece.end - 1, piece.start)) - 1, 0)
        touched = self._blocks[first : last + 1]
        start, end = min(block.start for block in touched), max(block.end for block in touched)
        if first == last and end - start == len(touched[0].text):  # the block is a plain copy: the range is exact
            offset = piece.start - self._starts[first]
            return start + offset, start + offset + piece.characters
        return start, end
