"""Looking at an address before it enters a registry: turns what lies there into proposed values for an entry.

The probe asks for robots.txt, type, size and the first 64 KB, as politely as a collector does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from caslon.corpus.detect import HEAD_BYTES, DecodeFailed, decode, detect
from caslon.corpus.inventory import id_from
from caslon.corpus.registry_entry import CATALOGUES, FORMATS
from caslon.corpus.settings import CollectSettings
from caslon.errors import UserError

TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
# What is known of places that caslon has collectors for: host -> collector, profile, licence, where the licence is stated.
HOSTS = {
    "oldbaileyonline.org": ("old_bailey", "old_bailey", "CC-BY-NC-4.0", "https://www.oldbaileyonline.org"),
    "londonlives.org": (
        "london_lives", "london_lives", "non-commercial use only", "https://www.londonlives.org/static/Legal.jsp",
    ),
    "archive.org": ("internet_archive", "", "", ""),
    "gutenberg.org": ("gutenberg", "", "", ""),
    "british-history.ac.uk": ("british_history_online", "", "", ""),
    "discovery.nationalarchives.gov.uk": ("national_archives", "", "", ""),
    "dumps.wikimedia.org": ("mediawiki", "", "", ""),
}  # fmt: skip
ROW_KINDS = ("csv", "jsonl", "parquet")


@dataclass(frozen=True)
class Probe:
    """What an address answered."""

    address: str
    final_address: str = ""  # after redirects
    allowed: bool | None = None  # by robots.txt; None: there is none to ask
    content_type: str = ""  # as the server says
    size_bytes: int | None = None  # of the whole file, when told
    sample: bytes = b""  # its first 64 KB


def probe_path(path: Path) -> Probe:
    """Return what lies at a local path; of a folder nothing but that it is there. Raises `OSError`."""
    if path.is_dir():
        return Probe(str(path), str(path))
    with path.open("rb") as file:
        sample = file.read(HEAD_BYTES)
    return Probe(str(path), str(path), size_bytes=path.stat().st_size, sample=sample)


def probe_url(url: str, settings: CollectSettings) -> Probe:
    """Return what a web address answers. Raises `UserError` without a contact, and when it does not answer."""
    from caslon.corpus.collect.http import Client
    from caslon.corpus.collect.problem import ItemProblem

    client = Client(settings)

    def attempt() -> Probe:
        with client.open(url, {"range": f"bytes=0-{HEAD_BYTES - 1}"}) as answer:
            sample = bytearray()
            for chunk in answer.chunks:  # a server that knows no ranges sends everything
                sample += chunk
                if len(sample) >= HEAD_BYTES:
                    break
            kind = answer.headers.get("content-type", "").partition(";")[0].strip()
            return Probe(url, answer.url, True, kind, _size(answer.status, answer.headers), bytes(sample[:HEAD_BYTES]))

    try:
        return client.persist(attempt)
    except ItemProblem as problem:
        if problem.code == "robots_denied":
            return Probe(url, allowed=False)
        raise UserError(
            f"the address does not answer: {problem.reason}", where=url, fix="use --no-probe to add it all the same"
        ) from problem
    finally:
        client.close()


def _size(status: int, headers: Mapping[str, str]) -> int | None:
    """The bytes of the whole file: behind the slash of `bytes 0-65535/1234567` when only a part was sent (RFC 9110, 14.4)."""
    told = headers.get("content-range", "").rpartition("/")[2] if status == 206 else headers.get("content-length", "")
    return int(told) if told.isdigit() else None


def proposals(location: str, probe: Probe | None, collector: str = "") -> dict[str, Any]:
    """Return the values of fields that the address and its first bytes suggest; what they do not tell is left out.

    `collector` is the one asked for, if any.
    """
    found: dict[str, Any] = {"location": location, "collector": collector or _collector(location, probe)}
    host = _host(location)
    if host in HOSTS:
        _, profile, licence, rights = HOSTS[host]
        found |= {key: value for key, value in (("profile", profile), ("licence", licence)) if value}
        found |= {"rights_url": rights} if rights else {}
    name = Path(unquote(urlsplit(location).path if host else location)).name
    if probe is not None and probe.sample:
        kind = detect(probe.sample, name).kind
        if kind in FORMATS:
            found["formats"] = [kind]
        found["title"] = _title(probe.sample, kind)
        found["status"] = "verified"
        if name.endswith("_djvu.txt"):  # the Internet Archive's name for what its OCR read
            found["ocr"] = True
    if probe is not None and probe.allowed is False:
        found |= {"enabled": False, "disabled_reason": "robots.txt does not allow it"}
    found["title"] = found.get("title") or name or host
    identifiers = collector in CATALOGUES and not host
    found["id"] = id_from(f"{collector}-{location}" if identifiers else str(found["title"]) if host else name)
    return found


def objections(probe: Probe, max_file_bytes: int) -> list[str]:
    """Return what speaks against collecting from the address, in words."""
    found = []
    if probe.allowed is False:
        found.append("robots.txt does not allow it: every item would be a robots_denied reject")
    if probe.size_bytes is not None and probe.size_bytes > max_file_bytes:
        found.append(f"{probe.size_bytes:,} bytes are more than collect.max_file_bytes ({max_file_bytes:,}): too_large")
    if probe.sample and detect(probe.sample, probe.address).kind == "binary":
        found.append("the first bytes are of no type that can be read: unknown_type")
    return found


def _host(location: str) -> str:
    return (urlsplit(location).hostname or "").removeprefix("www.") if "://" in location else ""


def _collector(location: str, probe: Probe | None) -> str:
    host = _host(location)
    if host in HOSTS:
        return HOSTS[host][0]
    kind = detect(probe.sample, location).kind if probe and probe.sample else ""
    if kind in ROW_KINDS:
        return "rows"
    if kind == "mediawiki":
        return "mediawiki"
    return "web" if host else "folder"


def _title(sample: bytes, kind: str) -> str:
    if kind not in ("html", "tei", "xml"):
        return ""
    try:
        text = decode(sample).text
    except DecodeFailed:
        return ""
    match = TITLE.search(text)
    return " ".join(re.sub(r"<[^>]+>", " ", match[1]).split())[:200] if match else ""
