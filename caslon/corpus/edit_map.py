"""What changed between two versions of a text: turns both into exact edits, and edits and one version into the other.

Repair stores no copy of what it changed: the raw text stays, so the map is made again whenever somebody asks. Texts are compared
word by word in windows, which takes time in proportion to their length and gives edits that are exact, if not always fewest.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile

TOKEN = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")  # blanks alone are too many to be told apart
WINDOW_TOKENS = 300
SETTLED_TOKENS = 200  # of a window: what lies behind may match better when more is seen


@dataclass(frozen=True, slots=True)
class Edit:
    """A change: where it begins in the text before, what stood there, what stands there now."""

    offset: int
    before: str
    after: str


def edit_map(before: str, after: str) -> tuple[Edit, ...]:
    """Return the edits that lead from one text to the other, in order."""
    if before == after:
        return ()
    return tuple(_joined(_edits(TOKEN.findall(before), TOKEN.findall(after))))


def applied(before: str, edits: Iterable[Edit]) -> str:
    """Return the text after the edits."""
    parts, position = [], 0
    for edit in edits:
        parts += [before[position : edit.offset], edit.after]
        position = edit.offset + len(edit.before)
    return "".join([*parts, before[position:]])


def undone(after: str, edits: Iterable[Edit]) -> str:
    """Return the text before the edits."""
    parts, position, shift = [], 0, 0
    for edit in edits:
        start = edit.offset + shift
        parts += [after[position:start], edit.before]
        position = start + len(edit.after)
        shift += len(edit.after) - len(edit.before)
    return "".join([*parts, after[position:]])


def _edits(old: list[str], new: list[str]) -> Iterator[Edit]:
    """Yield edits, whole tokens each, some of which may touch."""
    at_old = at_new = offset = 0
    while at_old < len(old) or at_new < len(new):
        left, right = old[at_old : at_old + WINDOW_TOKENS], new[at_new : at_new + WINDOW_TOKENS]
        is_last = at_old + WINDOW_TOKENS >= len(old) and at_new + WINDOW_TOKENS >= len(new)
        end_left, end_right = 0, 0
        for start_left, start_right, size in SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks():
            if not size and not is_last:
                break
            if (start_left, start_right) != (end_left, end_right):
                gone, come = "".join(left[end_left:start_left]), "".join(right[end_right:start_right])
                yield Edit(offset, gone, come)
                offset += len(gone)
            offset += sum(map(len, left[start_left : start_left + size]))
            end_left, end_right = start_left + size, start_right + size
            if not is_last and end_left >= SETTLED_TOKENS:
                break
        if not end_left and not end_right:  # nothing of the window is alike
            yield Edit(offset, "".join(left), "".join(right))
            offset += sum(map(len, left))
            end_left, end_right = len(left), len(right)
        at_old, at_new = at_old + end_left, at_new + end_right


def _joined(edits: Iterable[Edit]) -> Iterator[Edit]:
    """Yield the edits with those that touch made one."""
    last: Edit | None = None
    for edit in edits:
        if last and last.offset + len(last.before) == edit.offset:
            last = Edit(last.offset, last.before + edit.before, last.after + edit.after)
            continue
        if last:
            yield _trimmed(last)
        last = edit
    if last:
        yield _trimmed(last)


def _trimmed(edit: Edit) -> Edit:
    """Return the edit without what is alike at both its ends."""
    start = _alike(edit.before, edit.after)
    before, after = edit.before[start:], edit.after[start:]
    end = _alike(before[::-1], after[::-1])
    return Edit(edit.offset + start, before[: len(before) - end], after[: len(after) - end])


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts begin with together."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
