"""Reading: turns one raw file into documents, or into rejects with a reason.

The type is decided by content, the bytes are decoded once, and the reader of that type yields documents whose blocks know
their range of characters in the decoded text (for XML and HTML that is the source with its tags).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from caslon.corpus.collect import RawFile
from caslon.corpus.detect import DecodeFailed, Detected, decode, detect
from caslon.corpus.document import Document, Reject
from caslon.corpus.read.reading import Extracted, Opened, ReadSettings, Source, Unreadable

STEP = "read"

__all__ = ["Extracted", "ReadSettings", "Source", "raw_text", "read"]

Reader = Callable[[Source, ReadSettings], Iterator[Extracted | Reject]]

NO_READER = {
    "zip": "a zip archive that is no document or cannot be opened", "gzip": "a gzip file inside an archive",
    "bzip2": "a bzip2 file inside an archive", "xz": "an xz file inside an archive",
    "zstd": "a zstandard file inside an archive", "binary": "binary data",
}  # fmt: skip
# Where the reader of a type stands: a module of this package and a function in it. Imported when first needed.
READERS = {
    "text": "text:read_text", "html": "html:read_html", "tei": "tei:read_tei", "xml": "other_xml:read_other_xml",
    "mediawiki": "mediawiki:read_mediawiki", "markdown": "markdown:read_markdown", "python": "python:read_python",
    "code": "code:read_code", "json": "data:read_json", "jsonl": "data:read_jsonl", "csv": "data:read_csv",
    "parquet": "parquet:read_parquet", "pdf": "pdf:read_pdf", "epub": "epub:read_epub", "docx": "docx:read_docx",
    "slack": "slack:read_slack",
}  # fmt: skip
# What turns the bytes of a binary file into the plain text that its ranges count in.
OPENERS = {"pdf": "pdf:open_pdf", "epub": "epub:open_epub", "docx": "docx:open_docx", "slack": "slack:open_slack"}
STREAMED = {"parquet": "parquet:parquet_text"}  # read piece by piece; the whole text is made only when it is asked for


def read(raw: RawFile, settings: ReadSettings | None = None) -> Iterator[Document | Reject]:
    """Yield the documents of a raw file and a reject for every part that gives none; no two have the same record.

    Files repeat ids: a session of the Old Bailey may give its front matter the id of a trial. The second is marked `~2`.
    """
    seen: Counter[str] = Counter()
    for item in _found(raw, settings or ReadSettings()):
        record = item.origin.record
        seen[record] += 1
        if seen[record] == 1:
            yield item
        else:
            yield replace(item, origin=replace(item.origin, record=f"{record}~{seen[record]}"))


def _found(raw: RawFile, settings: ReadSettings) -> Iterator[Document | Reject]:
    for code, reason in raw.problems:
        yield _reject(raw, code, reason, settings, record=code if raw.bytes else "")
    if raw.problems and not raw.bytes:
        return
    detected = detect(raw.bytes, raw.name)
    if detected.kind == "empty":
        yield _reject(raw, "empty", "the file holds nothing but blanks", settings)
        return
    if detected.kind in NO_READER:
        reason = f"the content is {NO_READER[detected.kind]}, for which there is no reader"
        yield _reject(raw, "unknown_type", "; ".join((reason, *detected.warnings)), settings)
        return
    try:
        source, facts = _source(raw, detected)
        yield from _extract(raw, source, detected.kind, facts, settings)
    except Unreadable as error:
        yield _reject(raw, error.code, error.reason, settings)


def raw_text(raw: RawFile) -> str:
    """Return the text that the ranges of blocks, removals and rejects count in.

    That is the decoded content, or for a binary file (PDF, EPUB, DOCX, Parquet, a Slack export) the plain text its opener
    makes of it. Raises `ValueError` when there is none.
    """
    detected = detect(raw.bytes, raw.name)
    if detected.kind in STREAMED:
        text: str = _function(STREAMED[detected.kind])(raw.bytes)
        return text
    return _source(raw, detected)[0].text


def _source(raw: RawFile, detected: Detected) -> tuple[Source, dict[str, Any]]:
    """Return the file decoded or opened, and the facts about that. Raises `Unreadable`."""
    facts: dict[str, Any] = {"type": detected.kind}
    if detected.warnings:
        facts["warnings"] = list(detected.warnings)
    if detected.kind in OPENERS and not detected.encoding:
        opened: Opened = _function(OPENERS[detected.kind])(raw.bytes)
        return Source(raw.origin, opened.text, raw.name, raw.metadata, raw.bytes, opened), facts
    if detected.kind in STREAMED:
        return Source(raw.origin, "", raw.name, raw.metadata, raw.bytes), facts
    try:
        decoded = decode(raw.bytes)
    except DecodeFailed as error:
        raise Unreadable("decode_failed", str(error)) from error
    facts["encoding"] = decoded.encoding
    if decoded.undecodable_bytes:
        facts["undecodable_bytes"] = decoded.undecodable_bytes
    source = Source(raw.origin, decoded.text, raw.name, raw.metadata, raw.bytes, language=detected.language)
    return source, facts


def _extract(
    raw: RawFile, source: Source, kind: str, facts: Mapping[str, Any], settings: ReadSettings
) -> Iterator[Document | Reject]:
    reader: Reader = _function(READERS[kind])
    found = 0
    rejected = 0
    for item in reader(source, settings):
        if isinstance(item, Reject):
            rejected += 1
            yield replace(item, metadata={**_known(raw), **facts, **item.metadata})
        elif item.blocks:
            found += 1
            yield _document(raw, item, facts)
    if not found and not rejected:
        yield _reject(raw, "no_text", "nothing but markup or boiler plate was found", settings, text=source.text)


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(import_module(f"{__name__}.{module}"), function)


# These have places of their own in a document, or are for the reader alone.
FACT_KEYS = (
    "title", "year", "licence", "tier", "group", "formats", "text_field", "consenting_authors", "line_offset", "byte_offset",
)  # fmt: skip


def _known(raw: RawFile) -> dict[str, Any]:
    return {key: value for key, value in raw.metadata.items() if key not in FACT_KEYS}


def _document(raw: RawFile, found: Extracted, facts: Mapping[str, Any]) -> Document:
    """Join what the reader found to what the registry knows: the registry's word stands unless the reader has a record."""
    known = raw.metadata
    title = found.title if found.record else known.get("title") or found.title
    year = found.year if found.record and found.year is not None else known.get("year") or found.year
    return Document(
        origin=replace(raw.origin, record=found.record),
        blocks=found.blocks,
        tier=found.tier or known.get("tier", "general"),
        title=title or "",
        year=year,
        licence=known.get("licence", ""),
        group=known.get("group") or found.group or _file_group(raw),
        metadata={**found.metadata, **facts, **_known(raw)},
        removals=found.removals,
    )


def _file_group(raw: RawFile) -> str:
    return f"{raw.source}:{raw.origin.address}"


def _reject(
    raw: RawFile, code: str, reason: str, settings: ReadSettings, *, text: str | None = None, record: str = ""
) -> Reject:
    if text is None:
        text = raw.bytes[: settings.reject_bytes].decode("utf-8", errors="replace")
    return Reject(
        replace(raw.origin, record=record),
        STEP,
        code,
        reason,
        text,
        0,
        len(text),
        {**_known(raw), "bytes": len(raw.bytes)},
    )
