"""Files of any known form become canonical rows, and rows files of any form; what cannot be is named row by row.

A row keeps its record's fields (`extra._layout`) only where plain writing would not give them back, and they are used only while
the row still says the same, so that importing and exporting in one form gives equal records.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caslon.corpus.chat import alpaca, completion, openai, preference, sharegpt, slack, text
from caslon.corpus.chat.record import (
    LAYOUT,
    Rejected,
    Row,
    UnfitError,
    all_messages,
    canonical,
    foreign_fields,
    is_canonical,
    read_records,
    said,
    write_rows,
)
from caslon.errors import UserError


@dataclass(frozen=True)
class Form:
    """One form of chat data: the fields it knows, and the functions that read and write a record."""

    name: str
    fields: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], dict[str, Any]]
    write: Callable[[Mapping[str, Any]], dict[str, Any]]
    marks: frozenset[str]  # fields that tell it from the others


FORMS = {
    form.name: form
    for form in (  # in the order they are tried: a preference may also have conversations or an instruction
        Form("preference", preference.FIELDS, preference.read, preference.write, frozenset({"chosen", "rejected"})),
        Form("sharegpt", sharegpt.FIELDS, sharegpt.read, sharegpt.write, frozenset({"conversations"})),
        Form("openai", openai.FIELDS, openai.read, openai.write, frozenset({"messages"})),
        Form("alpaca", alpaca.FIELDS, alpaca.read, alpaca.write, frozenset({"instruction", "output"})),
        Form("completion", completion.FIELDS, completion.read, completion.write, frozenset({"prompt", "completion"})),
    )
}
AUTO, CANONICAL, SLACK, TEXT = "auto", "canonical", "slack", "text"
IMPORT_FORMS = (AUTO, *FORMS, SLACK, TEXT, CANONICAL)
EXPORT_FORMS = (*FORMS, SLACK, TEXT, CANONICAL)


def import_rows(path: Path, form: str = AUTO, *, source: str = "", licence: str = "") -> Iterator[Row | Rejected]:
    """Yield the rows of a file, and the records that are not of the form. Slack exports: see `slack.persona_rows`.

    `auto` asks every record. `source` (the file's name by default) and `licence` are written into rows that state none.
    `UserError` for a file that cannot be read or a form that does not exist.
    """
    if form not in IMPORT_FORMS or form == SLACK:
        raise UserError(f"the form '{form}' cannot be imported here", fix=", ".join(IMPORT_FORMS))
    known_as = {"source": source or path.name, "licence": licence}
    records = text.read_file(path) if form == TEXT else read_records(path)
    for number, record in records:
        try:
            if isinstance(record, UnfitError):
                raise record
            row = row_of(record, AUTO if form == TEXT else form)
        except UnfitError as error:
            yield Rejected(number, str(error))
            continue
        yield row | {key: value for key, value in known_as.items() if not row[key]}


def row_of(record: Any, form: str = AUTO) -> Row:
    """Return the canonical row of a record. `UnfitError` when it is not of the form, or with `auto` of none."""
    if not isinstance(record, dict):
        raise UnfitError("a row must be a JSON object")
    if form == CANONICAL or (form == AUTO and is_canonical(record)):
        if not is_canonical(record):
            raise UnfitError("not a canonical row: id, source, licence and extra are needed")
        return dict(record)
    chosen = form_of(record) if form == AUTO else FORMS[form]
    row = canonical(chosen.read(record), record, chosen.fields)
    if not _same(chosen.write(row) | foreign_fields(row) if _can_write(chosen, row) else None, record):
        given = {key: record[key] for key in chosen.fields if key in record}
        row["extra"] = {**row["extra"], LAYOUT: {"form": chosen.name, "given": given}}
    return row


def form_of(record: Mapping[str, Any]) -> Form:
    """Return the form a record is of, by its fields."""
    found = next((form for form in FORMS.values() if form.marks <= record.keys()), None)
    if found is None:
        raise UnfitError(f"of no known form; its fields are {', '.join(map(str, record)) or 'none'}")
    return found


def record_of(row: Mapping[str, Any], form: str) -> dict[str, Any]:
    """Return a row in a form. `UnfitError` when the form cannot hold what the row says."""
    if form == CANONICAL:
        return dict(row)
    chosen = FORMS[form]
    layout = row.get("extra", {}).get(LAYOUT, {})
    if layout.get("form") == form and said(chosen.read(layout["given"])) == said(row):
        return {**layout["given"], **foreign_fields(row)}
    foreign = foreign_fields(row)
    if taken := sorted(foreign.keys() & set(chosen.fields)):
        raise UnfitError(f"its extra fields {', '.join(taken)} mean something else in this form")
    return {**chosen.write(row), **foreign}


@dataclass
class Exported:
    """What became of rows: how many were written, which were left out, and which fields of messages a form has no place for."""

    rows: int = 0
    left_out: list[Rejected] = field(default_factory=list)
    lost_fields: Counter[str] = field(default_factory=Counter)


def export_rows(rows: Iterable[Mapping[str, Any]], path: Path, form: str) -> Exported:
    """Write rows in a form, and return what it could not hold. JSON Lines; a path that ends in `.json` gets a list."""
    if form not in EXPORT_FORMS:
        raise UserError(f"the form '{form}' does not exist", fix=", ".join(EXPORT_FORMS))
    done = Exported()
    written: list[Any] = []
    writer = {SLACK: slack.turns_of_row, TEXT: text.written}.get(form, lambda row: record_of(row, form))
    for number, row in enumerate(rows, start=1):
        try:
            written.append(writer(row))
        except UnfitError as error:
            done.left_out.append(Rejected(number, str(error), str(row.get("id", ""))))
            continue
        done.lost_fields.update(_message_fields(row) - _held_fields(written[-1], form))
    done.rows = len(written)
    if form == SLACK:
        slack.write_export(path, written)
    elif form == TEXT:
        text.write_file(path, written)
    elif path.suffix == ".json":
        text.write_whole(path, json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    else:
        write_rows(path, written)
    return done


def _message_fields(row: Mapping[str, Any]) -> set[str]:
    fields = {key for message in all_messages(row) for key in (*message, *message.get("extra", ()))}
    return fields - {"role", "content", "extra"}


def _held_fields(record: Any, form: str) -> set[str]:
    return (
        _message_fields(row_of(record, form))
        if form in FORMS
        else _message_fields(record)
        if form == CANONICAL
        else set()
    )


def _can_write(form: Form, row: Row) -> bool:
    try:
        form.write(row)
    except UnfitError:
        return False
    return True


def _same(written: Any, record: Any) -> bool:
    """Return whether two records are the same JSON: Python thinks 1, 1.0 and true equal."""
    return written == record and json.dumps(written, sort_keys=True) == json.dumps(record, sort_keys=True)
