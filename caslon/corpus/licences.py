"""What a licence lets one do: turns a licence as people write it into SPDX ids and one of four uses.

A text may name several licences ("CC0 markup; source CC BY-NC 3.0"): all must be kept, so the strictest counts. What says
nothing a rule knows is taken for research only, because without a licence nothing is granted that the law does not allow
anyway. Rules stand in docs/guide/sources.md. Ids are those of the SPDX licence list, https://spdx.org/licenses.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from caslon.corpus.registry_entry import ALLOWED_USES

PUBLIC_DOMAIN = "LicenseRef-public-domain"
GUTENBERG = "LicenseRef-Project-Gutenberg"

# Words that leave the licence open, whatever else the text says.
VARIOUS = re.compile(
    r"\b(?:various|varies|varying|mixed|several licen[cs]es|(?:see|depends on) (?:each|every|the|individual) \w+)\b"
)
# Words that leave it open when the text grants nothing else ("public domain text; repository states no licence" does).
UNSTATED = re.compile(
    r"\b(?:unknown|unclear|undetermined|unspecified|not (?:stated|specified|known|in the public domain)|no licen[cs]e|none"
    r"|n/?a|tbd)\b"
)
CREATIVE_COMMONS = re.compile(
    r"\b(?:cc|creative commons(?: attribution)?|creativecommons\.org/licenses/)[\s/-]*(?P<kind>(?:(?:by|nc|sa|nd)\b[\s/-]*)+)"
    r"(?P<version>[1-4]\.\d)?(?:[\s/-]+(?P<country>us|uk|de|fr|nl)\b)?"
)
# Long names, rewritten to the short ones before the pattern above looks.
LONG_NAMES = (
    (re.compile(r"non[\s-]?commercial"), "nc"),
    (re.compile(r"share[\s-]?alike"), "sa"),
    (re.compile(r"no[\s-]?deriv(?:atives|s)?\b"), "nd"),
    (re.compile(r"(creative commons|cc)[\s-]+attribution"), r"\1 by"),
)
GRANTS = (  # pattern, SPDX id
    (r"\bcc[\s-]?0\b|creative commons zero|publicdomain/zero", "CC0-1.0"),
    (r"(?<!not in the )\bpublic domain\b|\bpdm\b|publicdomain/mark|no known copyright", PUBLIC_DOMAIN),
    (r"(?:project gutenberg|gutenberg) licen[cs]e", GUTENBERG),
    (r"\bogl(?:-uk)?[\s-]*v?1(?:\.0)?\b|open government licen[cs]e v?1", "OGL-UK-1.0"),
    (r"\bogl(?:-uk)?[\s-]*v?2(?:\.0)?\b|open government licen[cs]e v?2", "OGL-UK-2.0"),
    (r"\bogl\b(?![\s-]*(?:uk)?[\s-]*v?[12])|open government licen[cs]e(?! v?[12])", "OGL-UK-3.0"),
    (r"\bmit\b", "MIT"),
    (r"\bapache\b", "Apache-2.0"),
    (r"\bbsd[\s-]2", "BSD-2-Clause"),
    (r"\bbsd\b(?![\s-]2)", "BSD-3-Clause"),
    (r"\bpsf\b|python software foundation", "PSF-2.0"),
    (r"\bodc-?by\b", "ODC-By-1.0"),
    (r"\bodbl\b|open database licen[cs]e", "ODbL-1.0"),
    (r"\bagpl\b", "AGPL-3.0-or-later"),
    (r"\blgpl\b", "LGPL-3.0-or-later"),
    (r"\bgpl[\s-]?v?2", "GPL-2.0-or-later"),
    (r"\bgpl\b(?![\s-]?v?2)", "GPL-3.0-or-later"),
    (r"\bgfdl\b", "GFDL-1.3-or-later"),
)  # fmt: skip
LIMITS = (  # pattern, use it limits to
    (r"\bnc\b|not for commercial|no commercial|commercial use (?:is )?(?:not|prohibited|forbidden)", "non_commercial"),
    (r"\bnd\b", "research"),  # cleaned text is an adaptation, which may not be passed on
    (r"research (?:use |purposes )?only|for research|non-profit research|scholarly|academic use|educational use|private study"
     r"|personal use", "research"),
    (r"all rights reserved|proprietary|confidential|\bprivate\b(?! study)|no re-?use|may not be (?:copied|used)", "none"),
)  # fmt: skip


@dataclass(frozen=True)
class Licence:
    """A licence text with what it was understood to say."""

    text: str
    spdx: tuple[str, ...]  # ids it names, sorted; `LicenseRef-` where SPDX has none; empty when none was recognised
    allowed_use: str  # any, non_commercial, research or none
    vague: bool  # it says itself that it does not tell ("various", "not stated")
    recognised: bool  # it says something a rule knows; if not, its use is a guess on the safe side


@lru_cache(maxsize=1024)  # an inventory repeats a few texts ten thousand times
def licence_of(text: str) -> Licence:
    """Return what a licence text, an SPDX id or an address of a licence says."""
    plain = _plain(text)
    spdx = tuple(sorted({*_creative_commons(plain), *(name for pattern, name in GRANTS if re.search(pattern, plain))}))
    limits = _limits(plain)
    vague = bool(VARIOUS.search(plain)) or (not spdx and not limits and bool(UNSTATED.search(plain) or not plain))
    said = [*limits, *(["any"] if spdx else []), *(["research"] if vague else [])]
    return Licence(text, spdx, strictest(said) if said else "research", vague, recognised=bool(said))


def strictest(uses: Iterable[str]) -> str:
    """Return the strictest of some allowed uses; `any` of none."""
    return max(uses, key=ALLOWED_USES.index, default="any")


def denial(allowed_use: str, licence: str, *, commercial_use: bool) -> str:
    """Return why a text may not enter the corpus, in words; empty when it may."""
    if allowed_use == "none":
        return f"the licence '{licence}' allows no use"
    if commercial_use and allowed_use != "any":
        return (
            f"the licence '{licence}' allows {allowed_use.replace('_', '-')} use only, and commercial_use is asked for"
        )
    return ""


def _plain(text: str) -> str:
    plain = " ".join(text.lower().replace("_", " ").split())
    for pattern, short in LONG_NAMES:
        plain = pattern.sub(short, plain)
    return plain


def _limits(plain: str) -> list[str]:
    return [use for pattern, use in LIMITS if re.search(pattern, plain)]


def _creative_commons(plain: str) -> list[str]:
    found = []
    for match in CREATIVE_COMMONS.finditer(plain):
        kind = "-".join(
            part for part in ("by", "nc", "nd", "sa") if part in re.split(r"[\s/-]+", match["kind"])
        ).upper()
        parts = ["CC", kind, *(part.upper() for part in (match["version"], match["country"]) if part)]
        found.append("-".join(parts) if match["version"] else "LicenseRef-" + "-".join(parts))
    return found
