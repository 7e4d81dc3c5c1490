"""Normalisation: turns the text of a document into clean Unicode without changing its words.

Order: line ends, mojibake (only where errors become fewer), control characters, NFC, hyphens that only a line's end put there,
the long s, spaces, over-long lines. Applying it twice changes nothing more. Code keeps every byte but line ends, NUL and the
byte order mark. What was changed is counted in `metadata["repairs"]`; blocks keep their ranges in the raw text, and edit_map.py
gives the exact changes between both whenever somebody asks. Most blocks of clean prose are plain: one look tells so.
"""

import re
import unicodedata
from collections import Counter
from dataclasses import replace
from typing import Literal

from caslon.corpus.document import Document
from caslon.corpus.lexicon import Lexicon
from caslon.corpus.segments import Piece, cut

LongS = Literal["modern", "keep"]
MAX_LINE_CHARACTERS = 2_000
MAX_PASSES = 8
INDENTED_TYPES = ("python", "markdown")  # whose prose holds examples in which indentation has a meaning

LINE_ENDS = re.compile(r"[\r\x0b\x0c\u2028\u2029](?:(?<=\r)\n)?")  # begins with a set, so that the search can leap
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\u200b\u2060\ufffe\uffff]")
CODE_LINE_ENDS = re.compile(r"\r\n?")
CODE_CONTROLS = re.compile(r"[\x00\ufeff]")
JOINED = re.compile(r"(?<=\w)[\u00ad∣]\s*(?=\w)|(?<=[a-z])¬\n\s*(?=[a-z])")
CUT_WORD = re.compile(r"(?<![\w'’])([^\W\d_]+)-\n[ \t]*([^\W\d_]+)(?![\w-])")
HYPHENS = ("\u00ad", "∣", "¬")
SOFT_HYPHENS = re.compile(r"\u00ad")
SPACES = re.compile(r"[ \t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
WIDE_SPACES = re.compile(r"[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
BREAKS = re.compile(r"\n{3,}")
LONG_S = str.maketrans(
    {"ſ": "s", "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
)  # not the ligatures ae and oe, which are spelling
LONG_S_LETTERS = re.compile("[ſﬀﬁﬂﬃﬄﬅﬆ]")
# Characters that no step changes where they stand alone: printable ASCII, letters of Latin-1, common punctuation.
UNUSUAL = re.compile("[^\n -~À-ÖØ-öø-ÿœŒ—–‘’“”…£§°½¼¾†‡•]")
# In every match of ftfy's badness stands a C1 control character, a ligature œ before no letter, Ã or Â before a space, or two
# characters beyond ASCII that are not both quotes, dashes and ellipses. Looking for that is a hundred times as fast.
MAY_BE_MOJIBAKE = re.compile(
    "[\x80-\x9f]|[Œœ](?![A-Za-z])|[ÃÂ] |[^\x00-\x7f—–‘’“”…][^\x00-\x7f]|[^\x00-\x7f][^\x00-\x7f—–‘’“”…]"
)
LAYOUT_TO_MEND = ("  ", " \n", "\n ", "\n\n\n", "-\n")


def repair(document: Document, *, long_s: LongS = "keep", lexicon: Lexicon | None = None) -> Document:
    """Return the document with normalised text; blocks that turn out blank are gone.

    `lexicon` tells which words a hyphen at a line's end cut in two; by default it is the one that ships.
    """
    counts: Counter[str] = Counter()
    if document.tier == "code":
        texts = [_code(block.text, counts) for block in document.blocks]
    else:
        indented = document.metadata.get("type") in INDENTED_TYPES
        texts = [_prose(block.text, long_s, indented, lexicon, counts) for block in document.blocks]
    kept = tuple(
        block if text is block.text else replace(block, text=text)
        for block, text in zip(document.blocks, texts, strict=True)
        if text and not text.isspace()
    )
    if not counts:
        return document if len(kept) == len(document.blocks) else replace(document, blocks=kept)
    known = Counter(document.metadata.get("repairs", {}))
    return replace(
        document, blocks=kept, metadata={**document.metadata, "repairs": dict(sorted((known + counts).items()))}
    )


def normalised(text: str, *, long_s: LongS = "keep", indented: bool = False, lexicon: Lexicon | None = None) -> str:
    """Return one block's text as `repair` leaves it."""
    return _prose(text, long_s, indented, lexicon, Counter())


def _code(text: str, counts: Counter[str]) -> str:
    text = _counted(CODE_LINE_ENDS, "\n", text, "line_ends", counts)
    return _counted(CODE_CONTROLS, "", text, "control_characters", counts)


def _prose(text: str, long_s: LongS, indented: bool, lexicon: Lexicon | None, counts: Counter[str]) -> str:
    """Repeat the steps until nothing changes: one may make work for another (a control character inside mojibake)."""
    for _ in range(MAX_PASSES):
        if _is_plain(text):
            break
        before = text
        text = _once(text, long_s, indented, lexicon, counts)
        if text == before:
            break
    return text


def _is_plain(text: str) -> bool:
    """Return whether no step would change the text; False where that takes a longer look."""
    if UNUSUAL.search(text) or text[:1].isspace() or text[-1:].isspace():
        return False
    if any(map(text.__contains__, LAYOUT_TO_MEND)):
        return False
    if len(text) > MAX_LINE_CHARACTERS and max(map(len, text.split("\n"))) > MAX_LINE_CHARACTERS:
        return False
    return text.isascii() or not MAY_BE_MOJIBAKE.search(text)


def _once(text: str, long_s: LongS, indented: bool, lexicon: Lexicon | None, counts: Counter[str]) -> str:
    text = _counted(LINE_ENDS, "\n", text, "line_ends", counts)
    if not text.isascii() and MAY_BE_MOJIBAKE.search(text):
        text = _unmangled(text, counts)
    text = _counted(CONTROLS, "", text, "control_characters", counts)
    if not text.isascii():
        text = _letters(text, long_s, counts)
    if "-\n" in text:
        text = _joined_at_line_ends(text, lexicon or Lexicon.shipped(), counts)
    text = _spaced(text, indented, counts)
    if len(text) > MAX_LINE_CHARACTERS:
        text = "\n".join(_short_lines(line, counts) for line in text.split("\n"))
    return text


def _joined_at_line_ends(text: str, lexicon: Lexicon, counts: Counter[str]) -> str:
    """Join `other-` and `wise` over a line's end where the list knows the word without its hyphen only."""

    def whole(match: re.Match[str]) -> str:
        left, right = (part.translate(LONG_S).lower() for part in match.groups())
        one_case = match[2].islower() or match[0].replace("-\n", "").isupper()
        if not one_case or left + right not in lexicon or f"{left}-{right}" in lexicon:
            return match.group()
        counts["joined_words"] += 1
        return match[1] + match[2]

    return CUT_WORD.sub(whole, text)


def _counted(pattern: re.Pattern[str], replacement: str, text: str, name: str, counts: Counter[str]) -> str:
    changed, number = pattern.subn(replacement, text)
    if number:
        counts[name] += number
    return changed


def _unmangled(text: str, counts: Counter[str]) -> str:
    """Undo text that was decoded with the wrong encoding, line by line, where that leaves fewer signs of it."""
    from ftfy import fix_encoding
    from ftfy.badness import badness

    lines = text.split("\n")
    for number, line in enumerate(lines):
        bad = badness(line) if not line.isascii() and MAY_BE_MOJIBAKE.search(line) else 0
        if bad:
            fixed = fix_encoding(line)
            if fixed != line and badness(fixed) < bad:
                lines[number] = fixed
                counts["mojibake_lines"] += 1
    return "\n".join(lines)


def _letters(text: str, long_s: LongS, counts: Counter[str]) -> str:
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        counts["composed_blocks"] += 1
    if any(map(text.__contains__, HYPHENS)):
        text = _counted(JOINED, "", text, "joined_words", counts)
        text = _counted(SOFT_HYPHENS, "", text, "soft_hyphens", counts)
    if long_s == "modern":
        found = len(LONG_S_LETTERS.findall(text))
        if found:
            counts["long_s"] += found
            text = text.translate(LONG_S)
    return text


def _spaced(text: str, indented: bool, counts: Counter[str]) -> str:
    before = text
    lines = text.split("\n")
    if "  " in text or WIDE_SPACES.search(text):
        lines = [_spaced_line(line, indented) for line in lines]
    lines = [line.rstrip() if indented else line.strip() for line in lines]
    text = BREAKS.sub("\n\n", "\n".join(lines)).strip("\n")
    if text != before:
        counts["spaced_blocks"] += 1
    return text


def _spaced_line(line: str, indented: bool) -> str:
    if not indented:
        return SPACES.sub(" ", line)
    body = line.lstrip()
    indent = line[: len(line) - len(body)].expandtabs()
    return " " * len(indent) + (body if ">>>" in body or indent else SPACES.sub(" ", body))


def _short_lines(line: str, counts: Counter[str]) -> str:
    if len(line) <= MAX_LINE_CHARACTERS:
        return line
    pieces = cut(line, Piece(0, len(line)), MAX_LINE_CHARACTERS)
    counts["cut_lines"] += len(pieces) - 1
    counts["hard_cuts"] += sum(not line[piece.start - 1].isspace() for piece in pieces[1:] if piece.start)
    return "\n".join(line[piece.start : piece.end].strip() for piece in pieces)
