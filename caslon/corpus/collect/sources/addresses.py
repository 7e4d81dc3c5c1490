"""What a location may hold: turns `a, b, c` into addresses or identifiers, and an address into a file name."""

import re
from urllib.parse import parse_qsl, unquote, urldefrag, urlencode, urlsplit, urlunsplit

NO_LIMIT = 1 << 50  # for files that are read in parts
SESSION_PARAMETERS = re.compile(r"(?:utm_\w+|fbclid|gclid|phpsessid|jsessionid|sid)", re.IGNORECASE)


def listed(location: str) -> list[str]:
    """Return what stands between commas or white space, in order, each once."""
    return list(dict.fromkeys(part for part in re.split(r"[,\s]+", location) if part))


def file_name(url: str) -> str:
    """Return a file name for an address: its last path segment, with the query where there is one."""
    parts = urlsplit(url)
    name = unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.netloc
    query = re.sub(r"[^\w=&.-]+", "_", parts.query)
    return re.sub(r"[\\/\0]+", "_", f"{name}?{query}" if query else name)


def page_path(url: str) -> str:
    """Return a name for a page of a site: host and path without the scheme, so that it is unique among sites."""
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.netloc}{unquote(parts.path) or '/'}{query}"


def canonical(url: str) -> str:
    """Return the address in one spelling: lower-case host, no fragment, no default port, no tracking, sorted query."""
    parts = urlsplit(urldefrag(url).url)
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").lower()
    port = parts.port if parts.port not in (None, {"http": 80, "https": 443}.get(scheme)) else None
    query = sorted(pair for pair in parse_qsl(parts.query, keep_blank_values=True) if not _is_session(pair[0]))
    netloc = f"[{host}]" if ":" in host else host
    return urlunsplit((scheme, f"{netloc}:{port}" if port else netloc, parts.path or "/", urlencode(query), ""))


def _is_session(name: str) -> bool:
    return SESSION_PARAMETERS.fullmatch(name) is not None
