"""What a corpus holds, for people: `report.html` with its numbers in `report.json`, and the data card `README.md`.

Every number is counted from the finished Parquet files and the pipeline's counts; the card states the same figures.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import pyarrow.parquet as pq

from caslon.corpus.document import Reject
from caslon.corpus.pipeline import Totals
from caslon.corpus.registry import SourceEntry
from caslon.corpus.settings import CorpusSettings
from caslon.corpus.shards import SPLITS, read_rejects, shard_paths
from caslon.folders import write_atomic
from caslon.report import blocks
from caslon.report.blocks import (
    Block,
    Chart,
    Charts,
    Details,
    Fact,
    Facts,
    Notice,
    Page,
    PathStep,
    Section,
    Series,
    Table,
    Text,
)
from caslon.report.page import readable_bytes, share, write_page

EXAMPLES_PER_CODE = 3
EXAMPLE_CHARACTERS = 400
SAMPLE_CHARACTERS = 700
SAMPLES_PER_SOURCE = 1
LICENCE_CHARACTERS = 80  # an archive may hold files under many
MAXIMUM_SAMPLED_SOURCES = 12
USUAL_KEPT_SHARE = (0.70, 0.90)  # the experience with the published London corpus
HISTOGRAM_VALUES = 20_000  # a histogram of more looks the same

WHAT_A_STEP_DOES = {
    "read": "found in the raw files",
    "repair": "encoding, spaces, hyphens",
    "language": "the wanted languages",
    "period": "the wanted years",
    "quality": "length, words, adverts, repetition",
    "exact duplicates": "the same letters",
    "near duplicates": "nearly the same runs of words",
    "segments": "cut and written",
}
USES = {"any": 0, "research": 1, "non_commercial": 2, "none": 3}


@dataclass
class Survey:
    """What is counted in one pass over the finished files."""

    documents: Counter[str] = field(default_factory=Counter)  # by source
    characters: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)  # characters
    tiers: Counter[str] = field(default_factory=Counter)
    decades: Counter[int] = field(default_factory=Counter)
    years: list[int] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    removals: Counter[str] = field(default_factory=Counter)
    removed_characters: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    rejects: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source, code)
    reject_characters: Counter[str] = field(default_factory=Counter)
    reject_steps: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[str, list[Reject]] = field(default_factory=dict)


def survey(corpus_folder: Path) -> Survey:
    """Return what the documents and rejects of a corpus folder add up to."""
    found = Survey()
    for row in _document_rows(corpus_folder):
        _survey_document(found, row)
    for reject in read_rejects(corpus_folder):
        found.rejects[reject.origin.source, reject.code] += 1
        found.reject_steps[reject.step, reject.code] += 1
        found.reject_characters[reject.code] += len(reject.text)
        examples = found.examples.setdefault(reject.code, [])
        if len(examples) < EXAMPLES_PER_CODE:
            examples.append(reject)
    return found


def _document_rows(corpus_folder: Path) -> Iterator[dict[str, Any]]:
    columns = [
        "text",
        "title",
        "source",
        "characters",
        "licence",
        "tier",
        "year",
        "score",
        "scores",
        "metadata",
        "removals",
    ]
    for path in shard_paths(corpus_folder, "documents"):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns=columns, use_threads=False).to_pylist()


def _survey_document(found: Survey, row: dict[str, Any]) -> None:
    source, characters = row["source"], row["characters"]
    scores, metadata = json.loads(row["scores"]), json.loads(row["metadata"])
    found.documents[source] += 1
    found.characters[source] += characters
    found.licences[row["licence"] or "not stated"] += characters
    found.tiers[row["tier"]] += 1
    if row["year"] is not None:
        found.decades[row["year"] // 10 * 10] += 1
    for language, part in metadata.get("language_shares", {}).items():
        found.languages[language] += round(part * characters)
    if "period" in metadata:
        found.verdicts[metadata["period"]] += 1
    if len(found.lengths) < HISTOGRAM_VALUES:
        found.lengths.append(characters)
        found.scores.append(row["score"])
        if "meaningful_ratio" in scores:
            found.ratios.append(scores["meaningful_ratio"])
    for removal in json.loads(row["removals"]):
        found.removals[removal["code"]] += 1
        found.removed_characters[removal["code"]] += len(removal["text"])
    found.repairs.update(metadata.get("repairs", {}))
    samples = found.samples.setdefault(source, [])
    if len(samples) < SAMPLES_PER_SOURCE:
        samples.append((row["title"], row["text"][:SAMPLE_CHARACTERS]))


def numbers_of(totals: Totals, found: Survey, seconds: float | None = None) -> dict[str, Any]:
    """Return every figure of the report as plain JSON values. Times stand under `seconds` alone."""
    return {
        **totals.to_json(),
        "sources": {
            source: {
                "raw_files": totals.raw_files[source],
                "documents": found.documents[source],
                "characters": found.characters[source],
                "rejected": _rejected(found, source),
                "kept_share": _kept_share(found, source),
            }
            for source in sorted({*totals.raw_files, *found.documents})
        },
        "rejects_by_source": {
            source: {code: times for (of, code), times in sorted(found.rejects.items()) if of == source}
            for source in sorted({source for source, _ in found.rejects})
        },
        "reject_characters": dict(sorted(found.reject_characters.items())),
        "licence_characters": dict(found.licences.most_common()),
        "tiers": dict(found.tiers.most_common()),
        "decades": {str(decade): times for decade, times in sorted(found.decades.items())},
        "language_characters": dict(found.languages.most_common()),
        "period_verdicts": dict(sorted(found.verdicts.items())),
        "removals": dict(sorted(found.removals.items())),
        "removed_characters": dict(sorted(found.removed_characters.items())),
        "repairs": dict(sorted(found.repairs.items())),
        "seconds": {
            "total": round(seconds, 1) if seconds is not None else None,
            **{name: round(counts.seconds, 2) for name, counts in totals.steps.items()},
        },
    }


def _rejected(found: Survey, source: str) -> int:
    return sum(times for (of, code), times in found.rejects.items() if of == source and code != "short_segment")


def _kept_share(found: Survey, source: str) -> float | None:
    kept, rejected = found.documents[source], _rejected(found, source)
    return round(kept / (kept + rejected), 4) if kept + rejected else None


def write_report(
    corpus_folder: Path,
    entries: Sequence[SourceEntry],
    settings: CorpusSettings,
    totals: Totals,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Write `report.html`, `report.json` and the data card `README.md`, and return the numbers."""
    found = survey(corpus_folder)
    numbers = numbers_of(totals, found, seconds)
    write_atomic(corpus_folder / "README.md", data_card(entries, settings, numbers))
    write_page(corpus_folder / "report.html", page_of(entries, found, numbers, totals))
    return numbers


def warnings_of(numbers: dict[str, Any]) -> list[str]:
    """Return what a reader should know first."""
    found = []
    low, high = USUAL_KEPT_SHARE
    for source, row in numbers["sources"].items():
        kept = row["kept_share"]
        if kept is not None and row["documents"] + row["rejected"] >= 10 and not low <= kept <= 1.0:
            found.append(f"{source}: only {kept:.0%} of its documents were kept; {low:.0%} to {high:.0%} is usual.")
    if failed := numbers["rejects"].get("step_failed"):
        found.append(f"{failed:,} documents made a step fail; `caslon why ID` shows where.")
    unknown = numbers["period_verdicts"].get("unknown", 0)
    if unknown:
        found.append(f"{unknown:,} documents have no known year and were kept.")
    total = max(numbers["characters"], 1)
    for source, row in numbers["sources"].items():
        if len(numbers["sources"]) > 1 and row["characters"] / total > 0.5:
            found.append(f"{source} makes up {row['characters'] / total:.0%} of the corpus.")
    return found


def page_of(entries: Sequence[SourceEntry], found: Survey, numbers: dict[str, Any], totals: Totals) -> Page:
    """Return the report as a page."""
    sections = [
        Section("At a glance", _glance(numbers, totals)),
        Section("Sources", _source_blocks(entries, numbers)),
        Section("What was dropped", _reject_blocks(found, numbers)),
        Section("What the texts are like", _distribution_blocks(found, numbers)),
        Section("Splits", [_split_table(numbers)], "By hash of group and seed; copies of a text stay on one side."),
        Section("Passages", _sample_blocks(found)),
    ]
    return Page(
        title="Corpus",
        subtitle=f"{numbers['documents']:,} documents, {numbers['characters']:,} characters",
        sections=sections,
        footer=f"dataset {numbers['dataset_id']}",
        numbers=numbers,
    )


def _glance(numbers: dict[str, Any], totals: Totals) -> list[Block]:
    notices: list[Block] = [Notice(text, "warning") for text in warnings_of(numbers)]
    facts = Facts(
        [
            Fact("documents", numbers["documents"]),
            Fact("characters", numbers["characters"]),
            Fact("text", readable_bytes(numbers["text_bytes"]), note="in UTF-8"),
            Fact("segments", numbers["segments"]),
            Fact("rejects", sum(numbers["rejects"].values())),
            Fact("groups", numbers["groups"], note="never parted between splits"),
        ]
    )
    steps = [
        PathStep(
            name,
            (("documents", counts.documents_out), ("characters", counts.characters_out)),
            WHAT_A_STEP_DOES.get(name, ""),
        )
        for name, counts in totals.steps.items()
    ]
    return [*notices, facts, blocks.Path(steps), _funnel(totals)]


def _funnel(totals: Totals) -> Table:
    rows = [
        (
            name,
            counts.documents_in,
            counts.documents_rejected,
            counts.documents_out,
            counts.characters_in,
            counts.characters_rejected,
            counts.characters_removed,
            counts.characters_changed,
            counts.characters_out,
            round(counts.seconds, 2),
        )
        for name, counts in totals.steps.items()
    ]
    columns = (
        "step",
        "documents in",
        "rejected",
        "out",
        "characters in",
        "rejected ",
        "removed",
        "rewritten",
        "out ",
        "CPU seconds",
    )
    caption = (
        "In = out + rejected + removed + rewritten, at every step. Rewritten: white space, hyphens and separators "
        "(below zero: characters were added). Seconds are summed over all processes."
    )
    return Table(columns, rows, caption)


def _source_blocks(entries: Sequence[SourceEntry], numbers: dict[str, Any]) -> list[Block]:
    known = {entry.id: entry for entry in entries}
    total = numbers["characters"]
    rows = []
    for source, row in numbers["sources"].items():
        entry = known.get(source)
        kept = row["kept_share"]
        rows.append(
            (
                source,
                entry.title if entry else "",
                row["raw_files"],
                row["documents"],
                row["rejected"],
                f"{kept:.0%}" if kept is not None else "–",
                row["characters"],
                share(row["characters"], total),
                shorten(entry.licence, LICENCE_CHARACTERS, placeholder=" …") if entry else "",
            )
        )
    columns = ("source", "title", "raw files", "documents", "rejected", "kept", "characters", "share", "licence")
    return [Table(columns, rows)]


def _reject_blocks(found: Survey, numbers: dict[str, Any]) -> list[Block]:
    if not numbers["rejects"]:
        return [Text("Nothing was dropped.")]
    codes = sorted(numbers["rejects"], key=lambda code: -numbers["rejects"][code])
    sources = sorted({source for source, _ in found.rejects})
    chart = Chart(
        "Rejects by code",
        [Series("rejects", [numbers["rejects"][code] for code in codes], codes)],
        kind="bar",
        horizontal=True,
        x_label="documents (for short_segment: pieces)",
        description="How many documents each reject code took.",
    )
    table = Table(
        ("code", "step", "rejects", "characters", *sources),
        [
            (
                code,
                ", ".join(sorted({step for step, of in found.reject_steps if of == code})),
                numbers["rejects"][code],
                found.reject_characters[code],
                *(found.rejects[source, code] for source in sources),
            )
            for code in codes
        ],
        "All are kept whole in rejects/, with their text: `caslon why ID`.",
    )
    examples = [
        Details(f"{code}: examples", [_example_table(found.examples[code])]) for code in codes if code in found.examples
    ]
    return [chart, table, *examples]


def _example_table(rejects: Sequence[Reject]) -> Table:
    rows = [(reject.id, reject.origin.address, reject.reason, reject.text[:EXAMPLE_CHARACTERS]) for reject in rejects]
    return Table(("id", "address", "reason", "text"), rows)


def _distribution_blocks(found: Survey, numbers: dict[str, Any]) -> list[Block]:
    charts = [
        Chart(
            "Length of documents",
            [Series("documents", found.lengths)],
            kind="histogram",
            x_label="characters",
            y_label="documents",
            description="Histogram of document lengths in characters.",
        )
    ]
    if found.ratios:
        charts += [
            Chart("Quality score", [Series("documents", found.scores)], kind="histogram", x_label="score, 0 to 100"),
            Chart("Meaningful words", [Series("documents", found.ratios)], kind="histogram", x_label="share of words"),
        ]
    if len(found.decades) > 1:
        decades = sorted(found.decades)
        series = Series("documents", [found.decades[decade] for decade in decades], decades)
        charts.append(Chart("Decades", [series], kind="bar", x_label="decade", y_label="documents"))
    shown: list[Block] = [Charts(charts)]
    for title, what, unit in (
        ("Languages", "language_characters", "characters"),
        ("Tiers", "tiers", "documents"),
        ("Licences", "licence_characters", "characters"),
        ("Period", "period_verdicts", "documents"),
        ("Removed inside kept documents", "removed_characters", "characters"),
        ("Repairs", "repairs", "times"),
    ):
        if numbers[what]:
            shown.append(Table((title, unit), list(numbers[what].items())))
    return shown


def _split_table(numbers: dict[str, Any]) -> Table:
    rows = [
        (
            split,
            numbers["splits"][split]["documents"],
            numbers["splits"][split]["segments"],
            numbers["splits"][split]["characters"],
            numbers["splits"][split]["text_bytes"],
            share(numbers["splits"][split]["characters"], numbers["characters"]),
        )
        for split in SPLITS
    ]
    return Table(("split", "documents", "segments", "characters", "bytes", "share of characters"), rows)


def _sample_blocks(found: Survey) -> list[Block]:
    rows = [
        (source, title, text)
        for source, samples in sorted(found.samples.items())[:MAXIMUM_SAMPLED_SOURCES]
        for title, text in samples
    ]
    return [Table(("source", "title", "how it begins"), rows)]


def data_card(entries: Sequence[SourceEntry], settings: CorpusSettings, numbers: dict[str, Any]) -> str:
    """Return the card as Markdown with Hugging Face front matter. It states no times and no places on this machine."""
    used = [entry for entry in entries if numbers["sources"].get(entry.id, {}).get("documents")]
    strictest = max((entry.allowed_use for entry in used), key=lambda use: USES.get(use, 0), default="any")
    lines = [
        *_front_matter(settings, numbers),
        "# Corpus",
        "",
        f"{numbers['documents']:,} documents with {numbers['characters']:,} characters "
        f"({numbers['text_bytes']:,} bytes of UTF-8) in {numbers['segments']:,} segments. Dataset id `{numbers['dataset_id']}`.",
        "",
        "## Sources",
        "",
        "| source | title | licence | documents | characters | share |",
        "|---|---|---|---:|---:|---:|",
        *(
            f"| {entry.id} | {_cell(entry.title)} | {_cell(entry.licence or 'not stated')} "
            f"| {numbers['sources'][entry.id]['documents']:,} | {numbers['sources'][entry.id]['characters']:,} "
            f"| {share(numbers['sources'][entry.id]['characters'], numbers['characters'])} |"
            for entry in used
        ),
        "",
        f"Allowed use, the strictest of all sources: {strictest.replace('_', ' ')}. "
        + ("A licence with NC in it makes the whole non-commercial." if _non_commercial(used) else ""),
        "",
        "## Splits",
        "",
        "| split | documents | segments | characters |",
        "|---|---:|---:|---:|",
        *(
            f"| {split} | {row['documents']:,} | {row['segments']:,} | {row['characters']:,} |"
            for split, row in numbers["splits"].items()
        ),
        "",
        "Documents of one group (work, file, court session, copies of a text) never stand in different splits.",
        "",
        "## Steps",
        "",
        "| step | documents in | rejected | characters in | rejected | removed |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| {name} | {row['documents_in']:,} | {row['documents_rejected']:,} | {row['characters_in']:,} "
            f"| {row['characters_rejected']:,} | {row['characters_removed']:,} |"
            for name, row in numbers["steps"].items()
        ),
        "",
        "Dropped: "
        + (", ".join(f"{code} {times:,}" for code, times in numbers["rejects"].items()) or "nothing")
        + ". Every dropped text is kept in `rejects/`.",
        "",
        "## Limits",
        "",
        "- Personal data and secrets are not looked for, and nothing is masked.",
        "- A text whose sentences were shuffled passes these filters.",
        *_period_lines(settings, numbers),
        "",
        "## Rebuilding",
        "",
        "Run the recipe whose `[corpus]` settings stand in `manifest.json` on the same sources: the dataset id is the same.",
        "",
    ]
    return "\n".join(lines)


def _front_matter(settings: CorpusSettings, numbers: dict[str, Any]) -> list[str]:
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
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if rows < limit:
            return name
    return "1M<n<10M" if rows < 10_000_000 else "10M<n<100M"


def _period_lines(settings: CorpusSettings, numbers: dict[str, Any]) -> list[str]:
    if settings.period is None:
        return []
    first, last = settings.period
    unknown = numbers["period_verdicts"].get("unknown", 0)
    return [f"- Period {first} to {last}; {unknown:,} documents without a known year are among the kept ones."]


def _non_commercial(entries: Sequence[SourceEntry]) -> bool:
    return any("NC" in entry.licence.replace("-", " ").split() for entry in entries)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def totals_as_rows(totals: Totals) -> list[dict[str, Any]]:
    """Return the counts of every step as rows for `--json`."""
    return [{"step": name, **asdict(counts)} for name, counts in totals.steps.items()]
