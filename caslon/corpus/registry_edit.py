"""Changing a registry file: turns a wish (add, enable, disable) into a change that can be shown first and written whole.

Only the entries concerned get new text; what people wrote around them stays as it is.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from caslon.corpus.licences import licence_of
from caslon.corpus.registry import LONDON_REGISTRY, inventory_rows
from caslon.corpus.registry_check import FIELDS, Finding, Listing, Period, canonical_address, check, listing
from caslon.errors import UserError
from caslon.folders import write_atomic
from caslon.settings import nearest

EMPTY = '{\n  "sources": []\n}\n'


@dataclass(frozen=True)
class Change:
    """A registry file as it is and as it would be."""

    path: Path
    before: str
    after: str
    ids: tuple[str, ...]  # of the entries concerned
    warnings: tuple[Finding, ...] = ()

    @property
    def difference(self) -> str:
        """The change as a unified diff; empty when nothing changes."""
        name = self.path.name
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True), self.after.splitlines(keepends=True), f"a/{name}", f"b/{name}", n=1
        )
        return "".join(lines)

    def write(self) -> None:
        """Write the file, whole or not at all; `UserError` when somebody else changed it meanwhile."""
        if _text_of(self.path) != self.before:
            raise UserError("the registry was changed meanwhile", where=str(self.path), fix="run the command again")
        write_atomic(self.path, self.after)


def added(path: Path, row: Mapping[str, Any], *, period: Period | None = None) -> Change:
    """Return the change that appends an entry; a file that does not exist begins empty.

    A licence that does not tell what is allowed makes it a disabled one. Raises `UserError` for every mistake in the entry,
    and when its id or canonical address is there already.
    """
    licence = str(row.get("licence", ""))
    if row.get("enabled", True) and licence and licence_of(licence).vague:
        row = {**row, "enabled": False, "disabled_reason": f"the licence '{licence}' does not tell what is allowed"}
    before = _text_of(path)
    found = _editable(path, before or EMPTY)
    _refuse_repeats(found, row)
    text = found.text
    entry = entry_text(row, indent=4)
    if found.rows:
        end = found.rows[-1].end
        after = f"{text[:end]},\n{entry}{text[end:]}"
    else:
        after = f"{text[: found.list_start]}\n{entry}\n  {text[found.list_end :]}"
    return Change(path, before, after, (str(row.get("id")),), _checked(path, after, row, period))


def switched(path: Path, globs: Sequence[str], *, enabled: bool, reason: str = "") -> Change:
    """Return the change that enables or disables the entries whose id matches a glob, `reason` saying why one is disabled.

    Raises `UserError` when a glob fits no entry, or when an entry to be enabled may not be used.
    """
    before = _text_of(path)
    if not before:
        raise UserError("the registry does not exist", where=str(path))
    found = _editable(path, before)
    _checked(path, before, None, None)
    chosen = _chosen(found, globs)
    after = before
    for row in reversed([row for row in found.rows if row.value["id"] in chosen]):
        if row.value.get("enabled", True) != enabled or (reason and row.value.get("disabled_reason") != reason):
            value = _switched_row(path, row.value, enabled, reason)
            column = row.start - before.rfind("\n", 0, row.start) - 1
            text = entry_text(value, indent=column).lstrip()
            after = after[: row.start] + text + after[row.end :]
    return Change(path, before, after, tuple(chosen))


def entry_text(row: Mapping[str, Any], *, indent: int = 0) -> str:
    """Return an entry as it stands in a registry: one field a line, in the order of the fields' list."""
    margin = " " * indent
    order = [name for name in FIELDS if name in row] + [name for name in row if name not in FIELDS]
    lines = [f"{margin}  {json.dumps(name)}: {json.dumps(row[name], ensure_ascii=False)}" for name in order]
    return f"{margin}{{\n" + ",\n".join(lines) + f"\n{margin}}}"


def _switched_row(path: Path, row: Mapping[str, Any], enabled: bool, reason: str) -> Mapping[str, Any]:
    if not enabled:
        return {**row, "enabled": False, **({"disabled_reason": reason} if reason else {})}
    licence = licence_of(row["licence"])
    if licence.vague or row.get("allowed_use", licence.allowed_use) == "none":
        raise UserError(
            f"'{row['id']}' cannot be enabled: its licence is '{row['licence']}'",
            where=str(path),
            fix="write into the registry what its licence really allows",
        )
    return {name: value for name, value in {**row, "enabled": True}.items() if name != "disabled_reason"}


def _chosen(found: Listing, globs: Sequence[str]) -> list[str]:
    ids = [row.value["id"] for row in found.rows]
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in ids):
            guess = nearest(glob, ids)
            raise UserError(
                f"no source has an id like '{glob}'",
                where=str(found.path),
                fix=f"did you mean '{guess}'?" if guess else "caslon corpus sources list shows all",
            )
    return [name for name in ids if any(fnmatchcase(name, glob) for glob in globs)]


def _refuse_repeats(found: Listing, row: Mapping[str, Any]) -> None:
    address = canonical_address(row)
    for other in found.rows:
        if not isinstance(other.value, dict):
            continue
        place = f"{found.path}:{other.line}"
        if other.value.get("id") == row.get("id"):
            raise UserError(f"a source with the id '{row.get('id')}' is there already", where=place)
        if canonical_address(other.value) == address:
            raise UserError(
                f"the source '{other.value.get('id')}' leads to the same place: {address}",
                where=place,
                fix="change that entry instead",
            )


def _checked(path: Path, text: str, row: Mapping[str, Any] | None, period: Period | None) -> tuple[Finding, ...]:
    """Return the warnings about `row` in the changed text; `UserError` with all errors."""
    findings = check(listing(path, text), period=period)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise UserError("the registry would have mistakes:\n" + "\n".join(map(str, errors)), where=str(path))
    return tuple(finding for finding in findings if row is not None and finding.entry == f"'{row['id']}'")


def _editable(path: Path, text: str) -> Listing:
    if path.resolve() == LONDON_REGISTRY.resolve():
        raise UserError(
            "the registry that ships with caslon is not changed",
            where=str(path),
            fix='switch sources on in the recipe (corpus.enable = ["old-bailey-*"]), or copy the file and change the copy',
        )
    if inventory_rows(path, text) is not None:
        raise UserError("this file is an inventory of archives, which lists files and not sources", where=str(path))
    return listing(path, text)


def _text_of(path: Path) -> str:
    """Return the file's text, empty when there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the registry cannot be read: {error}", where=str(path)) from error
