"""Every figure of a corpus report as plain JSON values, and what of it a reader should be warned of."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from caslon.corpus.licences import strictest
from caslon.corpus.pipeline import Totals
from caslon.corpus.registry import SourceEntry
from caslon.corpus.report.survey import Survey
from caslon.corpus.settings import CorpusSettings

USUAL_KEPT_SHARE = (0.70, 0.90)  # the experience with the published London corpus
FEW_DOCUMENTS = 10  # no share is told from fewer
LARGE_SOURCE_SHARE = 0.5
LARGEST_CLUSTERS = 10

# What the published London corpus states of itself, for the page to show beside ours.
PUBLISHED_LONDON = {
    "sources": "218+",
    "characters claimed": 500_000_000,
    "characters measured without Old Bailey and London Lives": 270_000_000,
    "raw bytes": 521_000_000,
    "processed bytes": 263_000_000,
    "bytes of token ids": 126_000_000,
    "segments near 2,000 characters": 250_000,
    "London Lives pages": 240_000,
    "trials": 197_000,
    "files kept": "70-90 %",
}


def numbers_of(
    totals: Totals,
    found: Survey,
    entries: Sequence[SourceEntry],
    settings: CorpusSettings,
    truth: dict[str, Any] | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Return every figure of the report. Times stand under `seconds` alone."""
    return {
        **totals.to_json(),
        "sources": _sources(totals, found, entries),
        "rejects_by_source": {
            source: {code: times for (of, code), times in sorted(found.rejects.items()) if of == source}
            for source in sorted({source for source, _ in found.rejects})
        },
        "reject_steps": {
            code: sorted({step for step, of in found.reject_steps if of == code})
            for code in sorted({code for _, code in found.reject_steps})
        },
        "reject_characters": dict(sorted(found.reject_characters.items())),
        "licence_characters": dict(found.licences.most_common()),
        "allowed_use": strictest(found.uses) if found.uses else "any",
        "allowed_use_characters": dict(found.uses.most_common()),
        "tiers": dict(found.tiers.most_common()),
        "decades": {str(decade): times for decade, times in sorted(found.decades.items())},
        "decade_characters": {str(decade): count for decade, count in sorted(found.decade_characters.items())},
        "language_characters": dict(found.languages.most_common()),
        "period_verdicts": dict(sorted(found.verdicts.items())),
        "lengths": {str(border): times for border, times in sorted(found.lengths.items())},
        "scores": {tier: _by_border(counts) for tier, counts in sorted(found.scores.items())},
        "meaningful_ratios": _by_border(found.ratios),
        "removals": dict(sorted(found.removals.items())),
        "removed_characters": dict(sorted(found.removed_characters.items())),
        "repairs": dict(sorted(found.repairs.items())),
        "ocr": {name: count for name, count in sorted(found.ocr.items()) if count},
        "privacy": dict(sorted(found.privacy.items())),
        "privacy_settings": settings.privacy.model_dump(),
        "clusters": _clusters(found.clusters),
        "bias": found.bias.to_json(),
        "inventory": truth,
        "published_london": PUBLISHED_LONDON if settings.period == (1500, 1850) else None,
        "seconds": {
            "total": round(seconds, 1) if seconds is not None else None,
            **{name: round(counts.seconds, 2) for name, counts in totals.steps.items()},
        },
    }


def _sources(totals: Totals, found: Survey, entries: Iterable[SourceEntry]) -> dict[str, Any]:
    known = {entry.id: entry for entry in entries}
    return {
        source: {
            "title": known[source].title if source in known else "",
            "licence": known[source].licence if source in known else "",
            "raw_files": totals.raw_files[source],
            "raw_bytes": totals.raw_bytes_of[source],
            "documents": found.documents[source],
            "characters": found.characters[source],
            "rejected": found.rejected[source],
            "kept_share": _ratio(found.documents[source], found.documents[source] + found.rejected[source]),
            "kept_character_share": _ratio(
                found.characters[source], found.characters[source] + found.rejected_characters[source]
            ),
        }
        for source in sorted({*totals.raw_files, *found.documents})
    }


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _by_border(counts: Mapping[float, int]) -> dict[str, int]:
    return {f"{border:g}": counts[border] for border in sorted(counts)}


def _clusters(copies: Counter[str]) -> dict[str, Any]:
    """Return how many clusters of copies there are by size, and the largest with the document that stays."""
    sizes = Counter(count + 1 for count in copies.values())
    return {
        "by_size": {str(size): times for size, times in sorted(sizes.items())},
        "largest": {kept: count + 1 for kept, count in sorted(copies.items(), key=_largest_first)[:LARGEST_CLUSTERS]},
    }


def _largest_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def warnings_of(numbers: Mapping[str, Any]) -> list[str]:
    """Return what a reader should know first."""
    found = list(numbers.get("warnings", ()))
    low, high = USUAL_KEPT_SHARE
    for source, row in numbers["sources"].items():
        kept = row["kept_share"]
        if kept is not None and row["documents"] + row["rejected"] >= FEW_DOCUMENTS and kept < low:
            found.append(f"{source}: only {kept:.0%} of its documents were kept; {low:.0%} to {high:.0%} is usual.")
    if failed := numbers["rejects"].get("step_failed"):
        found.append(f"{failed:,} documents made a step fail; `caslon why ID` shows where.")
    if slow := numbers["rejects"].get("timeout"):
        found.append(f"{slow:,} files took more time or memory than `limits` allow.")
    if denied := numbers["rejects"].get("licence_denied"):
        found.append(f"{denied:,} files were left out because of their licence.")
    unknown = numbers["period_verdicts"].get("unknown", 0)
    if unknown:
        found.append(f"{unknown:,} documents have no known year and were kept.")
    total = max(numbers["characters"], 1)
    for source, row in numbers["sources"].items():
        if len(numbers["sources"]) > 1 and row["characters"] / total > LARGE_SOURCE_SHARE:
            found.append(f"{source} makes up {row['characters'] / total:.0%} of the corpus.")
    if numbers.get("allowed_use", "any") != "any":
        found.append(
            f"The whole corpus is for {numbers['allowed_use'].replace('_', '-')} use, as its strictest licence asks."
        )
    return found
