"""A comparison to a page for people and the same numbers for programs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from caslon.report.page import Block, Chart, Details, Notice, Page, Section, Series, Table, Value
from caslon.tokenizer.coloured_page import Coloured, place_for, write_coloured_page
from caslon.tokenizer.compare import Comparison
from caslon.tokenizer.inspect import coloured_html
from caslon.tokenizer.reference_texts import DIGIT_SAMPLES, parallel_texts, text_types

Row = Mapping[str, Any]
MEASURES = {  # column: key of a row
    "vocabulary": "vocab_size",
    "special tokens": "special_tokens",
    "tokens": "tokens",
    "tokens per character": "tokens_per_character",
    "bytes per token": "bytes_per_token",
    "tokens per byte": "tokens_per_byte",
    "tokens per word": "tokens_per_word",
    "texts restored exactly": "round_trip_share",
    "unknown tokens": "unknown_share",
    "vocabulary used": "used_share",
    "whole words": "whole_word_rate",
    "encoding, MB per processor second": "encode_megabytes_per_second",
    "decoding, MB per processor second": "decode_megabytes_per_second",
    "bytes on disk": "size_on_disk_bytes",
}


def write_comparison(folder: Path, found: Comparison) -> None:
    """Write `report.html` and `report.json`; both hold the same figures, and the page asks nothing of any server."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ", ".join(row["name"] for row in found.tokenizers)
    sections = [
        _measures(found),
        _sizes(found.tokenizers),
        _by_language(found.tokenizers),
        _by_type(found.tokenizers),
        _digits(found.tokenizers),
        _entries(found.tokenizers),
    ]
    samples, coloured = _samples(found)
    page = Page("Tokenizers compared", names, [*sections, samples], numbers=found.to_json())
    write_coloured_page(folder / "report.html", page, coloured)


def _measures(found: Comparison) -> Section:
    texts = found.texts
    rows: list[list[Value]] = [[row["name"], *(row[key] for key in MEASURES.values())] for row in found.tokenizers]
    rows += [[f"{row['name']} (not available)", *[None] * len(MEASURES)] for row in found.not_available]
    blocks: list[Block] = [Notice(flag, "warning") for flag in found.flags]
    blocks += [Notice(f"{row['name']}: {row['why']}.") for row in found.not_available]
    blocks.append(Table(["tokenizer", *MEASURES], rows))
    blocks.append(
        Notice(
            "Perplexity depends on the tokenizer and is not shown: compare models of different tokenizers by bits per byte."
        )
    )
    count = "one text" if texts["texts"] == 1 else f"{texts['texts']:,} texts"
    intro = (
        f"Measured in one run on {count} of {texts['characters']:,} characters "
        f"({texts['bytes']:,} bytes, {texts['words']:,} words)."
    )
    return Section("The same texts", blocks, intro)


def _sizes(rows: Sequence[Row]) -> Section:
    chart = Chart(
        "Tokens per character against vocabulary size",
        [Series(row["name"], [row["tokens_per_character"]], [row["vocab_size"]]) for row in rows],
        kind="scatter",
        x_label="entries",
        y_label="tokens per character",
        x_log=True,
    )
    used = Chart(
        "Vocabulary used by the texts",
        [Series("used", [row["used_share"] for row in rows], [row["name"] for row in rows])],
        kind="bar",
        y_label="share of entries",
        horizontal=True,
    )
    table = Table(["tokenizer", "entries used"], [[row["name"], row["used_entries"]] for row in rows])
    return Section("Size and use", [chart, used, table])


def _by_language(rows: Sequence[Row]) -> Section:
    languages = list(parallel_texts().texts)
    chart = Chart(
        "Token tax",
        [Series(row["name"], [row["languages"][name]["tax"] for name in languages], languages) for row in rows],
        kind="bar",
        y_label="tokens, English = 1",
        horizontal=True,
    )
    blocks: list[Block] = [chart]
    for title, key in (
        ("tokens", "tokens"),
        ("token tax", "tax"),
        ("tokens per word (fertility)", "tokens_per_word"),
        ("tokens per character", "tokens_per_character"),
    ):
        blocks.append(Table(["tokenizer", *languages], _across(rows, "languages", languages, key), caption=title))
    return Section(
        "Languages",
        blocks,
        f"{parallel_texts().title}: one meaning in ten languages. Source: {parallel_texts().source}. "
        "Japanese and Chinese put no spaces between words, so they have no tokens per word.",
    )


def _across(rows: Sequence[Row], group: str, names: Sequence[str], key: str) -> list[list[Value]]:
    return [[row["name"], *(row[group][name][key] for name in names)] for row in rows]


def _by_type(rows: Sequence[Row]) -> Section:
    types = list(text_types().texts)
    chart = Chart(
        "Tokens per character by type of text",
        [
            Series(row["name"], [row["text_types"][name]["tokens_per_character"] for name in types], types)
            for row in rows
        ],
        kind="bar",
        y_label="tokens per character",
    )
    tables = [
        Table(["tokenizer", *types], _across(rows, "text_types", types, key), caption=title)
        for title, key in (
            ("tokens", "tokens"),
            ("tokens per character", "tokens_per_character"),
            ("tokens per word", "tokens_per_word"),
        )
    ]
    return Section("Types of text", [chart, *tables], f"One short text each. {text_types().source}")


def _digits(rows: Sequence[Row]) -> Section:
    def cut(row: Row, sample: str) -> str:
        return "│".join(row["digits"][sample])

    table = Table(
        ["tokenizer", *DIGIT_SAMPLES], [[row["name"], *(cut(row, sample) for sample in DIGIT_SAMPLES)] for row in rows]
    )
    counts = Table(
        ["tokenizer", *DIGIT_SAMPLES],
        [[row["name"], *(len(row["digits"][sample]) for sample in DIGIT_SAMPLES)] for row in rows],
        caption="tokens",
    )
    return Section("Digits", [table, counts], "How figures of the period are cut; │ parts tokens.")


def _entries(rows: Sequence[Row]) -> Section:
    blocks: list[Block] = [
        _curves(rows, "Length of entries", lambda row: row["entry_lengths"], "bytes", "entries", False),
        _curves(rows, "Rank and frequency of entries", lambda row: row["rank_frequency"], "rank", "occurrences", True),
    ]
    blocks += [
        Details(
            f"The longest entries of {row['name']}", [Table(["entry"], [[entry] for entry in row["longest_entries"]])]
        )
        for row in rows
    ]
    return Section("Entries", blocks)


def _curves(
    rows: Sequence[Row], title: str, points: Callable[[Row], Sequence[Sequence[int]]], x: str, y: str, x_log: bool
) -> Chart:
    series = [Series(row["name"], [at for _, at in points(row)], [place for place, _ in points(row)]) for row in rows]
    return Chart(title, series, kind="line", x_label=x, y_label=y, x_log=x_log, y_log=True)


def _samples(found: Comparison) -> tuple[Section, list[Coloured]]:
    coloured: list[Coloured] = []
    blocks: list[Block] = []
    for title, cuts in found.samples.items():
        for cut in cuts:
            blocks.append(place_for(len(coloured)))
            coloured.append(
                Coloured(f"{title}, {cut['name']}: {len(cut['pieces']):,} tokens", coloured_html(cut["pieces"]))
            )
    return Section("Sample sentences", blocks, "␣ is a space, ⏎ a line break, <..> bytes of a character."), coloured
