"""What `examine` found, as a page for people and numbers for programs."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
from caslon.tokenizer import special
from caslon.tokenizer.examine import HARD_TEXTS, HELD_OUT_CHARACTERS, RANDOM_TEXTS, Examination
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


def write_report(path: Path, tokenizer: Tokenizer, found: Examination, training: Counts | None = None) -> None:
    """Write the report as HTML to `path` and its numbers as JSON beside it. `training` adds how the training text uses it."""
    numbers = report_numbers(tokenizer, found, training)
    sections = [_fit_section(found), _test_section(found)]
    if found.sample:
        sections.append(_sample_section(tokenizer, found.sample))
    sections.append(_entries_section(tokenizer))
    if training is not None:
        sections.append(_use_section(tokenizer, training))
    write_page(
        path,
        Page(
            title="Tokenizer",
            subtitle=f"{tokenizer.vocab_size:,} entries, byte-level BPE, digest {tokenizer.digest[:16]}",
            sections=sections,
            numbers=numbers,
        ),
    )


def report_numbers(tokenizer: Tokenizer, found: Examination, training: Counts | None = None) -> dict[str, Any]:
    """Return every figure of the report."""
    numbers: dict[str, Any] = {
        "vocab_size": tokenizer.vocab_size,
        "digest": tokenizer.digest,
        "passed": found.passed,
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
        }
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


def _test_section(found: Examination) -> Section:
    rows: list[list[Value]] = [
        ["every text comes back exactly", found.round_trips, len(found.failures)],
        ["one by one and in bulk give the same ids", len(HARD_TEXTS) + RANDOM_TEXTS, len(found.disagreements)],
        ["a special spelling in text stays text", len(special.SPECIAL_TOKENS), len(found.forged)],
    ]
    table = Table(["test", "checked", "failed"], rows)
    details = [
        Details(
            f"Failure at character {failure.position}", [Code(failure.text, "text"), Code(failure.decoded, "decoded")]
        )
        for failure in found.failures[:SHOWN_FAILURES]
    ]
    return Section("Exactness", [table, *details], intro="Held-out text, random Unicode and hand-made hard cases.")


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
