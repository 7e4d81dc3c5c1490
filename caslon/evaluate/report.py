"""Scores and samples to a page: the verdict first, then the ladder of baselines, the texts, and what in them was copied.

Works on the JSON values of `scores.json` and `samples.json`, so a report can be made anew without the model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caslon.report.page import (
    Block,
    Chart,
    Code,
    Details,
    Fact,
    Facts,
    Notice,
    Page,
    Samples,
    SampleText,
    Section,
    Series,
    Table,
    Text,
    readable,
    write_page,
)

SHOWN_SPANS = 20
USUAL_TEMPERATURE = 0.7
SHOWN_SPAN_CHARACTERS = 300

Scores = Mapping[str, Any]
Written = Sequence[Mapping[str, Any]]


def write_report(path: Path, scores: Scores, samples: Written) -> None:
    """Write the report of an evaluation to `path`, and its numbers as JSON beside it."""
    about = scores["text"]
    subtitle = f"Measured on {about['bytes']:,} bytes of the {about['split']} split that the model has not seen."
    sections = [
        Section("Verdict", [*verdicts(scores), *score_facts(scores)]),
        *([Section("Beside other models of text", ladder(scores))] if "baselines" in scores else []),
        *([Section("What it writes", written(scores, samples))] if samples else []),
        *([Section("What it has read before", copied(scores, samples))] if _spans(scores) else []),
        *([Section("Hardest documents", hardest(scores))] if "bits_per_byte" in scores else []),
    ]
    footer = f"Model {scores['model']['digest'][:16]}, dataset {about['dataset_id'][:16]}."
    write_page(path, Page("Evaluation", subtitle, sections, footer=footer, numbers=scores))


def verdicts(scores: Scores) -> list[Block]:
    """Return one line for each rung that should be beaten and is not, or one that says all are."""
    if "bits_per_byte" not in scores or "baselines" not in scores:
        return []
    value = scores["bits_per_byte"]["value"]
    lost = [
        f"The model ({value:.3f} bits per byte) does not beat {name} ({limit:.3f})."
        for name, limit in _limits(scores)
        if value >= limit
    ]
    if lost:
        return [Notice(line, "warning") for line in lost]
    beaten = ", ".join(f"{name} ({limit:.3f})" for name, limit in _limits(scores))
    return [Notice(f"At {value:.3f} bits per byte the model beats {beaten}.")]


def _limits(scores: Scores) -> list[tuple[str, float]]:
    """The best n-gram model and the best compressor that knows the training text."""
    rungs = [rung for rung in scores["baselines"]["rungs"] if rung["given_train"] is not None]
    found = []
    for grams in (True, False):
        group = [rung for rung in rungs if rung["name"].endswith("-gram") is grams]
        if group:
            best = min(group, key=lambda rung: rung["given_train"])
            found.append(
                (
                    f"the {best['name']} model" if grams else f"{best['name']} given the training text",
                    best["given_train"],
                )
            )
    return found


def score_facts(scores: Scores) -> list[Block]:
    """Return the headline figures as cards."""
    if "bits_per_byte" not in scores:
        return []
    score = scores["bits_per_byte"]
    interval = score["interval"]
    note = (
        f"95 % interval {interval['low']:.3f} to {interval['high']:.3f}, {interval['units']:,} {interval['unit']}"
        if interval
        else "too little text for an interval"
    )
    return [
        Facts(
            [
                Fact("Bits per byte", round(score["value"], 3), "bits", note),
                Fact(
                    "Perplexity",
                    round(score["perplexity"], 2),
                    "",
                    "per token; only comparable with the same tokenizer",
                ),
                Fact("Scored text", score["bytes"], "bytes", f"{score['tokens']:,} tokens"),
                Fact(
                    "Context", score["context_tokens"], "tokens", f"windows move by {score['stride_tokens']:,} tokens"
                ),
            ]
        )
    ]


def ladder(scores: Scores) -> list[Block]:
    """Return the chart of all rungs and the model, worst first; the uniform rung, 8 bits, would dwarf the others."""
    found = scores["baselines"]
    rows = [(f"{rung['name']}, given the training text", "given", rung["given_train"]) for rung in found["rungs"]]
    rows += [(f"{rung['name']}, alone", "alone", rung["alone"]) for rung in found["rungs"] if rung["name"] != "uniform"]
    if "bits_per_byte" in scores:
        rows.append(("this model", "model", scores["bits_per_byte"]["value"]))
    rows = sorted((row for row in rows if row[2] is not None), key=lambda row: -row[2])
    kinds = {"model": "this model", "given": "given the training text", "alone": "the test text alone"}
    series = [
        Series(
            label, [row[2] if row[1] == kind else None for row in rows], [row[0] for row in rows], unit="bits per byte"
        )
        for kind, label in kinds.items()
    ]
    caption = (
        f"Lower is better; all on the same {found['test_bytes']:,} bytes. The training text given to n-gram models and "
        f"compressors has {found['train_bytes']:,} bytes. Bytes without any model cost 8 bits."
    )
    return [
        Chart(
            "Bits per byte beside the baselines",
            series,
            kind="bar",
            horizontal=True,
            stacked=True,
            y_label="bits per byte",
            caption=caption,
        )
    ]


def written(scores: Scores, samples: Written) -> list[Block]:
    """Return the texts under a slider of temperatures and what can be counted in them."""
    rows = [
        [row["temperature"], row["texts"], row["ended_share"], row["distinct_trigrams"], row["repeated_share"]]
        for row in scores["samples"]["sweep"]
    ]
    columns = ["temperature", "texts", "ended by themselves", "distinct three-word runs", "repeated four-word runs"]
    shown = [SampleText(f"{sample['temperature']:g}", sample["prompt"], sample["text"]) for sample in samples]
    usual = min((row[0] for row in rows), key=lambda temperature: abs(temperature - USUAL_TEMPERATURE))
    return [
        Samples(shown, "temperature", shown=f"{usual:g}"),
        Table(columns, rows, caption="Shares of all texts at a temperature"),
    ]


def copied(scores: Scores, samples: Written) -> list[Block]:
    """Return the longest exact spans of the texts that stand in training documents."""
    found = _spans(scores)
    spans = sorted(
        ((span, sample) for sample in samples for span in sample.get("spans", [])), key=lambda pair: -pair[0]["words"]
    )
    facts = Facts(
        [
            Fact("Longest span", found["longest_words"], "words"),
            Fact("Texts with a span", found["samples_with_spans"], f"of {len(samples)}"),
            Fact(
                "Copied characters",
                f"{100 * found['copied_share']:.1f} %",
                "",
                f"in spans of {found['fewest_words']} words or more",
            ),
            Fact(
                "The same in unseen text by people",
                f"{100 * found['unseen_text_copied_share']:.1f} %",
                "",
                "formulas repeat by nature",
            ),
        ]
    )
    rows = [
        [span["words"], _cut(span["text"]), span["count"], span["document_id"], span["offset"], sample["temperature"]]
        for span, sample in spans[:SHOWN_SPANS]
    ]
    columns = ["words", "span", "times in training", "first document", "character", "temperature"]
    intro = (
        f"Runs of at least {found['fewest_words']} words that stand verbatim in the training text "
        f"({found['train_bytes']:,} bytes of it were searched). That a span is there does not say the model copied it."
    )
    table: list[Block] = [Table(columns, rows, caption="Longest spans")] if rows else [Text("No such span was found.")]
    return [Text(intro), facts, *table]


def hardest(scores: Scores) -> list[Block]:
    """Return the documents the model found hardest, with their beginnings."""
    return [
        Details(
            f"{item['document_id']} · {readable(round(item['bits_per_byte'], 3))} bits per byte · {item['bytes']:,} bytes",
            [Code(item["text"])],
        )
        for item in scores["bits_per_byte"]["worst_documents"]
    ]


def _spans(scores: Scores) -> dict[str, Any]:
    found: dict[str, Any] = scores.get("samples", {}).get("spans", {})
    return found


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_SPAN_CHARACTERS else text[:SHOWN_SPAN_CHARACTERS] + " …"
