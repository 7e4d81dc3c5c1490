"""What the whole corpus tells, on made-up columns: no text is read."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from caslon.corpus import deciding
from caslon.corpus.deciding import repeated_lines, repeated_paragraphs, save_lines, surplus
from caslon.corpus.phases.finishing import repeated_lines as read_lines
from caslon.corpus.work import DocumentColumns, Summary, finish

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("characters", pa.int64()),
        ("lines", pa.list_(pa.uint64())),
        ("paragraphs", pa.list_(pa.uint64())),
    ]
)


def columns(work: Path, rows: list[dict[str, object]], batch: int = 3) -> DocumentColumns:
    """The rows as judged documents in batches."""
    summaries = []
    for number, start in enumerate(range(0, len(rows), batch)):
        part = rows[start : start + batch]
        full = [
            {"id": f"{start + place:016x}", "source": "a", "characters": 10, "lines": [], "paragraphs": [], **row}
            for place, row in enumerate(part)
        ]
        summaries.append(finish(work, "judge", Summary(number, "", len(part), {}), {"documents": (full, SCHEMA)}))
    return DocumentColumns(work, "judge", summaries)


def test_lines_are_counted_by_source_and_by_documents(tmp_path: Path) -> None:
    rows = [{"source": "a", "lines": [7, 8]}, {"source": "a", "lines": [7]}, {"source": "a", "lines": [7]}]
    rows += [{"source": "b", "lines": [8]}, {"source": "b", "lines": [7, 8, 9]}, {"source": "b", "lines": [8]}]
    found = repeated_lines(columns(tmp_path, rows), set(), 3)
    assert {name: hashes.tolist() for name, hashes in found.items()} == {"a": [7], "b": [8]}
    without = repeated_lines(columns(tmp_path, rows), {0}, 3)
    assert {name: hashes.tolist() for name, hashes in without.items()} == {"b": [8]}


def test_portions_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(1)
    rows = [{"lines": sorted({int(value) for value in numbers.integers(0, 40, 20)})} for _ in range(50)]
    found = columns(tmp_path, rows)
    whole = repeated_lines(found, set(), 20)["a"].tolist()
    monkeypatch.setattr(deciding, "HASHES_AT_A_TIME", 37)
    assert repeated_lines(found, set(), 20)["a"].tolist() == whole != []


def test_a_paragraph_stays_in_the_best_document(tmp_path: Path) -> None:
    rows = [{"paragraphs": [5, 6]}, {"paragraphs": [6]}, {"paragraphs": [5, 6]}, {"paragraphs": [1]}]
    ranks = np.array([2, 0, 1, 3])
    found = columns(tmp_path, rows)
    assert repeated_paragraphs(found, set(), ranks) == {0: (5, 6), 2: (6,)}
    assert repeated_paragraphs(found, {1, 2}, ranks) == {}


def test_lines_reach_the_workers_as_they_were_found(tmp_path: Path) -> None:
    lines = {"a": np.array([1, 2**63 + 5], dtype=np.uint64), "b": np.array([3], dtype=np.uint64)}
    digest = save_lines(tmp_path / "lines.npz", lines)
    read = read_lines(tmp_path / "lines.npz", digest)
    assert {name: hashes.tolist() for name, hashes in read.items()} == {"a": [1, 2**63 + 5], "b": [3]}
    assert save_lines(tmp_path / "other.npz", {"a": lines["a"]}) != digest


def test_no_source_is_more_than_its_share(tmp_path: Path) -> None:
    sizes = [("a", 100)] * 30 + [("b", 100)] * 6 + [("c", 100)] * 4
    judged = columns(tmp_path, [{"source": source, "characters": size} for source, size in sizes])
    aside, warning = surplus(judged, set(), 0.5)
    assert warning == ""
    kept = [source for number, (source, _) in enumerate(sizes) if number not in aside]
    assert kept.count("a") == 10 == kept.count("b") + kept.count("c")
    assert surplus(judged, set(), 0.5)[0] == aside


def test_a_share_that_cannot_be_met_is_ignored_and_said(tmp_path: Path) -> None:
    judged = columns(tmp_path, [{"source": "a"}, {"source": "a"}])
    aside, warning = surplus(judged, set(), 0.5)
    assert aside == set()
    assert "cannot be met by 1 sources" in warning
