"""Two texts to the lines in which they differ: short, in unified form, and never more than a reader looks at.

Texts are compared by clauses, not by lines: a paragraph whose line ends were joined differs only where the ends were. A line end
inside a clause shows as ↵.
"""

import difflib
import re
from dataclasses import dataclass
from itertools import takewhile

CLAUSE = re.compile(r"[^.,;:!?\n]{0,160}(?:[.,;:!?]+[\"'”’)\]]*\s*|\n+|$)|[^.,;:!?\n]{160}")
COMPARED_CLAUSES = 4_000  # on each side, from the first that differs: comparing takes time with the square of them
SHOWN_LINES = 40
SHOWN_AS = {"\n": "↵", "\r": "\\r", "\f": "\\f", "\x00": "\\0", "\u00ad": "‹soft hyphen›", "\ufeff": "‹BOM›"}
SHOWN_CHARACTERS = 200  # of one line


@dataclass(frozen=True, slots=True)
class Differences:
    """Lines that begin with `-` (before), `+` (after), a space (both) or `@@` (a place); `left_out` more are not shown."""

    lines: tuple[str, ...] = ()
    left_out: int = 0


NO_DIFFERENCES = Differences()


def differences(before: str, after: str, shown_lines: int = SHOWN_LINES) -> Differences:
    """Return where two texts differ. Only the first few thousand clauses from the first difference on are compared."""
    if before == after:
        return NO_DIFFERENCES
    old, new = clauses(before), clauses(after)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    start = max(same - 1, 0)
    end = start + COMPARED_CLAUSES
    found = [_line(line) for line in difflib.unified_diff(old[start:end], new[start:end], lineterm="", n=1)][2:]
    found = [line if not line.startswith("@@") else "@@" for line in found]
    not_compared = max(len(old) - end, 0) + max(len(new) - end, 0)
    return Differences(tuple(found[:shown_lines]), max(len(found) - shown_lines, 0) + not_compared)


def clauses(text: str) -> list[str]:
    """Return a text in pieces that end with a mark of punctuation, a line, or 160 characters; together they are the text."""
    return [clause for clause in CLAUSE.findall(text) if clause]


def _line(line: str) -> str:
    shown = "".join(SHOWN_AS.get(letter, letter) for letter in line)
    return shown if len(shown) <= SHOWN_CHARACTERS else shown[: SHOWN_CHARACTERS - 1] + "…"
