"""The text form: `###Instruction`, `###Input` and `###Response` on lines of their own, one record after another.

It holds one question and one answer. A line of a text that looks like a heading gets a backslash before it, and loses it again
when read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from caslon.corpus.chat import alpaca
from caslon.corpus.chat.record import LAYOUT, UnfitError
from caslon.errors import StorageError, UserError

HEADINGS = {"Instruction": "instruction", "Input": "input", "Response": "output"}
_HEADING = re.compile(r"^###(Instruction|Input|Response)[ \t]*:?[ \t]*$", re.MULTILINE)
_LOOKS_LIKE_HEADING = re.compile(r"^(\\*)(?=###(?:Instruction|Input|Response)[ \t]*:?[ \t]*$)", re.MULTILINE)
_ESCAPED_HEADING = re.compile(r"^\\(?=\\*###(?:Instruction|Input|Response)[ \t]*:?[ \t]*$)", re.MULTILINE)


def written(row: Mapping[str, Any]) -> str:
    """Return a row in the text form. `UnfitError` when it is more than one question and one answer."""
    layout = row.get("extra", {}).get(LAYOUT, {})
    same = layout.get("form") == "alpaca" and alpaca.read(layout["given"])["messages"] == row.get("messages")
    record = layout["given"] if same else alpaca.write(row)
    if record.get("system") or record.get("history"):
        raise UnfitError("it is more than one question and one answer")
    texts = {heading: record.get(field) or "" for heading, field in HEADINGS.items()}
    if any("\r" in text or text != text.strip("\n") for text in texts.values()):
        raise UnfitError("a text begins or ends with an empty line, or has a carriage return")
    return "\n\n".join(
        f"###{heading}\n{_escaped(text)}" for heading, text in texts.items() if text or heading != "Input"
    )


def read_file(path: Path) -> Iterator[tuple[int, dict[str, str] | UnfitError]]:
    """Yield `(number, Alpaca record)` for each record of a file in the text form."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the text: {error}", where=str(path), fix="check the path") from error
    before, *parts = _HEADING.split(text)
    records: list[dict[str, str]] = []
    for heading, body in zip(parts[::2], parts[1::2], strict=True):
        if heading == "Instruction" or not records:
            records.append({})
        records[-1][HEADINGS[heading]] = _ESCAPED_HEADING.sub("", body.strip("\n"))
    if before.strip():
        yield 0, UnfitError("there is text before the first heading")
    for number, record in enumerate(records, start=1):
        missing = {"instruction", "output"} - record.keys()
        whole = {"instruction": "", "input": "", **record}
        yield number, UnfitError(f"without {' and '.join(sorted(missing))}") if missing else whole


def write_file(path: Path, texts: Sequence[str]) -> None:
    """Write records in the text form with an empty line between."""
    write_whole(path, "\n\n".join(texts) + "\n" if texts else "")


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write: {error.strerror or error}", where=str(path), fix="free disk space"
        ) from error


def _escaped(text: str) -> str:
    return _LOOKS_LIKE_HEADING.sub(r"\1\\", text)
