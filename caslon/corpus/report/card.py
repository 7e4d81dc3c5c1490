"""The numbers of a corpus to its data card: Markdown with Hugging Face front matter, without times and places."""

from collections.abc import Mapping, Sequence
from typing import Any

from caslon.corpus.registry import SourceEntry
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import SPLITS
from caslon.report.page import share

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
SHOWN_DECADES = 12
USE_IN_WORDS = {
    "any": "any use",
    "research": "research only",
    "non_commercial": "non-commercial use only",
    "none": "no use",
}


def data_card(entries: Sequence[SourceEntry], settings: CorpusSettings, numbers: Mapping[str, Any]) -> str:
    """Return the card. Every figure in it stands in `report.json`."""
    used = [entry for entry in entries if numbers["sources"].get(entry.id, {}).get("documents")]
    parts = [
        _front_matter(settings, numbers),
        [
            "# Corpus",
            "",
            f"{numbers['documents']:,} documents with {numbers['characters']:,} characters "
            f"({numbers['text_bytes']:,} bytes of UTF-8) in {numbers['segments']:,} segments. "
            f"Dataset id `{numbers['dataset_id']}`.",
            "",
        ],
        _sources(used, numbers),
        _use(numbers),
        _years_and_languages(settings, numbers),
        _splits(numbers),
        _steps(numbers),
        _privacy(settings, numbers),
        _limits(settings, numbers),
        [
            "## Rebuilding",
            "",
            "Run the recipe whose `[corpus]` settings stand in `manifest.json` on the same sources: the dataset id is the same.",
            "",
        ],
    ]
    return "\n".join(line for part in parts for line in part)


def _front_matter(settings: CorpusSettings, numbers: Mapping[str, Any]) -> list[str]:
    languages = [f"- {language}" for language in settings.languages] or ["- und"]
    configs = []
    for name in ("segments", "documents"):
        configs += [f"- config_name: {name}", *(["  default: true"] if name == "segments" else []), "  data_files:"]
        for split in SPLITS:
            if numbers["splits"][split]["documents"]:
                configs += [f"  - split: {split}", f"    path: {name}/{split}-*.parquet"]
    return [
        "---",
        "language:",
        *languages,
        "task_categories:",
        "- text-generation",
        f"size_categories:\n- {_size_category(numbers['segments'])}",
        "configs:",
        *configs,
        "---",
        "",
    ]


def _size_category(rows: int) -> str:
    for limit, name in SIZES:
        if rows < limit:
            return name
    return "1M<n<10M" if rows < 10_000_000 else "10M<n<100M"


def _sources(used: Sequence[SourceEntry], numbers: Mapping[str, Any]) -> list[str]:
    rows = []
    for entry in used:
        row = numbers["sources"][entry.id]
        rows.append(
            f"| {entry.id} | {_cell(entry.title)} | {_cell(entry.licence or 'not stated')} | {row['documents']:,} "
            f"| {row['characters']:,} | {share(row['characters'], numbers['characters'])} |"
        )
    head = ["| source | title | licence | documents | characters | share |", "|---|---|---|---:|---:|---:|"]
    return ["## Sources", "", *head, *rows, ""]


def _use(numbers: Mapping[str, Any]) -> list[str]:
    by_use = ", ".join(
        f"{use.replace('_', '-')} {share(count, numbers['characters'])}"
        for use, count in numbers["allowed_use_characters"].items()
    )
    denied = numbers["rejects"].get("licence_denied", 0)
    lost = f" {denied:,} files were left out because of their licence." if denied else ""
    return [
        "## Allowed use",
        "",
        f"The whole is for **{USE_IN_WORDS[numbers['allowed_use']]}**, as the strictest of its licences asks. "
        f"Characters by allowed use: {by_use or 'none'}.{lost}",
        "",
    ]


def _years_and_languages(settings: CorpusSettings, numbers: Mapping[str, Any]) -> list[str]:
    decades = sorted(numbers["decade_characters"].items(), key=lambda item: -item[1])[:SHOWN_DECADES]
    years = ", ".join(f"{decade}s {count:,}" for decade, count in sorted(decades))
    found = ", ".join(
        f"{name} {count:,}" for name, count in list(numbers["language_characters"].items())[:SHOWN_DECADES]
    )
    lines = ["## Years and languages", ""]
    if settings.period:
        lines.append(f"Wanted: {settings.period[0]} to {settings.period[1]}. ")
    lines += [
        f"Characters by decade (the largest): {years or 'no year is known'}.",
        "",
        f"Characters by language, as recognised: {found or 'not judged'}.",
        "",
    ]
    return lines


def _splits(numbers: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {split} | {row['documents']:,} | {row['segments']:,} | {row['characters']:,} |"
        for split, row in numbers["splits"].items()
    ]
    leakage = numbers["leakage"]
    shared = (
        f" {leakage['with_shared_runs']:,} of {leakage['held_out_segments']:,} held-out segments share a run of 13 words with "
        "the training text."
        if leakage
        else ""
    )
    return [
        "## Splits",
        "",
        "| split | documents | segments | characters |",
        "|---|---:|---:|---:|",
        *rows,
        "",
        "Documents of one group (work, file, court session, copies of a text) never stand in different splits, nor do equal "
        f"segments.{shared}",
        "",
    ]


def _steps(numbers: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in numbers["order_of_steps"]:
        row = numbers["steps"][name]
        rows.append(
            f"| {name} | {row['documents_in']:,} | {row['documents_rejected']:,} | {row['characters_in']:,} "
            f"| {row['characters_rejected']:,} | {row['characters_removed']:,} |"
        )
    dropped = ", ".join(f"{code} {times:,}" for code, times in numbers["rejects"].items()) or "nothing"
    return [
        "## Steps",
        "",
        "| step | documents in | rejected | characters in | rejected | removed |",
        "|---|---:|---:|---:|---:|---:|",
        *rows,
        "",
        f"Dropped: {dropped}. Every dropped text is kept in `rejects/`.",
        "",
    ]


def _privacy(settings: CorpusSettings, numbers: Mapping[str, Any]) -> list[str]:
    actions: dict[str, list[str]] = {}
    for kind, action in settings.privacy.model_dump().items():
        actions.setdefault(action, []).append(kind)
    done = "; ".join(f"{action}: {', '.join(kinds)}" for action, kinds in sorted(actions.items()))
    found = ", ".join(f"{kind} {count:,}" for kind, count in numbers["privacy"].items()) or "none"
    return [
        "## Personal data",
        "",
        f"Looked for by pattern, by type: {done}. Found: {found}. Masked values stand in no exported text; the raw files, "
        "`read/` and `rejects/` still hold them, so do not hand those on. Names of persons are part of historical records.",
        "",
    ]


def _limits(settings: CorpusSettings, numbers: Mapping[str, Any]) -> list[str]:
    lines = ["## Gaps and biases", ""]
    bias = numbers["bias"]
    if bias["words"]:
        lines.append(
            f"- Counted over {bias['words']:,} words; pronouns, identity terms, places and slurs stand in the report."
        )
    if settings.period:
        first, last = settings.period
        unknown = numbers["period_verdicts"].get("unknown", 0)
        lines.append(f"- Period {first} to {last}; {unknown:,} documents without a known year are among the kept ones.")
    lines += [
        "- Patterns find most personal data, not all.",
        "- A text whose sentences were shuffled passes these filters.",
        "",
    ]
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
