"""What Project Gutenberg put around a book: finds header, small print, credits and licence in all their historic spellings.

A text without markers is left whole. The etexts of 1991-2003 end their header with the small print, later ones with
`*** START OF THIS PROJECT GUTENBERG EBOOK ... ***`; some carry the licence again at the end.
"""

import re

NAME = r"(?:the\s+|this\s+|a\s+)?project\s+gutenberg"
START = re.compile(
    rf"(?:^|>)[ \t]*\*{{1,3}}[ \t]*start\s+of\s+{NAME}[^\n*]*(?:\n[^\n*]+){{0,3}}(?:\*+|$)"
    r"|^[ \t]*\*?end\*?[ \t]*\*?the small print!?[^\n]*$"
    r"|^[ \t]*\*+[ \t]*end[ \t]*\*?[ \t]*the small print[^\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
END = re.compile(
    rf"(?:^|>)[ \t]*\*{{0,3}}[ \t]*end\s+of\s+(?:this\s+|the\s+)?(?:{NAME})\b"
    r"|^[ \t]*\*{3}[ \t]*start:?[ \t]+full[ \t]+licen[sc]e"
    r"|^[ \t]*the full project gutenberg licen[sc]e[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
CREDIT = re.compile(
    r"\W*(?:produced by|e-?text (?:was )?(?:prepared|produced|scanned)"
    r"|this (?:e-?text|e-?book|etext|file) was (?:prepared|produced|first)"
    r"|transcribed (?:from|by)|scanned (?:and|by)|(?:prepared|digitized|proofed|html version|updated) by|transcriber'?s? note"
    r"|(?:the )?project gutenberg|note: project gutenberg|character set encoding|updated editions will)",
    re.IGNORECASE,
)
FIELD = re.compile(r"^(Title|Author|Release Date|Language):[ \t]*(\S[^\r\n]*)", re.MULTILINE)
MENTION = re.compile(r"project\s+gutenberg|small print", re.IGNORECASE)


def body_range(text: str) -> tuple[int, int]:
    """Return the range of the book itself; the whole text when there are no markers."""
    if not MENTION.search(text):
        return 0, len(text)
    ends = [match.start() for match in END.finditer(text)]
    starts = [match.end() for match in START.finditer(text)]
    if not starts:
        return 0, _real_end(text, ends)
    end = next((place for place in ends if place > starts[0]), len(text))
    start = max((place for place in starts if place <= end), default=starts[0])
    return start, end


def _real_end(text: str, ends: list[int]) -> int:
    """Without a start marker, only an end marker in the last part of a text, or a licence at its top, is believed."""
    believed = [place for place in ends if place > 0.3 * len(text) or not text[:place].strip(" \t\r\n*")]
    return min(believed, default=len(text))


def is_credit(paragraph: str) -> bool:
    """Return whether a paragraph right after the header names the people who made the electronic text."""
    return len(paragraph) < 1_000 and CREDIT.match(paragraph) is not None


def header_fields(text: str, start: int) -> dict[str, str]:
    """Return the title and author that the header before `start` states."""
    return {name.lower(): value.strip() for name, value in FIELD.findall(text[:start])}
