"""What `examine` found, as a page (`report.html`), a text (`report.md`) and numbers (`report.json`)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caslon.folders import write_atomic
from caslon.report.page import (
    Block,
    Chart,
    Code,
    Details,
    Fact,
    Facts,
    Notice,
    Page,
    Section,
    Series,
    Table,
    Value,
    write_page,
)
from caslon.tokenizer.examine import HELD_OUT_CHARACTERS, Examination, Fit
from caslon.tokenizer.gates import FAIL, Gate, TrainingUse, gates
from caslon.tokenizer.inspect import pieces_of_ids, shown_bytes
from caslon.tokenizer.tokenizer import Tokenizer

Counts = npt.NDArray[np.int64]  # [vocab_size]: how often each id occurs
CHUNK_IDS = 1 << 22
SHOWN_FAILURES = 20
SHOWN_ENTRIES = 40


def id_counts(ids: npt.NDArray[Any], vocab_size: int) -> Counts:
    """Return how often each id occurs, reading a mapped file piece by piece."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    for start in range(0, len(ids), CHUNK_IDS):
        counts += np.bincount(ids[start : start + CHUNK_IDS], minlength=vocab_size)
    return counts


@dataclass(frozen=True)
class Extras:
    """What a report can tell beyond the examination."""

    training: Counts | None = None  # how often the training text uses each id
    other_mode: tuple[str, Fit] | None = None  # the other special mode's name, and its fit on the same held-out text


NO_EXTRAS = Extras()


def write_report(path: Path, tokenizer: Tokenizer, found: Examination, extras: Extras = NO_EXTRAS) -> tuple[Gate, ...]:
    """Write the report as HTML to `path`, its numbers as JSON and its tables as Markdown beside it; return the gates."""
    numbers = report_numbers(tokenizer, found, extras)
    lines = gate_lines(tokenizer, found, extras)
    sections = [_fit_section(found), _test_section(found, lines)]
    if numbers["read"]:
        sections.append(_read_section(tokenizer, numbers["read"]))
    if tokenizer.special_map.get("entries"):
        sections.append(_lexicon_section(tokenizer, found, extras))
    if found.sample:
        sections.append(_sample_section(tokenizer, found.sample))
    sections.append(_entries_section(tokenizer))
    if extras.training is not None:
        sections.append(_use_section(tokenizer, extras.training))
    subtitle = f"{tokenizer.vocab_size:,} entries, {_kind(tokenizer)}, digest {tokenizer.digest[:16]}"
    write_page(path, Page(title="Tokenizer", subtitle=subtitle, sections=sections, numbers=numbers))
    write_atomic(path.with_suffix(".md"), _markdown(subtitle, sections))
    return lines


def gate_lines(tokenizer: Tokenizer, found: Examination, extras: Extras = NO_EXTRAS) -> tuple[Gate, ...]:
    """Return the test table."""
    training = extras.training
    if training is None:
        return gates(tokenizer, found)
    use = TrainingUse(len(learned_ids(tokenizer)), len(unused_entries(tokenizer, training)))
    return gates(tokenizer, found, use)


def report_numbers(tokenizer: Tokenizer, found: Examination, extras: Extras = NO_EXTRAS) -> dict[str, Any]:
    """Return every figure of the report."""
    training = extras.training
    lines = gate_lines(tokenizer, found, extras)
    numbers: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "digest": tokenizer.digest,
        "settings": dict(tokenizer.record),
        "read": list(tokenizer.record.get("read") or ()),
        "passed": found.passed and not any(line.verdict == FAIL for line in lines),
        "gates": [line.to_json() for line in lines],
        "battery": [asdict(sentence) for sentence in found.battery],
        "lexicon_forms": found.lexicon_forms,
        "whole_lexicon_forms": found.whole_forms,
        "round_trips": found.round_trips,
        "round_trip_failures": [asdict(failure) for failure in found.failures[:SHOWN_FAILURES]],
        "round_trip_failure_count": len(found.failures),
        "bulk_disagreement_count": len(found.disagreements),
        "forged_special_tokens": list(found.forged),
        "held_out": found.held_out.to_json(),
        "longest_entries": [shown_bytes(tokenizer.token_bytes(id)) for id in longest_entries(tokenizer)],
    }
    if training is not None:
        unused = unused_entries(tokenizer, training)
        numbers["training"] = {
            "tokens": int(training.sum()),
            "used_entries": int((training > 0).sum()),
            "unused_learned_entries": len(unused),
            "unused": [shown_bytes(tokenizer.token_bytes(id)) for id in unused],
        }
    if found.reference:
        numbers["reference"] = {"name": found.reference[0], **found.reference[1].to_json()}
    if extras.other_mode:
        numbers["other_mode"] = {"mode": extras.other_mode[0], **extras.other_mode[1].to_json()}
    return numbers


def learned_ids(tokenizer: Tokenizer) -> list[int]:
    """Return the ids that are neither special nor single bytes."""
    return [
        id
        for id in range(tokenizer.vocab_size)
        if id not in tokenizer.special_ids and len(tokenizer.token_bytes(id)) > 1
    ]


def longest_entries(tokenizer: Tokenizer, number: int = SHOWN_ENTRIES) -> list[int]:
    """Return the ids of the entries with the most bytes, longest first."""
    return sorted(learned_ids(tokenizer), key=lambda id: (-len(tokenizer.token_bytes(id)), id))[:number]


def unused_entries(tokenizer: Tokenizer, training: Counts) -> list[int]:
    """Return learned entries the training text never uses: parts of longer entries that always win."""
    return [id for id in learned_ids(tokenizer) if not training[id]]


def _fit_section(found: Examination) -> Section:
    fit = found.held_out
    facts = [
        Fact("tokens per character", fit.tokens_per_character, note="less is better"),
        Fact("bytes per token", fit.bytes_per_token, "bytes"),
        Fact("tokens per word", fit.tokens_per_word, note="fertility"),
        Fact("vocabulary used", f"{fit.used_share:.1%}", note=f"{fit.used_entries:,} of {fit.vocab_size:,} entries"),
        Fact("held-out text", fit.characters, "characters", note=f"{fit.texts:,} texts, {fit.tokens:,} tokens"),
    ]
    blocks: list[Block] = [Facts(facts)]
    if not fit.texts:
        blocks.append(Notice("The corpus has no held-out text, so fit is not measured.", "warning"))
    elif fit.characters < HELD_OUT_CHARACTERS:
        blocks.append(
            Notice(f"Less than {HELD_OUT_CHARACTERS:,} characters: the figures hold for this text, not in general.")
        )
    return Section("Fit", blocks, intro="Measured on text the tokenizer was not trained on.")


def _test_section(found: Examination, lines: Sequence[Gate]) -> Section:
    rows: list[list[Value]] = [
        [line.test, line.bound, line.measured, line.verdict if not line.reason else f"{line.verdict}: {line.reason}"]
        for line in lines
    ]
    table = Table(["test", "gate", "measured", "verdict"], rows)
    details = [
        Details(
            f"Failure at character {failure.position}", [Code(failure.text, "text"), Code(failure.decoded, "decoded")]
        )
        for failure in (*found.failures, *found.disagreements)[:SHOWN_FAILURES]
    ]
    return Section("Tests", [table, *details], intro="Held-out text, random Unicode and hand-made hard cases.")


def _read_section(tokenizer: Tokenizer, read: Sequence[Mapping[str, Any]]) -> Section:
    rows: list[list[Value]] = [
        [row["source"], row["texts"], row["bytes"], row["texts_read"], row["bytes_read"],
         f"{row['bytes_read'] / max(row['bytes'], 1):.1%}"]
        for row in read
    ]  # fmt: skip
    blocks: list[Block] = [Table(["source", "texts", "bytes", "texts read", "bytes read", "share"], rows)]
    if not tokenizer.record.get("reproducible", True):
        blocks.append(
            Notice(
                f"The {tokenizer.record['algorithm']} trainer does not repeat itself: equal runs write different files. This "
                f"one is known by its digest, {tokenizer.digest}, and the finished folder is used again, not learned again."
            )
        )
    return Section("What was read", blocks, intro="The training split alone, in proportion for every source.")


def _lexicon_section(tokenizer: Tokenizer, found: Examination, extras: Extras) -> Section:
    entries = tokenizer.special_map["entries"]
    categories = Counter(entry["category"] for entry in entries)
    rows: list[list[Value]] = [
        [category, count, ", ".join(entry["canonical"] for entry in entries if entry["category"] == category)]
        for category, count in categories.items()
    ]
    sentences: list[list[Value]] = [
        [sentence.kind, sentence.text, ", ".join(sentence.whole_words) or "none"] for sentence in found.battery
    ]
    blocks: list[Block] = [
        Table(["category", "words", "which"], rows),
        Details("Fifty sentences of the period", [Table(["kind", "sentence", "words that are one token"], sentences)]),
    ]
    if extras.other_mode:
        mode, other = extras.other_mode
        fits = ((tokenizer.special_map["mode"], found.held_out), (mode, other))
        compared: list[list[Value]] = [
            [name, fit.tokens, round(fit.tokens_per_character, 4), round(fit.tokens_per_word, 4)] for name, fit in fits
        ]
        blocks.insert(1, Table(["mode", "tokens", "tokens per character", "tokens per word"], compared))
    intro = f"{len(entries)} words, as {tokenizer.special_map['mode']}: special_map.json has the ids of every form."
    return Section("Lexicon", blocks, intro=intro)


def _kind(tokenizer: Tokenizer) -> str:
    names = {"bpe": "byte-level BPE", "wordpiece": "byte-level word pieces", "unigram": "byte-level unigrams"}
    algorithm = str(tokenizer.record.get("algorithm", "of another maker"))
    return names.get(algorithm, algorithm)


def _markdown(subtitle: str, sections: Sequence[Section]) -> str:
    """Return the report's facts and tables as Markdown."""
    lines = ["# Tokenizer", "", subtitle, ""]
    for section in sections:
        lines += [f"## {section.title}", ""]
        if section.intro:
            lines += [section.intro, ""]
        for block in section.blocks:
            lines += _markdown_block(block)
    return "\n".join(lines).rstrip() + "\n"


def _markdown_block(block: Block) -> list[str]:
    if isinstance(block, Facts):
        return [*(f"- {fact.label}: {_cell(fact.value)} {fact.unit}".rstrip() for fact in block.facts), ""]
    if isinstance(block, Notice):
        return [block.text, ""]
    if isinstance(block, Table):
        head = [f"| {' | '.join(block.columns)} |", f"|{' --- |' * len(block.columns)}"]
        return [*head, *(f"| {' | '.join(map(_cell, row))} |" for row in block.rows), ""]
    return []


def _cell(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")


def _sample_section(tokenizer: Tokenizer, sample: str) -> Section:
    shown = "│".join(piece.shown.replace("⏎", "⏎\n") for piece in pieces_of_ids(tokenizer, tokenizer.encode(sample)))
    return Section(
        "A sample in pieces", [Code(shown)], intro="␣ is a space, ⏎ a line break, <..> bytes of a character."
    )


def _entries_section(tokenizer: Tokenizer) -> Section:
    lengths = Counter(len(tokenizer.token_bytes(id)) for id in learned_ids(tokenizer))
    sizes = sorted(lengths)
    longest = longest_entries(tokenizer)
    rows: list[list[Value]] = [
        [id, shown_bytes(tokenizer.token_bytes(id)), len(tokenizer.token_bytes(id))] for id in longest
    ]
    blocks: list[Block] = []
    if sizes:
        counts = [lengths[size] for size in sizes]
        blocks.append(
            Chart(
                "Length of learned entries",
                [Series("entries", counts, sizes)],
                kind="bar",
                x_label="bytes",
                y_label="entries",
                description="How many learned entries have how many bytes.",
            )
        )
    blocks.append(Details(f"The {len(rows)} longest entries", [Table(["id", "entry", "bytes"], rows)]))
    return Section("Entries", blocks)


def _use_section(tokenizer: Tokenizer, training: Counts) -> Section:
    order = np.argsort(-training, kind="stable")
    used = order[training[order] > 0]
    ranks = np.unique(np.geomspace(1, max(len(used), 1), num=200).astype(int)) if len(used) else np.empty(0, int)
    unused = unused_entries(tokenizer, training)
    rows: list[list[Value]] = [
        [int(id), shown_bytes(tokenizer.token_bytes(int(id))), int(training[id])] for id in used[:SHOWN_ENTRIES]
    ]
    chart = Chart(
        "Rank and frequency", [Series("entries", [int(training[used[rank - 1]]) for rank in ranks], [int(r) for r in ranks])],
        x_label="rank", y_label="occurrences", x_log=True, y_log=True,
        description="Occurrences of each entry in the training text by rank, both on logarithmic scales.",
    )  # fmt: skip
    shown = ", ".join(shown_bytes(tokenizer.token_bytes(id)) for id in unused[:500]) or "none"
    return Section(
        "Use in the training text",
        [
            chart,
            Details(f"The {len(rows)} most frequent entries", [Table(["id", "entry", "occurrences"], rows)]),
            Details(f"{len(unused):,} learned entries the training text never uses", [Code(shown)]),
        ],
    )
