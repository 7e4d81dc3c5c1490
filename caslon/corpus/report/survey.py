"""A finished corpus counted: one pass over its documents and rejects, part by part, in as many processes as there are."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from caslon.corpus.bias import BiasCounts
from caslon.corpus.lexicon import word_counts
from caslon.corpus.shards import document_of_row, shard_paths
from caslon.corpus.workers import Workers

EXAMPLES_PER_CODE = 3
EXAMPLE_CHARACTERS = 400
SAMPLE_CHARACTERS = 700
SAMPLES_PER_SOURCE = 5
LENGTH_BORDERS = (0, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)
SCORE_STEP = 5.0  # of 100
RATIO_STEP = 0.05

Part = tuple[Path, int]


@dataclass(frozen=True, order=True)
class Sample:
    """How a document began in its raw file and how it begins in the corpus."""

    document: str
    title: str
    before: str
    after: str


@dataclass(frozen=True, order=True)
class Example:
    """A text that was dropped."""

    id: str
    address: str
    reason: str
    text: str


@dataclass
class Survey:
    """What is counted. Two surveys of different parts add up to that of both."""

    documents: Counter[str] = field(default_factory=Counter)  # by source, as the next three
    characters: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    rejected_characters: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)  # characters
    uses: Counter[str] = field(default_factory=Counter)  # characters by allowed use
    tiers: Counter[str] = field(default_factory=Counter)
    decades: Counter[int] = field(default_factory=Counter)
    decade_characters: Counter[int] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)  # by lower border, as the next two
    scores: dict[str, Counter[float]] = field(default_factory=dict)  # by tier
    ratios: Counter[float] = field(default_factory=Counter)
    removals: Counter[str] = field(default_factory=Counter)
    removed_characters: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    ocr: Counter[str] = field(default_factory=Counter)
    privacy: Counter[str] = field(default_factory=Counter)
    rejects: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source, code)
    reject_characters: Counter[str] = field(default_factory=Counter)
    reject_steps: Counter[tuple[str, str]] = field(default_factory=Counter)
    clusters: Counter[str] = field(default_factory=Counter)  # copies that left, by the document that stays
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    examples: dict[str, list[Example]] = field(default_factory=dict)
    bias: BiasCounts = field(default_factory=BiasCounts)

    def add(self, other: "Survey") -> None:
        """Add the survey of another part."""
        for name in (item.name for item in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                mine.update(theirs)
        for tier, counts in other.scores.items():
            self.scores.setdefault(tier, Counter()).update(counts)
        for source, samples in other.samples.items():
            self.samples[source] = [*self.samples.get(source, []), *samples][:SAMPLES_PER_SOURCE]
        for code, examples in other.examples.items():
            self.examples[code] = [*self.examples.get(code, []), *examples][:EXAMPLES_PER_CODE]
        self.bias.merge(other.bias)


def survey(corpus_folder: Path, workers: Workers) -> Survey:
    """Return what the documents and rejects of a corpus folder add up to."""
    found = Survey()
    for kind, count in (("documents", _documents), ("rejects", _rejects)):
        for part in workers.in_order(count, list(_parts(corpus_folder, kind))):
            found.add(part)
    return found


def _parts(corpus_folder: Path, kind: str) -> Iterator[Part]:
    for path in shard_paths(corpus_folder, kind):
        with pq.ParquetFile(path) as file:
            yield from ((path, group) for group in range(file.num_row_groups))


def _rows(part: Part) -> list[dict[str, Any]]:
    path, group = part
    with pq.ParquetFile(path) as file:
        return list(file.read_row_group(group, use_threads=False).to_pylist())


def _documents(part: Part) -> Survey:
    found = Survey()
    for row in _rows(part):
        metadata = json.loads(row["metadata"])
        _count_document(found, row, metadata)
        _count_findings(found, row, metadata)
        if row["tier"] != "code":
            found.bias.add(row["source"], row["year"], word_counts(row["text"]))
            found.bias.companions(document_of_row(row))
    return found


def _count_document(found: Survey, row: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    source, characters = row["source"], row["characters"]
    found.documents[source] += 1
    found.characters[source] += characters
    found.licences[row["licence"] or "not stated"] += characters
    found.uses[metadata.get("allowed_use") or "any"] += characters
    found.tiers[row["tier"]] += 1
    if row["year"] is not None:
        found.decades[row["year"] // 10 * 10] += 1
        found.decade_characters[row["year"] // 10 * 10] += characters
    for language, part in metadata.get("language_shares", {}).items():
        found.languages[language] += round(part * characters)
    if "period" in metadata:
        found.verdicts[metadata["period"]] += 1
    found.lengths[max(border for border in LENGTH_BORDERS if border <= characters)] += 1
    if begins := metadata.get("raw_begins"):
        sample = Sample(row["id"], row["title"], begins, row["text"][:SAMPLE_CHARACTERS])
        found.samples.setdefault(source, []).append(sample)


def _count_findings(found: Survey, row: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    scores = json.loads(row["scores"])
    if "meaningful_ratio" in scores:
        found.scores.setdefault(row["tier"], Counter())[_step(row["score"], SCORE_STEP)] += 1
        found.ratios[_step(scores["meaningful_ratio"], RATIO_STEP)] += 1
    for removal in json.loads(row["removals"]):
        found.removals[removal["code"]] += 1
        found.removed_characters[removal["code"]] += removal["characters"]
    found.repairs.update(metadata.get("repairs", {}))
    found.privacy.update(metadata.get("privacy", {}))
    found.ocr["words that look misread"] += metadata.get("ocr_suspects", 0)
    found.ocr["words put right"] += len(metadata.get("ocr_edits", ()))


def _step(value: float, size: float) -> float:
    return round(int(value / size + 1e-9) * size, 2)


def _rejects(part: Part) -> Survey:
    found = Survey()
    for row in _rows(part):
        source, code = row["source"], row["code"]
        found.rejects[source, code] += 1
        found.reject_steps[row["step"], code] += 1
        found.reject_characters[code] += row["characters"]
        if code != "short_segment":
            found.rejected[source] += 1
            found.rejected_characters[source] += row["characters"]
        if code.endswith("_duplicate"):
            found.clusters[json.loads(row["metadata"])["cluster"]] += 1
        if len(found.examples.setdefault(code, [])) < EXAMPLES_PER_CODE:
            member = f"!{row['member']}" if row["member"] else ""
            address = f"{row['path']}{member}{'#' + row['record'] if row['record'] else ''}"
            found.examples[code].append(Example(row["id"], address, row["reason"], row["text"][:EXAMPLE_CHARACTERS]))
    return found
