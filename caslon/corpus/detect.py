"""What a raw file is: turns bytes into a type and, for text, an encoding.

The content of the first 64 KiB decides; the file's name only breaks a tie between kinds of plain text. Bytes are never
dropped silently: those that fit no encoding become U+FFFD and are counted, and above 0.1 % the file is refused.
"""

import codecs
import io
import re
import zipfile
from dataclasses import dataclass

from caslon.corpus.detect_code import code_language
from caslon.corpus.detect_records import csv_delimiter, json_kind

HEAD_BYTES = 65_536
MAX_UNDECODABLE = 0.001  # share of bytes
MAX_CONTROLS = 0.001  # share of control characters in decoded text other than NUL, which is removed and counted
MAX_NULS = 0.5
MAX_FOREIGN_8_BIT = 0.15  # share of bytes above 127 up to which an 8-bit text is taken to be Western

MAGIC = (
    (b"%PDF-", "pdf"), (b"\x89PNG\r\n", "binary"), (b"\xff\xd8\xff", "binary"), (b"GIF8", "binary"), (b"\x7fELF", "binary"),
    (b"MZ\x90", "binary"), (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PAR1", "parquet"), (b"PK\x03\x04", "zip"), (b"\xd0\xcf\x11\xe0", "binary"), (b"OggS", "binary"), (b"RIFF", "binary"),
)  # fmt: skip
BOMS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip
TEI_ROOTS = frozenset({"tei", "tei.2", "teicorpus", "teicorpus.2", "ets", "eebo", "text", "div0", "div1"})
MARKDOWN_SUFFIXES = ("md", "markdown", "mkd")
HTML_ROOTS = frozenset({"html", "head", "body", "p", "div", "table", "h1", "h2", "ul", "center", "font", "br"})

XML_START = re.compile(r"\s*(?:<\?xml\b|<!DOCTYPE\s|<!--|<\?|<[A-Za-z_][\w.:-]*[\s/>])")
XML_MISC = re.compile(r"\s+|<\?.*?\?>|<!--.*?-->", re.DOTALL)
DOCTYPE = re.compile(r"<!DOCTYPE\s+([\w.:-]+)", re.IGNORECASE)
ROOT = re.compile(r"<([A-Za-z_][\w.:-]*)")
DECLARED_XML = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]+)", re.IGNORECASE)
DECLARED_HTML = re.compile(rb"<meta[^>]{0,300}?charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
HTML_TAGS = re.compile(r"<(?:!doctype\s+html|html|head|body|title|p|div|table|h[1-6]|br|a\s+href)\b", re.IGNORECASE)
PYTHON_LINES = re.compile(
    r"^(?:(?:async )?def \w+\(|class \w+[(:]|import \w+|from [\w.]+ import |if __name__ == |@\w+|\s+self\.\w+ = )", re.MULTILINE
)  # fmt: skip
# What hardly stands in anything but Markdown, and what other texts have too.
MARKDOWN_SIGNS = re.compile(
    r"^(?:```|~~~)|\[[^\]\n]+\]\((?:https?:|mailto:|[/#.\w])|^\|(?: ?:?-+:? ?\|)+$|^#{1,6} \S.*\n\s*$", re.MULTILINE
)
MARKDOWN_LINES = re.compile(
    r"^(?:#{1,6} \S|```|~~~|[-*+] \S|\d+\. |> |\[[^\]]+\]\(|\|.+\|$|={4,}$|-{4,}$)", re.MULTILINE
)
MIN_MARKDOWN_SIGNS = 3  # where the name says nothing
SLACK_MESSAGES = re.compile(r'\s*\[\s*\{(?=[^{}]{0,2000}"type":\s*"message")(?=[^{}]{0,2000}"ts":\s*"\d{9,11}\.\d+")')
CONTROLS = re.compile(r"[\x01-\x08\x0b\x0e-\x1f\x7f]")
XML_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Detected:
    """The type of a raw file, its encoding when it is text, and what was odd about it."""

    kind: str  # text html tei xml mediawiki python code markdown json jsonl csv slack | pdf epub docx zip ... | binary | empty
    encoding: str = ""
    warnings: tuple[str, ...] = ()
    language: str = ""  # of source code


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded text with the encoding used and the number of bytes that became U+FFFD."""

    text: str
    encoding: str
    undecodable_bytes: int = 0


class DecodeFailed(ValueError):
    """The bytes are no text in any encoding that could be found."""


def detect(data: bytes, name: str = "") -> Detected:
    """Return what the bytes are. `name` breaks a tie between kinds of text and is otherwise only checked for a clash."""
    if not data.strip(b"\x00 \t\r\n\x0b\x0c\xef\xbb\xbf"):
        return Detected("empty")
    head = data[:HEAD_BYTES]
    magic = next((kind for start, kind in MAGIC if head.startswith(start)), None)
    if magic:
        kind = _zip_kind(data) if magic == "zip" else magic
        return Detected(kind, warnings=_clash(kind, name))
    if not looks_like_text(head):
        return Detected("binary", warnings=_clash("binary", name))
    encoding = _encoding(head)
    sample = head.decode(encoding, errors="replace").lstrip("\ufeff")
    kind = _text_kind(sample, name, is_cut=len(data) > HEAD_BYTES)
    kind, _, language = kind.partition(" ")
    return Detected(kind, encoding, _clash(kind, name), language)


def decode(data: bytes) -> Decoded:
    """Return the whole content as text. Raises `DecodeFailed` when more than 0.1 % of the bytes fit no encoding."""
    encoding = _encoding(data)
    bom = next((mark for mark, name in BOMS if name == encoding and data.startswith(mark)), b"")
    text = data[len(bom) :].decode(encoding, errors="replace")
    lost = 0
    if "\ufffd" in text:
        lost = text.count("\ufffd") - data.count(b"\xef\xbf\xbd")
    if lost > max(1, MAX_UNDECODABLE * len(data)):
        raise DecodeFailed(f"{lost:,} of {len(data):,} bytes fit no encoding (tried {encoding})")
    controls = len(CONTROLS.findall(text))
    if controls > max(2, MAX_CONTROLS * len(text)):
        raise DecodeFailed(f"{controls:,} of {len(text):,} characters are control characters: damaged text")
    return Decoded(text, encoding, max(lost, 0))


def looks_like_text(head: bytes) -> bool:
    """Return whether the bytes could be text in some encoding, damaged or not."""
    if head.startswith(tuple(mark for mark, _ in BOMS)) or _wide_encoding(head):
        return True
    nuls = head.count(0)
    controls = sum(head.count(bytes([code])) for code in range(1, 32) if code not in (9, 10, 12, 13, 26, 27))
    printable = len(head) - nuls
    return nuls <= MAX_NULS * len(head) and controls <= 0.05 * printable


def _wide_encoding(head: bytes) -> str | None:
    """UTF-16 without a byte order mark shows as NULs in every second byte of mostly Latin text."""
    even, odd = head[0:4096:2], head[1:4096:2]
    if len(odd) < 8:
        return None
    if odd.count(0) > 0.7 * len(odd) and even.count(0) < 0.05 * len(even):
        return "utf-16-le"
    if even.count(0) > 0.7 * len(even) and odd.count(0) < 0.05 * len(odd):
        return "utf-16-be"
    return None


def _encoding(data: bytes) -> str:
    """Byte order mark, then strict UTF-8, then what the file declares, then what its bytes look like."""
    for mark, name in BOMS:
        if data.startswith(mark):
            return name
    wide = _wide_encoding(data)
    if wide:
        return wide
    if _is_utf8(data):
        return "utf-8"
    for candidate in _declared(data):
        if _decodes(data, candidate):
            return candidate
    return "utf-8" if _mostly_utf8(data) else _legacy_encoding(data)


def _is_utf8(data: bytes) -> bool:
    """Strict UTF-8; a character cut in two by the end of a sample does not count against it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(data, final=len(data) != HEAD_BYTES)
    except UnicodeDecodeError:
        return False
    return True


def _declared(data: bytes) -> list[str]:
    found = [pattern.search(data[:4096]) for pattern in (DECLARED_XML, DECLARED_HTML)]
    names = [match[1].decode("ascii").lower() for match in found if match]
    # Browsers read pages that declare Latin-1 as Windows-1252, and such pages count on it.
    return ["cp1252" if name in ("iso-8859-1", "latin-1", "latin1") else name for name in names if name != "utf-8"]


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        return not CONTROLS.search(data.decode(encoding))
    except (UnicodeDecodeError, LookupError, ValueError):
        return False


def _mostly_utf8(data: bytes) -> bool:
    """UTF-8 with damage: more whole multi-byte characters than bytes that fit none."""
    text = data.decode("utf-8", errors="replace")
    lost = text.count("\ufffd")
    whole = len(re.findall(r"[^\x00-\x7f\ufffd]", text))
    return whole > lost


def _legacy_encoding(data: bytes) -> str:
    high = len(re.findall(rb"[\x80-\xff]", data))
    if high <= MAX_FOREIGN_8_BIT * len(data):
        return "cp1252" if _decodes_but_for_controls(data, "cp1252") else "latin-1"
    from charset_normalizer import from_bytes

    best = from_bytes(data[:HEAD_BYTES]).best()
    return best.encoding if best else "utf-8"


def _decodes_but_for_controls(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _zip_kind(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "zip"
    if "META-INF/container.xml" in names:
        return "epub"
    if {"users.json", "channels.json"} <= names:
        return "slack"
    return "docx" if "word/document.xml" in names else "zip"


def _text_kind(sample: str, name: str, *, is_cut: bool) -> str:
    """Return the kind of a text; of source code followed by a space and the language."""
    if XML_START.match(sample) and (kind := _markup_kind(sample)):
        return kind
    suffix = name.lower().rpartition(".")[2] if "." in name else ""
    if suffix in ("html", "htm", "xhtml") and len(HTML_TAGS.findall(sample)) >= 2:
        return "html"
    if kind := json_kind(sample, suffix, is_cut=is_cut):
        return "slack" if kind == "json" and SLACK_MESSAGES.match(sample) else kind
    return _code_kind(sample, name, suffix) or ("csv" if csv_delimiter(sample, suffix) else _prose_kind(sample, suffix))


def _code_kind(sample: str, name: str, suffix: str) -> str | None:
    if _is_python(sample, suffix):
        return "python"
    # Prose about code quotes it, so nothing named Markdown is code.
    language = None if suffix in MARKDOWN_SUFFIXES else code_language(sample, name)
    return f"code {language}" if language else None


def _prose_kind(sample: str, suffix: str) -> str:
    return "markdown" if _is_markdown(sample, suffix) else "text"


def _is_markdown(sample: str, suffix: str) -> bool:
    if suffix in MARKDOWN_SUFFIXES:
        return MARKDOWN_LINES.search(sample) is not None
    signs = {match[0][:3].rstrip("\n") for match in MARKDOWN_SIGNS.finditer(sample)}
    return len(signs) >= 2 and len(MARKDOWN_SIGNS.findall(sample)) >= MIN_MARKDOWN_SIGNS


def _is_python(sample: str, suffix: str) -> bool:
    if sample.startswith("#!") and "python" in sample[:80]:
        return True
    code_lines = len(PYTHON_LINES.findall(sample))
    if suffix in ("py", "pyi", "pyw"):
        return code_lines > 0 or not HTML_TAGS.search(sample)
    # Prose about code quotes it; a module is made of it.
    return suffix not in ("md", "markdown") and code_lines >= max(6, 0.05 * (sample.count("\n") + 1))


def _markup_kind(sample: str) -> str | None:
    """Return the kind of XML or HTML by its root element, or None when it is no markup after all."""
    doctype = DOCTYPE.search(sample)
    at = 0
    while misc := XML_MISC.match(sample, at):
        at = misc.end()
    if sample[at : at + 2] == "<!":
        at = _after_doctype(sample, at)
        while misc := XML_MISC.match(sample, at):
            at = misc.end()
    root = ROOT.match(sample, at)
    name = (root[1] if root else doctype[1] if doctype else "").rpartition(":")[2].lower()
    if name in HTML_ROOTS or (doctype and doctype[1].lower() == "html"):
        return "html"
    if name in TEI_ROOTS:
        return "tei"
    if name == "mediawiki":
        return "mediawiki"
    if sample.lstrip().startswith("<?xml") or doctype or (root and _closes(sample, root[1])):
        return "html" if len(HTML_TAGS.findall(sample)) >= 5 and not sample.lstrip().startswith("<?xml") else "xml"
    return "html" if len(HTML_TAGS.findall(sample)) >= 2 else None


def _after_doctype(sample: str, at: int) -> int:
    """Return the place after `<!DOCTYPE ... [ ... ]>`; quotes and the internal subset may hold `>`."""
    depth = 0
    quote = ""
    for index in range(at, len(sample)):
        letter = sample[index]
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "[":
            depth += 1
        elif letter == "]":
            depth -= 1
        elif letter == ">" and depth == 0:
            return index + 1
    return len(sample)


def _closes(sample: str, name: str) -> bool:
    return f"</{name}>" in sample or sample.count(f"<{name}>") > 3


SUFFIX_KINDS = {
    "pdf": "pdf", "html": "html", "htm": "html", "xhtml": "html", "png": "binary", "jpg": "binary", "jpeg": "binary",
    "gif": "binary", "zip": "zip", "gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd", "parquet": "parquet",
    "epub": "epub", "docx": "docx", "txt": "text", "xml": "xml", "py": "python", "json": "json", "jsonl": "jsonl",
    "ndjson": "jsonl", "csv": "csv", "tsv": "csv", "md": "markdown", "markdown": "markdown",
}  # fmt: skip
# Kinds that one name may stand for without anybody being misled.
NEAR = (
    {"xml", "tei", "mediawiki", "html"}, {"text", "markdown"}, {"binary"}, {"json", "jsonl", "slack"}, {"zip", "slack"},
)  # fmt: skip


def _clash(kind: str, name: str) -> tuple[str, ...]:
    expected = SUFFIX_KINDS.get(name.lower().rpartition(".")[2]) if "." in name else None
    if expected is None or expected == kind or any({expected, kind} <= group for group in NEAR):
        return ()
    return (f"named like {expected}, but the content is {kind}",)
