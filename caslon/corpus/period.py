"""Whether a text was written in the years a corpus is about: from structured dates, registered years and the text itself.

A date printed in a modern text does not save it (only structured dates and registered years count, and strong evidence in the
text is stronger), and the year of a modern edition does not condemn an old work whose own date is known.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from caslon.corpus.document import Document, Reject
from caslon.corpus.filters import reject
from caslon.corpus.settings import CorpusSettings

STEP = "period"
# The look back stands behind the year, so that the search can leap from digit to digit.
YEAR = re.compile(r"(1[0-9]{3}|20[0-9]{2})(?<![\d.,/£$].{4})(?![\d/]|[.,]\d)", re.DOTALL)
WORD = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
APPARATUS = re.compile(
    r"\bisbn\b|https?://|www\.\w|©|copyright\s+(?:\(c\)\s*)?(?:19|20)\d\d\b|\(c\)\s*(?:19|20)\d\d\b"
    r"|all rights reserved|cookies?\s+policy|enable javascript|^```|\s--[a-z]{3,}\b"
    r"|\w\.(?:py|js|json|html|toml|yaml|com|org|net)\b",
    re.MULTILINE,
)  # in lower case
APPARATUS_SIGNS = ("isbn", "http", "www.", "©", "copyright", "(c)", "all rights", "cookie", "javascript", "```", " --")
FILE_NAME = re.compile(
    r"\.(?:py|js|html|toml|yaml|com|org|net)"
)  # this or a sign stands in every match; both are found fast
WORDS_AND_SPACES = bytes(  # of lower-case text: what a word is made of stays, all else is a space
    code if chr(code) in "abcdefghijklmnopqrstuvwxyz0123456789-" else 0x20 for code in range(256)
)
CLEAR_TERMS = 3  # distinct later words that condemn a text ...
CLEAR_TERMS_PER_1000_WORDS = 1.0  # ... when they are this frequent
CLEAR_APPARATUS = 3  # marks of modern publishing that condemn a text ...
CLEAR_APPARATUS_PER_1000_WORDS = 2.0  # ... when they are this frequent
CLEAR_YEARS = 5  # four-digit years from which a verdict is drawn
CLEAR_LATER_YEARS_SHARE = 0.5
FEW_YEARS = 2  # enough when all are later and nothing else is known
SHORT_TEXT_WORDS = 300
OVERWHELMING = 5  # against a known date in the period: this many times the evidence (an editor's notes are no proof)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a text itself says about its age."""

    words: int
    years: int
    later_years: int
    later_terms: tuple[tuple[str, int], ...]  # word and number of times, most frequent first
    apparatus: int

    @property
    def modernity(self) -> float:
        """How strongly the text looks later than the period; 1.0 is where a text without a date is condemned."""
        terms = sum(times for _, times in self.later_terms)
        per_1000 = 1000 * terms / max(self.words, SHORT_TEXT_WORDS)
        by_terms = per_1000 / CLEAR_TERMS_PER_1000_WORDS if len(self.later_terms) >= CLEAR_TERMS else 0.0
        marks = 1000 * self.apparatus / max(self.words, SHORT_TEXT_WORDS)
        by_apparatus = marks / CLEAR_APPARATUS_PER_1000_WORDS if self.apparatus >= CLEAR_APPARATUS else 0.0
        enough = self.years >= CLEAR_YEARS
        by_years = self.later_years / self.years / CLEAR_LATER_YEARS_SHARE if enough else 0.0
        return max(by_terms, by_apparatus, by_years)


@cache
def later_terms() -> dict[str, int]:
    """Return the words whose first attestation is known, with its year."""
    text = files("caslon.corpus").joinpath("later_terms.json").read_text(encoding="utf-8")
    terms: dict[str, int] = json.loads(text)["terms"]
    return terms


@cache
def _terms_after(last_year: int) -> frozenset[str]:
    return frozenset(word for word, year in later_terms().items() if year > last_year)


def evidence(text: str, last_year: int) -> Evidence:
    """Return what the text says about being later than `last_year`. A line that is repeated says it once."""
    text = "\n".join(dict.fromkeys(text.split("\n")))
    lowered = text.lower()
    words = _words(lowered)
    later = [(word, words[word]) for word in _terms_after(last_year).intersection(words)]
    years = [int(year) for year in YEAR.findall(text)]
    may_have_apparatus = any(map(lowered.__contains__, APPARATUS_SIGNS)) or FILE_NAME.search(lowered)
    return Evidence(
        words=words.total(),
        years=len(years),
        later_years=sum(year > last_year for year in years),
        later_terms=tuple(sorted(later, key=lambda item: (-item[1], item[0]))),
        apparatus=len(APPARATUS.findall(lowered)) if may_have_apparatus else 0,
    )


def _words(lowered: str) -> Counter[str]:
    """Return how often each word stands in a text in lower case; most parts between blanks are words as they are."""
    counts = Counter(lowered.encode("utf-8", "replace").translate(WORDS_AND_SPACES).decode("ascii").split())
    for part in [part for part in counts if not part.isalpha()]:
        times = counts.pop(part)
        for word in WORD.findall(part):
            counts[word] += times
    return counts


def period(document: Document, settings: CorpusSettings) -> Document | Reject:
    """Return the document with its verdict (`in` or `unknown`) and the evidence, or an `out_of_period` reject."""
    if settings.period is None:
        return document
    first, last = settings.period
    found = evidence(document.text, last)
    verdict, reason = _verdict(document, found, first, last)
    judged = replace(
        document.with_scores(modernity=round(found.modernity, 3)),
        metadata={
            **document.metadata,
            "period": verdict,
            "period_reason": reason,
            "period_evidence": {
                "years": found.years,
                "later_years": found.later_years,
                "later_terms": dict(found.later_terms[:10]),
                "apparatus": found.apparatus,
            },
        },
    )
    if verdict == "out" or (verdict == "unknown" and settings.unknown_period == "drop"):
        return reject(judged, STEP, "out_of_period", reason)
    return judged


def _verdict(document: Document, found: Evidence, first: int, last: int) -> tuple[str, str]:
    """Return `in`, `out` or `unknown` and why: the document's own date first, then its source's years, then its words."""
    registered = document.metadata.get("time_period")
    if document.year is not None and not _of_an_edition(document, registered, found, last):
        return _dated_verdict(document.year, found, first, last)
    if registered and (registered[1] < first or registered[0] > last):
        return "out", f"its source covers {registered[0]} to {registered[1]}, not {first} to {last}"
    if found.modernity >= 1.0:
        return "out", f"no date of its own, and the text is later: {_in_words(found)}"
    if registered and first <= registered[0] and registered[1] <= last:
        return "in", f"its source covers {registered[0]} to {registered[1]}"
    return _undated_verdict(found, last)


def _undated_verdict(found: Evidence, last: int) -> tuple[str, str]:
    if found.later_years == found.years >= FEW_YEARS:
        return "out", f"no date of its own, and all {found.years} years it names are later"
    if found.years >= CLEAR_YEARS and found.later_years == 0 and found.modernity == 0:
        return "in", f"{found.years} years named in the text, none after {last}"
    return "unknown", "no date, and the text does not tell"


def _of_an_edition(document: Document, registered: Sequence[int] | None, found: Evidence, last: int) -> bool:
    """Return whether a late date in a file's header belongs to a modern edition of an old work.

    So it is when the source is registered with years of the period and the text shows no sign of a later time. A record's own
    date (a trial's, a row's) is never an edition's.
    """
    late = document.year is not None and document.year > last
    return (
        late
        and not document.origin.record
        and registered is not None
        and registered[1] <= last
        and found.modernity < 1.0
    )


def _dated_verdict(year: int, found: Evidence, first: int, last: int) -> tuple[str, str]:
    if not first <= year <= last:
        return "out", f"dated {year}, not {first} to {last}"
    if found.modernity >= OVERWHELMING:
        return "out", f"dated {year}, but the text is later: {_in_words(found)}"
    return "in", f"dated {year}"


def _in_words(found: Evidence) -> str:
    terms = ", ".join(f"{word} ({times})" for word, times in found.later_terms[:5])
    parts = [
        f"{found.later_years} of {found.years} years are later" if found.later_years else "",
        f"words first used later: {terms}" if terms else "",
        f"{found.apparatus} marks of modern publishing (addresses, copyright lines)" if found.apparatus else "",
    ]
    return "; ".join(part for part in parts if part) or "nothing"
