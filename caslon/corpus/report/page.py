"""A survey and its numbers to the report page: warnings first, then what happened to the texts, then what they are like."""

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

from caslon.corpus.report.numbers import warnings_of
from caslon.corpus.report.survey import Example, Survey
from caslon.corpus.shards import SPLITS
from caslon.report import blocks
from caslon.report.blocks import (
    Block,
    Chart,
    Charts,
    Code,
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
from caslon.report.page import readable_bytes, share

LICENCE_CHARACTERS = 80  # an archive may hold files under many
SHOWN_TERMS = 25
SHOWN_LOSSES = 60
WHAT_A_STEP_DOES = {
    "read": "found in the raw files",
    "forget": "what was asked to be forgotten",
    "repair": "encoding, spaces, hyphens",
    "ocr": "misread letters",
    "language": "the wanted languages",
    "period": "the wanted years",
    "quality": "length, words, adverts, repetition",
    "contamination": "evaluation items",
    "exact duplicates": "the same letters",
    "near duplicates": "nearly the same runs of words",
    "source share": "no source too large",
    "boilerplate": "what many documents repeat",
    "privacy": "personal data and secrets",
    "segments": "cut and written",
}


def page_of(found: Survey, numbers: Mapping[str, Any]) -> Page:
    """Return the report as a page."""
    sections = [
        Section("At a glance", _glance(numbers)),
        Section("Sources", _source_blocks(numbers)),
        Section("What was dropped", _reject_blocks(found, numbers)),
        *_inventory_section(numbers),
        Section("What the texts are like", _distribution_blocks(numbers)),
        Section("Copies", _cluster_blocks(numbers)),
        Section("What was changed or taken out", _change_blocks(numbers)),
        Section(
            "Who and what the texts speak of",
            _bias_blocks(numbers["bias"]),
            "Counted in whole words; nothing is altered.",
        ),
        Section("Splits", _split_blocks(numbers), "By hash of group and seed; copies of a text stay on one side."),
        Section("Licences", _licence_blocks(numbers)),
        Section("Before and after", _sample_blocks(found)),
        Section("Time", [_seconds_table(numbers)]),
    ]
    return Page(
        title="Corpus",
        subtitle=f"{numbers['documents']:,} documents, {numbers['characters']:,} characters",
        sections=sections,
        footer=f"dataset {numbers['dataset_id']}",
        numbers=numbers,
    )


def _glance(numbers: Mapping[str, Any]) -> list[Block]:
    notices: list[Block] = [Notice(text, "warning") for text in warnings_of(numbers)]
    facts = Facts(
        [
            Fact("documents", numbers["documents"]),
            Fact("characters", numbers["characters"]),
            Fact("text", readable_bytes(numbers["text_bytes"]), note="in UTF-8"),
            Fact("raw", readable_bytes(numbers["raw_bytes"])),
            Fact("segments", numbers["segments"]),
            Fact("rejects", sum(numbers["rejects"].values())),
            Fact("groups", numbers["groups"], note="never parted between splits"),
        ]
    )
    steps = [
        PathStep(
            name,
            (("documents", row["documents_out"]), ("characters", row["characters_out"])),
            WHAT_A_STEP_DOES.get(name, ""),
        )
        for name, row in _steps(numbers)
    ]
    return [*notices, facts, blocks.Path(steps), _funnel(numbers), *_published(numbers)]


def _steps(numbers: Mapping[str, Any]) -> list[tuple[str, Mapping[str, int]]]:
    return [(name, numbers["steps"][name]) for name in numbers["order_of_steps"]]


def _funnel(numbers: Mapping[str, Any]) -> Table:
    keys = ("characters_in", "characters_rejected", "characters_removed", "characters_changed", "characters_out")
    rows: list[tuple[Any, ...]] = [
        (name, row["documents_in"], row["documents_rejected"], row["documents_out"], *(row[key] for key in keys))
        for name, row in _steps(numbers)
    ]
    columns = ("step", "documents in", "rejected", "out", "characters in", "rejected ", "removed", "rewritten", "out ")
    caption = (
        "In = out + rejected + removed + rewritten, at every step. Rewritten: white space, hyphens, separators and "
        "placeholders (below zero: characters were added)."
    )
    return Table(columns, rows, caption)


def _published(numbers: Mapping[str, Any]) -> list[Block]:
    if not numbers["published_london"]:
        return []
    rows: list[tuple[str, str | int]] = list(numbers["published_london"].items())
    return [Details("What the published London corpus states of itself", [Table(("figure", "published"), rows)])]


def _source_blocks(numbers: Mapping[str, Any]) -> list[Block]:
    total = numbers["characters"]
    rows = [
        (
            source,
            row["title"],
            row["raw_files"],
            row["documents"],
            row["rejected"],
            _percent(row["kept_share"]),
            row["characters"],
            _percent(row["kept_character_share"]),
            share(row["characters"], total),
            shorten(row["licence"], LICENCE_CHARACTERS, placeholder=" …"),
        )
        for source, row in numbers["sources"].items()
    ]
    columns = (
        "source", "title", "raw files", "documents", "rejected", "kept", "characters", "kept ", "share", "licence",
    )  # fmt: skip
    return [Table(columns, rows)]


def _percent(value: float | None) -> str:
    return f"{value:.1%}" if value is not None else "–"


def _reject_blocks(found: Survey, numbers: Mapping[str, Any]) -> list[Block]:
    if not numbers["rejects"]:
        return [Text("Nothing was dropped.")]
    codes = sorted(numbers["rejects"], key=lambda code: -numbers["rejects"][code])
    by_source = numbers["rejects_by_source"]
    chart = Chart(
        "Rejects by code",
        [Series("rejects", [numbers["rejects"][code] for code in codes], codes)],
        kind="bar",
        horizontal=True,
        y_label="documents (for short_segment: pieces)",
        description="How many documents each reject code took.",
    )
    table = Table(
        ("code", "step", "rejects", "characters"),
        [
            (
                code,
                ", ".join(numbers["reject_steps"][code]),
                numbers["rejects"][code],
                numbers["reject_characters"][code],
            )
            for code in codes
        ],
        "All are kept in rejects/, whole where the text may be kept: `caslon why ID`.",
    )
    sources = Table(
        ("source", *codes), [(source, *(row.get(code, 0) for code in codes)) for source, row in by_source.items()]
    )
    examples = [
        Details(f"{code}: examples", [_example_table(found.examples[code])]) for code in codes if code in found.examples
    ]
    return [chart, table, Details("By source", [sources]), *examples]


def _example_table(examples: Sequence[Example]) -> Table:
    rows = [(example.id, example.address, example.reason, example.text) for example in examples]
    return Table(("id", "address", "reason", "text"), rows)


def _inventory_section(numbers: Mapping[str, Any]) -> list[Section]:
    found = numbers["inventory"]
    if not found:
        return []
    lines: list[tuple[str, Mapping[str, Any]]] = [("train files kept", found["train_kept"])]
    for title, key in (("duplicates caught", "duplicates_caught"), ("negatives caught", "negatives_caught")):
        lines.append((title, found[key]))
        lines += [(f"  {kind}", row) for kind, row in found[key]["by_kind"].items() if len(found[key]["by_kind"]) > 1]
    shares = Table(("of the files listed", "files", "of", "share"), [_share_row(name, row) for name, row in lines])
    filters = Table(
        ("filter", "taken rightly", "of taken", "precision", "of meant", "recall", "recall with the other filters"),
        [
            (
                name,
                row["precision"]["part"],
                row["precision"]["whole"],
                _percent(row["precision"]["share"]),
                row["recall"]["whole"],
                _percent(row["recall"]["share"]),
                _percent(row["recall_with_other_filters"]["share"]),
            )
            for name, row in found["filters"].items()
        ],
    )
    intro = (
        "What the inventory says of its files beside what became of them. A file counts as kept when half of its characters "
        f"were. {found['train_kept_under_another_copy']:,} more train files left because a listed copy of them stayed."
    )
    return [Section("Beside the inventory", [shares, filters, *_losses(found)], intro)]


def _share_row(name: str, row: Mapping[str, Any]) -> tuple[str, int, int, str]:
    return name, row["part"], row["whole"], _percent(row["share"])


def _losses(found: Mapping[str, Any]) -> list[Block]:
    parts = (("Train files that were lost", "train_lost"), ("Negatives that were kept", "negatives_kept"))
    columns = ("file", "code", "reason", "characters kept", "characters dropped")
    return [
        Details(
            f"{title}: {len(found[key])}", [Table(columns, [tuple(row.values()) for row in found[key][:SHOWN_LOSSES]])]
        )
        for title, key in parts
        if found[key]
    ]


def _distribution_blocks(numbers: Mapping[str, Any]) -> list[Block]:
    charts = [_bars("Length of documents", numbers["lengths"], "characters, from")]
    if numbers["meaningful_ratios"]:
        charts.append(_bars("Meaningful words", numbers["meaningful_ratios"], "share of words, from"))
    if numbers["scores"]:
        borders = sorted({float(border) for row in numbers["scores"].values() for border in row})
        series = [
            Series(tier, [row.get(f"{border:g}", 0) for border in borders], [f"{border:g}" for border in borders])
            for tier, row in numbers["scores"].items()
        ]
        charts.append(
            Chart("Quality score", series, kind="bar", stacked=True, x_label="score of 100, from", y_label="documents")
        )
    if len(numbers["decades"]) > 1:
        charts.append(_bars("Decades", numbers["decade_characters"], "decade", "characters"))
    shown: list[Block] = [Charts(charts)]
    for title, what, unit in (
        ("Languages", "language_characters", "characters"),
        ("Tiers", "tiers", "documents"),
        ("Period", "period_verdicts", "documents"),
    ):
        if numbers[what]:
            shown.append(Table((title, unit), list(numbers[what].items())))
    return shown


def _bars(title: str, counts: Mapping[str, int], x_label: str, y_label: str = "documents") -> Chart:
    series = Series(y_label, list(counts.values()), list(counts))
    return Chart(title, [series], kind="bar", x_label=x_label, y_label=y_label, description=f"{title} by {x_label}.")


def _cluster_blocks(numbers: Mapping[str, Any]) -> list[Block]:
    clusters = numbers["clusters"]
    if not clusters["by_size"]:
        return [Text("No document is a copy of another.")]
    return [
        Table(("texts that are copies of each other", "clusters"), list(clusters["by_size"].items())),
        Table(("the document that stays, of the largest", "copies"), list(clusters["largest"].items())),
    ]


def _change_blocks(numbers: Mapping[str, Any]) -> list[Block]:
    shown: list[Block] = []
    if numbers["removals"]:
        rows = [(code, times, numbers["removed_characters"][code]) for code, times in numbers["removals"].items()]
        shown.append(Table(("taken out of kept documents", "times", "characters"), rows))
    for title, what in (("Repairs", "repairs"), ("Optical recognition", "ocr"), ("Personal data found", "privacy")):
        if numbers[what]:
            shown.append(Table((title, "times"), list(numbers[what].items())))
    return shown or [Text("Nothing was changed.")]


def _bias_blocks(bias: Mapping[str, Any]) -> list[Block]:
    if not bias["words"]:
        return [Text("There is no prose to count.")]
    shown: list[Block] = [
        Facts([Fact(name, value) for name, value in bias["all"].items() if isinstance(value, int | float)])
    ]
    if bias["identity_terms"]:
        rows = [
            (row["word"], row["count"], row["per_million"], ", ".join(str(word) for word in row["companions"]))
            for row in map(_identity_row, bias["identity_terms"][:SHOWN_TERMS])
        ]
        shown.append(Table(("identity term", "times", "per million words", "strongest companions"), rows))
    per_source = [(name, *_scalars(row)) for name, row in bias["sources"].items()]
    if per_source:
        columns = ("source", *_scalar_names(next(iter(bias["sources"].values()))))
        shown.append(Details("By source", [Table(columns, per_source)]))
    if bias["slurs"]:
        rows = [(row["word"], row["group"], row["count"], row["per_million"]) for row in bias["slurs"][:SHOWN_TERMS]]
        shown.append(Details("Slurs", [Table(("word", "group", "times", "per million words"), rows)]))
    return shown


def _identity_row(row: Mapping[str, Any]) -> dict[str, Any]:
    words = [found["word"] if isinstance(found, Mapping) else found for found in row.get("companions", ())]
    return {"word": row["word"], "count": row["count"], "per_million": row["per_million"], "companions": words}


def _scalar_names(row: Mapping[str, Any]) -> list[str]:
    return [name.replace("_", " ") for name, value in row.items() if not isinstance(value, Mapping | list)]


def _scalars(row: Mapping[str, Any]) -> list[Any]:
    return [value for value in row.values() if not isinstance(value, Mapping | list)]


def _split_blocks(numbers: Mapping[str, Any]) -> list[Block]:
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
    table = Table(("split", "documents", "segments", "characters", "bytes", "share of characters"), rows)
    joined = Table(("groups brought together because of", "times"), list(numbers["joined_groups"].items()))
    if not numbers["leakage"]:
        return [table, joined]
    leakage = numbers["leakage"]
    checked = Table(
        ("what two splits share", "found"),
        [
            ("groups", leakage["shared_groups"]),
            ("segments", leakage["shared_segments"]),
            ("held-out segments looked at", leakage["held_out_segments"]),
            ("of these, with a run of 13 words that stands in training too", leakage["with_shared_runs"]),
        ],
    )
    return [table, checked, joined]


def _licence_blocks(numbers: Mapping[str, Any]) -> list[Block]:
    total = numbers["characters"]
    conclusion = Notice(f"Allowed use of the whole: {numbers['allowed_use'].replace('_', '-')}.", "info")
    rows = [(name, count, share(count, total)) for name, count in numbers["licence_characters"].items()]
    uses = [(name, count, share(count, total)) for name, count in numbers["allowed_use_characters"].items()]
    return [
        conclusion,
        Table(("allowed use", "characters", "share"), uses),
        Table(("licence", "characters", "share"), rows),
    ]


def _sample_blocks(found: Survey) -> list[Block]:
    shown: list[Block] = []
    for source, samples in sorted(found.samples.items()):
        parts: list[Block] = []
        for sample in samples:
            parts += [
                Code(sample.before, f"{sample.title or sample.document}: as it stands in the raw file"),
                Code(sample.after, "as it stands in the corpus"),
            ]
        shown.append(Details(f"{source}: {len(samples)} texts", parts))
    return shown or [Text("No text was sampled.")]


def _seconds_table(numbers: Mapping[str, Any]) -> Table:
    rows = [(name, seconds) for name, seconds in numbers["seconds"].items() if seconds is not None]
    return Table(
        ("step", "seconds"), rows, "Seconds of processor time, summed over all processes; the total is wall-clock time."
    )
