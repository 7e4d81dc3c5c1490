"""Reading: turns one raw file into documents, or into rejects with a reason.

The type is decided by content, the bytes are decoded once, and the reader of that type yields documents whose blocks know
their range of characters in the decoded text (for XML and HTML that is the source with its tags).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from caslon.corpus.collect import RawFile
from caslon.corpus.detect import Decoded, DecodeFailed, decode, detect
from caslon.corpus.document import Document, Reject
from caslon.corpus.read.reading import Extracted, ReadSettings, Source

STEP = "read"

__all__ = ["Extracted", "ReadSettings", "Source", "raw_text", "read"]

Reader = Callable[[Source, ReadSettings], Iterator[Extracted | Reject]]

NO_READER = {
    "pdf": "a PDF file", "epub": "an EPUB book", "docx": "a Word file", "zip": "a zip archive inside an archive",
    "gzip": "a gzip file inside an archive", "bzip2": "a bzip2 file inside an archive", "xz": "an xz file inside an archive",
    "zstd": "a zstandard file", "parquet": "a Parquet file", "mediawiki": "a MediaWiki dump",
    "json": "JSON", "jsonl": "JSON lines", "binary": "binary data",
}  # fmt: skip


def read(raw: RawFile, settings: ReadSettings | None = None) -> Iterator[Document | Reject]:
    """Yield the documents of a raw file and a reject for every part that gives none."""
    settings = settings or ReadSettings()
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
        decoded = decode(raw.bytes)
    except DecodeFailed as error:
        yield _reject(raw, "decode_failed", str(error), settings)
        return
    facts: dict[str, Any] = {"type": detected.kind, "encoding": decoded.encoding}
    if detected.warnings:
        facts["warnings"] = list(detected.warnings)
    if decoded.undecodable_bytes:
        facts["undecodable_bytes"] = decoded.undecodable_bytes
    yield from _extract(raw, decoded, detected.kind, facts, settings)


def raw_text(raw: RawFile) -> str:
    """Return the decoded text that the ranges of blocks, removals and rejects count in."""
    return decode(raw.bytes).text


def _extract(
    raw: RawFile, decoded: Decoded, kind: str, facts: Mapping[str, Any], settings: ReadSettings
) -> Iterator[Document | Reject]:
    source = Source(raw.origin, decoded.text, raw.name, raw.metadata)
    found = 0
    rejected = 0
    for item in _reader(kind)(source, settings):
        if isinstance(item, Reject):
            rejected += 1
            yield replace(item, metadata={**_known(raw), **facts, **item.metadata})
        elif item.blocks:
            found += 1
            yield _document(raw, item, facts)
    if not found and not rejected:
        yield _reject(raw, "no_text", "nothing but markup or boiler plate was found", settings, text=decoded.text)


def _reader(kind: str) -> Reader:
    """Return the reader of a type; each is imported when first needed, for some bring libraries along."""
    if kind == "html":
        from caslon.corpus.read.html import read_html

        return read_html
    if kind == "tei":
        from caslon.corpus.read.tei import read_tei

        return read_tei
    if kind == "xml":
        from caslon.corpus.read.tei import read_other_xml

        return read_other_xml
    if kind == "python":
        from caslon.corpus.read.python import read_python

        return read_python
    from caslon.corpus.read.text import read_text

    return read_text


FACT_KEYS = ("title", "year", "licence", "tier", "group", "formats")  # these have places of their own in a document


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
