"""The installed package to the commit it was made from: as the installer noted it, or as the checkout that it runs from says.

Source of the installer's note: https://peps.python.org/pep-0610/
"""

import json
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import caslon

UNKNOWN = "unknown"
GIT_SECONDS = 10


@cache
def commit() -> str:
    """Return the commit's hash, with `-dirty` where files of a checkout differ from it; `unknown` in any other case."""
    return _installed() or _checked_out(Path(caslon.__file__).parents[1]) or UNKNOWN


def _installed() -> str | None:
    try:
        note = distribution("caslon").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    found = json.loads(note).get("vcs_info", {}).get("commit_id") if note else None
    return found if isinstance(found, str) else None


def _checked_out(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        asked = subprocess.run(  # noqa: S603 - our own words
            describe, capture_output=True, text=True, check=True, timeout=GIT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip()
