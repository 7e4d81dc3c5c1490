"""Checking a registry: turns its text into findings, all at once, each with file, line, entry and field.

Errors keep a registry from being used. Warnings do not, but a licence that says of itself that it does not tell
("various", "not stated") switches its entry off.
"""

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeGuard
from urllib.parse import parse_qsl, urlencode, urlsplit

from caslon.corpus.licences import licence_of, strictest
from caslon.corpus.registry_entry import (
    ALLOWED_USES,
    COLLECTORS,
    FORMATS,
    PRIORITIES,
    ROLES,
    STATUSES,
    TIERS,
    SourceEntry,
)
from caslon.errors import UserError
from caslon.settings import nearest

PLUG_INS = "caslon.collectors"  # entry point group of collectors that other packages bring
ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{2,63}")
CHECKSUM_PATTERN = re.compile(r"md5:[0-9a-f]{32}|sha1:[0-9a-f]{40}|sha256:[0-9a-f]{64}")
NEEDED = ("id", "location", "title", "licence")
TRACKING = re.compile(r"utm_\w+|fbclid|gclid")
Period = tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """One thing wrong with a registry, and where."""

    severity: Literal["error", "warning"]
    path: Path
    line: int
    entry: str  # its id, or `number 3`
    field: str  # empty: the entry as a whole
    message: str

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}: {self.severity}: entry {self.entry}: "
        return where + (f"field {self.field}: " if self.field else "") + self.message


@dataclass(frozen=True)
class Row:
    """One entry as it stands in the file: its JSON value and its places."""

    value: Any
    start: int  # offset of its first character in the text
    end: int
    line: int
    field_lines: Mapping[str, int] = field(default_factory=dict)
    repeated: tuple[str, ...] = ()  # keys written twice, of which JSON readers keep the last


@dataclass(frozen=True)
class Listing:
    """The text of a registry, taken apart."""

    path: Path
    text: str
    rows: tuple[Row, ...]
    list_start: int  # offset behind the `[` of the list
    list_end: int  # offset of its `]`


def listing(path: Path, text: str) -> Listing:
    """Return the entries of a registry's text with their places; `UserError` when it is no registry."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"the registry is not JSON: {error}", where=str(path)) from error
    rows = value.get("sources") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise UserError(
            "the registry holds no list of sources", where=str(path), fix='write {"sources": [{"id": ...}, ...]}'
        )
    at = start = _list_start(text)
    ends = [match.start() for match in re.finditer("\n", text)]
    placed = []
    for _ in rows:
        at = _skip(text, at)
        value, end = json.JSONDecoder().raw_decode(text, at)
        placed.append(_row(text, value, at, end, ends))
        at = end
    return Listing(path, text, tuple(placed), start, text.index("]", at))


def check(
    found: Listing,
    *,
    period: Period | None = None,
    tiers: Collection[str] = TIERS,
    collectors: Collection[str] | None = None,
) -> list[Finding]:
    """Return everything wrong with a registry, in the order of its lines.

    `period` is the recipe's; `collectors` the known ones (none: those of caslon and of installed plug-ins).
    """
    known = frozenset(collectors) if collectors is not None else known_collectors()
    findings: list[Finding] = []
    for number, row in enumerate(found.rows):
        findings += [
            Finding(severity, found.path, _line(row, name), _label(row.value, number), name, message)
            for severity, name, message in _row_problems(row, period, tiers, known)
        ]
    findings += _repeats(found)
    return sorted(findings, key=lambda finding: (finding.line, finding.severity, finding.field))


def known_collectors() -> frozenset[str]:
    """Return the names of caslon's collectors and of those that installed packages bring."""
    return frozenset(COLLECTORS) | {point.name for point in entry_points(group=PLUG_INS)}


def canonical_address(row: Mapping[str, Any]) -> str:
    """Return what an entry points at, spelled one way: two entries with one canonical address are the same source.

    Entries of one catalogue are told apart by their terms and years, entries of one archive by their globs.
    """
    location = str(row.get("location", "")).replace("\\", "/")
    collector = str(row.get("collector", "folder"))
    if "://" in location:
        address = _canonical_url(location)
    else:
        address = ("" if collector == "folder" else f"{collector}:") + str(PurePosixPath(location))
    parts = [f"{key}={','.join(sorted(row[key]))}" for key in ("include", "exclude") if row.get(key)]
    if row.get("search_terms"):
        years = "-".join(map(str, row.get("time_period") or ()))
        parts.append(" ".join(sorted(term.casefold() for term in row["search_terms"])) + f" {years}".rstrip())
    return " ".join([address, *parts])


def _canonical_url(url: str) -> str:
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").removeprefix("www.")
    port = f":{parts.port}" if parts.port and parts.port not in (80, 443) else ""
    query = urlencode(sorted((key, value) for key, value in parse_qsl(parts.query) if not TRACKING.fullmatch(key)))
    path = re.sub(r"/(?:index\.html?)?$", "", parts.path)
    return f"https://{host}{port}{path}" + (f"?{query}" if query else "")


# --- places in the text ------------------------------------------------------------------------------------------------


def _list_start(text: str) -> int:
    if text.lstrip("\ufeff \t\r\n").startswith("["):
        return text.index("[") + 1
    decoder = json.JSONDecoder()
    at = text.index("{") + 1
    start = 0
    while text[at := _skip(text, at)] != "}":  # of repeated keys JSON keeps the last
        key, at = decoder.raw_decode(text, at)
        at = _skip(text, text.index(":", at) + 1)
        if key == "sources":
            start = at + 1
        at = decoder.raw_decode(text, at)[1]
    return start


def _row(text: str, value: Any, start: int, end: int, line_ends: list[int]) -> Row:
    lines: dict[str, int] = {}
    repeated = []
    if isinstance(value, dict):
        decoder = json.JSONDecoder()
        at = start + 1
        while text[at := _skip(text, at)] != "}":
            line = bisect_left(line_ends, at) + 1
            key, at = decoder.raw_decode(text, at)
            at = decoder.raw_decode(text, _skip(text, text.index(":", at) + 1))[1]
            repeated += [key] if key in lines else []
            lines[key] = line
    return Row(value, start, end, bisect_left(line_ends, start) + 1, lines, tuple(repeated))


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n,":
        at += 1
    return at


def _line(row: Row, name: str) -> int:
    return row.field_lines.get(name, row.line)


def _label(value: Any, number: int) -> str:
    named = isinstance(value, dict) and isinstance(value.get("id"), str)
    return f"'{value['id']}'" if named else f"number {number + 1}"


# --- single entries ----------------------------------------------------------------------------------------------------

Problem = tuple[Literal["error", "warning"], str, str]  # severity, field, message


def _row_problems(
    row: Row, period: Period | None, tiers: Collection[str], collectors: Collection[str]
) -> list[Problem]:
    if not isinstance(row.value, dict):
        return [("error", "", "is not an object")]
    found: list[Problem] = [("error", name, "stands there twice") for name in row.repeated]
    found += [("error", name, "is missing") for name in NEEDED if name not in row.value]
    for name, value in row.value.items():
        if problem := _value_problem(name, value, tiers, collectors):
            found.append(("error", name, problem))
    wrong = {name for _, name, _ in found}
    found += [problem for problem in _joint_problems(row.value, period) if problem[1] not in wrong]
    return found


def _value_problem(name: str, value: Any, tiers: Collection[str], collectors: Collection[str]) -> str:
    if name not in FIELDS:
        guess = nearest(name, FIELDS)
        return "is unknown" + (f"; did you mean '{guess}'?" if guess else f"; known fields: {', '.join(FIELDS)}")
    choices = {"tier": tiers, "collector": collectors}.get(name)
    if choices is not None:
        is_one = isinstance(value, str) and value in choices  # a list cannot even be looked up
        return "" if is_one else f"{json.dumps(value)} is not one of {', '.join(sorted(choices))}"
    if name == "licence" and isinstance(value, str) and not value.strip():
        return "is empty; write an SPDX id, or a text that says what is allowed"
    if name == "time_period" and _is_years(value) and value[0] > value[1]:
        return f"begins ({value[0]}) after it ends ({value[1]})"
    test, right = FIELDS[name]
    return "" if test(value) else f"{json.dumps(value, ensure_ascii=False)} is not {right}"


def _joint_problems(row: Mapping[str, Any], period: Period | None) -> Iterator[Problem]:
    """Yield what is wrong with fields taken together."""
    yield from _licence_problems(row)
    yield from _period_problems(row, period)
    collector = str(row.get("collector", "folder"))
    entry = SourceEntry(id="", location=str(row.get("location", "")), collector=collector)
    if entry.is_search and not row.get("search_terms"):
        yield (
            "error",
            "search_terms",
            f"are missing: '{entry.location}' is a catalogue, and nothing says what to look for",
        )
    if collector == "rows" and not row.get("text_field"):
        yield "error", "text_field", "is missing: the collector 'rows' must know which field holds the text"


def _licence_problems(row: Mapping[str, Any]) -> Iterator[Problem]:
    enabled = row.get("enabled", True)
    use = row.get("allowed_use")
    licence = licence_of(str(row.get("licence", "")))
    if use == "none" and enabled:
        yield "error", "allowed_use", "'none' in an enabled source; set enabled to false"
    elif use is None and licence.allowed_use == "none" and enabled:
        yield "error", "licence", f"'{licence.text}' allows no use, and the source is enabled; set enabled to false"
    if licence.vague:
        effect = ", so the source is taken as disabled" if enabled else ""
        yield "warning", "licence", f"'{licence.text}' does not tell what is allowed{effect}"
    elif not licence.recognised and use is None:
        yield "warning", "licence", f"'{licence.text}' is not recognised and taken for research only; say allowed_use"
    elif use in ALLOWED_USES and licence.recognised and strictest((use, licence.allowed_use)) != use:
        yield (
            "warning",
            "allowed_use",
            f"'{use}' is more than '{licence.text}' allows, which is '{licence.allowed_use}'",
        )


def _period_problems(row: Mapping[str, Any], period: Period | None) -> Iterator[Problem]:
    years = row.get("time_period")
    if period is None or not _is_years(years):
        return
    wanted, given = f"{period[0]}-{period[1]}", f"{years[0]}-{years[1]}"
    if years[1] < period[0] or years[0] > period[1]:
        yield "error", "time_period", f"{given} lies outside the recipe's period {wanted}"
    elif years[0] < period[0] or years[1] > period[1]:
        yield "warning", "time_period", f"{given} reaches outside the recipe's period {wanted}"


def _repeats(found: Listing) -> Iterator[Finding]:
    ids: dict[str, int] = {}
    addresses: dict[str, str] = {}
    for number, row in enumerate(found.rows):
        if not isinstance(row.value, dict) or not isinstance(row.value.get("id"), str):
            continue
        name, label = row.value["id"], _label(row.value, number)
        if name in ids:
            yield Finding("error", found.path, _line(row, "id"), label, "id", f"repeats line {ids[name]}")
            continue
        ids[name] = row.line
        lists = (row.value.get(key) or [] for key in ("search_terms", "include", "exclude", "time_period"))
        if not isinstance(row.value.get("location"), str) or not all(isinstance(value, list) for value in lists):
            continue
        address = canonical_address(row.value)
        if address in addresses:
            message = f"leads to the same as entry '{addresses[address]}': {address}"
            yield Finding("warning", found.path, _line(row, "location"), label, "location", message)
        addresses.setdefault(address, name)


# --- single values -----------------------------------------------------------------------------------------------------


def _is_years(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) == 2 and all(type(year) is int for year in value)


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_filled(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_switch(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one_of(choices: Collection[str]) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in choices, f"one of {', '.join(choices)}"


# field: (test, what is right), in the order in which entries are written
FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "id": (
        lambda value: isinstance(value, str) and bool(ID_PATTERN.fullmatch(value)),
        "3-64 of a-z, 0-9, _ and -, a letter or digit first",
    ),
    "title": (_is_filled, "a text"),
    "collector": (_is_filled, "the name of a collector"),
    "location": (_is_filled, "a path, relative to the registry, an address, identifiers, or 'python'"),
    "search_terms": (_is_strings, "a list of texts"),
    "time_period": (_is_years, "[first year, last year]"),
    "languages": (_is_strings, 'a list of language codes such as ["en"]'),
    "formats": (lambda value: _is_strings(value) and set(value) <= set(FORMATS), f"a list of {', '.join(FORMATS)}"),
    "priority": _one_of(PRIORITIES),
    "licence": (_is_filled, "an SPDX id or a text that says what is allowed"),
    "rights_url": (_is_text, "an address"),
    "allowed_use": _one_of(ALLOWED_USES),
    "tier": (_is_filled, "the name of a tier"),
    "profile": (_is_text, "a name such as old_bailey"),
    "formulaic": (_is_switch, "true or false"),
    "ocr": (_is_switch, "true or false"),
    "enabled": (_is_switch, "true or false"),
    "disabled_reason": (_is_text, "a text"),
    "max_items": (lambda value: type(value) is int and value > 0, "a whole number above 0"),
    "max_share": (lambda value: _is_number(value) and 0 < value <= 1, "a share above 0 and up to 1"),
    "delay_seconds": (lambda value: _is_number(value) and value >= 0, "a number of seconds, 0 or more"),
    "checksum": (
        lambda value: isinstance(value, str) and bool(CHECKSUM_PATTERN.fullmatch(value)),
        "'sha256:', 'sha1:' or 'md5:' and as many hexadecimal digits as that takes",
    ),
    "status": _one_of(STATUSES),
    "role": _one_of(ROLES),
    "include": (_is_strings, "a list of globs"),
    "exclude": (_is_strings, "a list of globs"),
    "text_field": (_is_text, "the name of a field"),
    "selector": (_is_text, "a CSS selector"),
    "consenting_authors": (_is_strings, "a list of author ids"),
    "notes": (_is_text, "a text"),
}
