"""A finished corpus checked against itself: every hash, every count, every cut, and that no split holds what another holds."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

from caslon.corpus.document import Document, Reject
from caslon.corpus.leakage import shared_values
from caslon.corpus.phases.finishing import document_digest
from caslon.corpus.shards import (
    SPLITS,
    Segment,
    read_documents,
    read_rejects,
    read_segments,
    rows_of_file,
    shard_paths,
    storable,
)
from caslon.corpus.writing import dataset_id, split_digest
from caslon.folders import StageFolder, sha256_of_file

DATASET_FILE = "dataset.json"
PROBLEMS_SHOWN = 50
REMOVING_STEPS = {  # which step takes out what
    "ad_block": "quality",
    "foreign_paragraph": "language",
    "boilerplate_line": "boilerplate",
    "duplicate_paragraph": "boilerplate",
    "masked": "privacy",
}


@dataclass
class Verification:
    """What was looked at, and everything that is not as it should be."""

    files: int = 0
    documents: int = 0
    segments: int = 0
    rejects: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing differs."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain JSON values."""
        return {"passed": self.passed, **self.__dict__, "problems": self.problems[:PROBLEMS_SHOWN]}


def verify(folder: Path) -> Verification:
    """Return what is wrong with a finished corpus. `UserError` when there is none at `folder`."""
    found = Verification()
    stage = StageFolder.open(folder)
    found.problems += _changed_files(stage)
    found.files = len(stage.manifest.files)
    totals = json.loads((folder / DATASET_FILE).read_text(encoding="utf-8"))
    digests: list[bytes] = []
    removed: Counter[str] = Counter()
    short = _short_segments(folder)
    for split in SPLITS:
        for document, segments in _with_segments(folder, split):
            found.documents += 1
            found.segments += len(segments)
            found.problems += _cuts(document, segments, short.pop(document.id, []))
            pieces = [(segment.start, segment.end) for segment in segments]
            digests.append(split_digest(split, document.id, document_digest(storable(document.text), pieces)))
            _count_removals(document.removals, removed)
    rejected = _rejected(folder, removed)
    removed.subtract(_removed_by_readers(folder))
    found.rejects = sum(count for count, _ in rejected.values())
    found.problems += [f"short segments of a document that is not there: {identifier}" for identifier in short]
    if dataset_id(digests) != totals["dataset_id"]:
        found.problems.append(f"the dataset id is {dataset_id(digests)}, dataset.json says {totals['dataset_id']}")
    found.problems += _conservation(
        {name: totals["steps"][name] for name in totals["order_of_steps"]}, found, rejected, removed
    )
    found.problems += _leaks(folder)
    return found


def _changed_files(stage: StageFolder) -> Iterator[str]:
    for name, entry in stage.manifest.files.items():
        file = stage.path / name
        if not file.is_file():
            yield f"{name} is missing"
        elif sha256_of_file(file) != entry.sha256:
            yield f"{name} was changed after it was written"
    known = set(stage.manifest.files)
    for kind in ("documents", "segments", "rejects", "signals", "read"):
        for path in shard_paths(stage.path, kind):
            if path.relative_to(stage.path).as_posix() not in known:
                yield f"{path.relative_to(stage.path)} is not in the manifest"


def _with_segments(folder: Path, split: str) -> Iterator[tuple[Document, list[Segment]]]:
    """Yield each document with its segments; both files are in one order, and a document may have none."""
    groups = groupby(read_segments(folder, split), key=attrgetter("document_id"))
    identifier, segments = _next(groups)
    for document in read_documents(folder, split):
        if document.id == identifier:
            yield document, segments
            identifier, segments = _next(groups)
        else:
            yield document, []


def _next(groups: Iterator[tuple[str, Iterator[Segment]]]) -> tuple[str, list[Segment]]:
    identifier, found = next(groups, ("", iter(())))
    return identifier, list(found)


def _short_segments(folder: Path) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for reject in read_rejects(folder):
        if reject.code == "short_segment":
            found[reject.metadata["document_id"]].append((reject.metadata["start"], reject.metadata["end"]))
    return dict(found)


def _cuts(document: Document, segments: list[Segment], short: list[tuple[int, int]]) -> Iterator[str]:
    """Yield what is wrong with a document's cuts: kept and dropped pieces must cover it, with white space between them."""
    text = document.text
    for segment in segments:
        if text[segment.start : segment.end] != segment.text:
            yield f"segment {segment.id} is not characters {segment.start} to {segment.end} of its document"
    ranges = sorted([*((segment.start, segment.end) for segment in segments), *short])
    borders = [(0, 0), *ranges, (len(text), len(text))]
    for (_, end), (start, _) in pairwise(borders):
        if text[end:start].strip():
            yield f"characters {end} to {start} of document {document.id} are in no segment"


def _count_removals(removals: Iterable[Any], removed: Counter[str]) -> None:
    for removal in removals:
        removed[REMOVING_STEPS[removal.code]] += removal.characters


def _removed_by_readers(folder: Path) -> Counter[str]:
    """Return what the readers took out of all documents, under the steps that usually do; it is no step's doing."""
    removed: Counter[str] = Counter()
    for path in shard_paths(folder, "read"):
        for row in rows_of_file(path, ["removals"]):
            for removal in json.loads(row["removals"]):
                removed[REMOVING_STEPS[removal["code"]]] += removal["characters"]
    return removed


def _rejected(folder: Path, removed: Counter[str]) -> dict[str, tuple[int, int]]:
    """Return `(documents, characters)` dropped by each step, and add what was taken out of them before to `removed`."""
    found: dict[str, tuple[int, int]] = {}
    for reject in read_rejects(folder):
        count, characters = found.get(reject.step, (0, 0))
        found[reject.step] = (count + 1, characters + _characters(reject))
        for removal in reject.metadata.get("removals", ()):
            removed[REMOVING_STEPS[removal["code"]]] += removal["characters"]
    return found


def _characters(reject: Reject) -> int:
    return int(reject.metadata.get("characters", len(reject.text)) if reject.code == "forgotten" else len(reject.text))


def _conservation(
    steps: Mapping[str, Mapping[str, int]],
    found: Verification,
    rejected: Mapping[str, tuple[int, int]],
    removed: Counter[str],
) -> Iterator[str]:
    for name, step in steps.items():
        if step["documents_in"] != step["documents_out"] + step["documents_rejected"]:
            yield f"step {name}: documents are not conserved"
        accounted = step["characters_out"] + step["characters_rejected"] + step["characters_removed"]
        if step["characters_in"] != accounted + step["characters_changed"]:
            yield f"step {name}: characters are not conserved"
        count, characters = rejected.get(name, (0, 0))
        pairs = [("documents dropped", step["documents_rejected"], count)] if name != "segments" else []
        pairs.append(("characters dropped", step["characters_rejected"], characters))
        pairs.append(("characters taken out", step["characters_removed"], removed[name]))
        for what, counted, stored in pairs:
            if counted != stored:
                yield f"step {name}: {counted:,} {what} were counted, {stored:,} are stored"
    for (before, first), (after, second) in pairwise(steps.items()):
        if first["documents_out"] != second["documents_in"] or first["characters_out"] != second["characters_in"]:
            yield f"what leaves {before} is not what enters {after}"
    last = list(steps.values())[-1] if steps else {"documents_out": 0}
    if last["documents_out"] != found.documents:
        yield f"{last['documents_out']:,} documents were counted, {found.documents:,} are stored"


def _leaks(folder: Path) -> Iterator[str]:
    for kind, column, word in (("documents", "group", "groups"), ("segments", "text", "segments")):
        if shared := shared_values(folder, kind, column):
            yield f"{shared:,} {word} stand in two splits"
