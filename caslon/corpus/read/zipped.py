"""Zip archives that are one document (EPUB, DOCX): turns their members into bytes and safely parsed XML."""

import io
import zipfile
import zlib
from typing import Any

from caslon.corpus.read.reading import Unreadable

MAX_RATIO = 100  # unpacked bytes per packed byte
FREE_BYTES = 64 << 20  # small files may unpack to that much
READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError)


def open_zip(data: bytes, what: str) -> zipfile.ZipFile:
    """Return the archive. Raises `Unreadable`: `truncated`, `encrypted`, or `too_large` when it unpacks to too much."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except READ_ERRORS as error:
        raise Unreadable("truncated", f"{what} is damaged or cut off: {error}") from error
    if any(info.flag_bits & 0x1 for info in archive.infolist()):
        raise Unreadable("encrypted", f"{what} is locked with a password")
    size = sum(info.file_size for info in archive.infolist())
    if size > max(FREE_BYTES, MAX_RATIO * len(data)):
        raise Unreadable("too_large", f"{what} unpacks to {size:,} bytes, more than {MAX_RATIO} times its size")
    return archive


def member(archive: zipfile.ZipFile, name: str, what: str) -> bytes:
    """Return the bytes of a member. Raises `Unreadable` when it is missing or damaged."""
    try:
        return archive.read(name)
    except KeyError as error:
        raise Unreadable("truncated", f"{what} has no member '{name}'") from error
    except (*READ_ERRORS, RuntimeError) as error:
        raise Unreadable("truncated", f"the member '{name}' of {what} is damaged: {error}") from error


def xml_root(data: bytes, what: str) -> Any:
    """Return the root element: no entity is expanded, nothing outside is opened. Raises `Unreadable`: `malformed_xml`."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise Unreadable("malformed_xml", f"{what}: {error}") from error
