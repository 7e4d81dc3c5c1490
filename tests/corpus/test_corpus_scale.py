"""Twice as much text does not need more memory: peak of the driver and of the largest worker, each measured by itself."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from caslon.corpus import deciding
from caslon.corpus.dedup import Groups, distinct, stand_in
from caslon.corpus.leakage import shared_values
from caslon.corpus.shards import DOCUMENT_SCHEMA, ShardWriter
from caslon.corpus.steps import StepCounts
from caslon.corpus.work import DocumentColumns, Summary, finish

ROOT = Path(__file__).parents[2]
MEGABYTES = 24  # enough for every buffer of a fixed size to be full
GROWTH = 1.10


@pytest.mark.slow
@pytest.mark.promise("corpus", "Twice as much text does not need more memory, in the driver or in a worker")
def test_twice_the_text_does_not_need_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from corpus import memory

    found = memory(MEGABYTES, 2, tmp_path)
    for who in ("driver_bytes", "largest_child_bytes"):
        once, twice = found[who]
        assert twice < GROWTH * once, (who, found)
        assert 1 << 26 < twice < 1 << 30, (who, found)


def columns(folder: Path, batches: int, rows: int, width: int) -> DocumentColumns:
    """Return batches of documents that hold `width` hashes of lines each."""
    random_numbers = np.random.default_rng(7)
    schema = pa.schema([("source", pa.string()), ("lines", pa.list_(pa.uint64())), ("number", pa.int64())])
    summaries = []
    for batch in range(batches):
        lines = random_numbers.integers(0, 500, size=(rows, width), dtype=np.uint64)
        table = [
            {"source": f"source-{(batch + row) % 3}", "lines": lines[row].tolist(), "number": batch * rows + row}
            for row in range(rows)
        ]
        summary = Summary(batch, str(batch), rows, {"step": StepCounts()})
        summaries.append(finish(folder, "judge", summary, {"documents": (table, schema)}))
    return DocumentColumns(folder, "judge", summaries)


def test_columns_come_as_numbers_and_codes(tmp_path: Path) -> None:
    judged = columns(tmp_path, batches=4, rows=5, width=3)
    assert judged.numbers("number", np.int64).tolist() == list(range(20))
    names, codes = judged.codes("source")
    assert [names[code] for code in codes] == list(judged.column("source"))
    assert DocumentColumns(tmp_path, "judge", []).numbers("number", np.int64).dtype == np.int64
    assert DocumentColumns(tmp_path, "judge", []).codes("source")[0] == []


def test_hashes_are_counted_in_portions_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = columns(tmp_path, batches=6, rows=20, width=10)
    whole = deciding.repeated_lines(judged, {3}, 4)
    monkeypatch.setattr(deciding, "HASHES_AT_A_TIME", 100)
    portions = list(deciding._portions(judged, "lines", {3}))
    assert len(portions) == 6 * 20 * 10 // 100 + 1
    assert max(len(hashes) for hashes, _ in portions) < 300
    assert sum(len(hashes) for hashes, _ in portions) == (6 * 20 - 1) * 10
    again = deciding.repeated_lines(judged, {3}, 4)
    assert whole.keys() == again.keys()
    assert all((whole[name] == again[name]).all() for name in whole)
    assert any(len(values) for values in whole.values())


def test_distinct_and_stand_in_agree_with_numpy() -> None:
    random_numbers = np.random.default_rng(3)
    for size in (0, 1, 2, 1000):
        values = random_numbers.integers(0, 600, size=size, dtype=np.uint64)
        ordered = distinct(values)
        assert (ordered == np.unique(values)).all()
        asked = random_numbers.integers(0, 600, size=50, dtype=np.uint64)
        assert (stand_in(asked, ordered) == np.isin(asked, ordered)).all()


def test_the_roots_of_many_groups_are_those_of_each() -> None:
    random_numbers = np.random.default_rng(5)
    keys = random_numbers.integers(0, 1 << 63, size=200, dtype=np.uint64)
    groups = Groups()
    for first, second in random_numbers.integers(0, 200, size=(60, 2)):
        groups.join(int(keys[first]), int(keys[second]))
    assert groups.roots(keys).tolist() == [groups.find(int(key)) for key in keys]
    assert Groups().roots(keys).tolist() == keys.tolist()


def test_values_of_two_splits_are_found_row_group_by_row_group(tmp_path: Path) -> None:
    row = dict.fromkeys(DOCUMENT_SCHEMA.names)
    for split, names in {"train": "aab", "validation": "bcc", "test": "cbd"}.items():
        writer = ShardWriter(tmp_path / "documents", split, DOCUMENT_SCHEMA)
        for name in names:
            writer.write({**row, "text": name, "group": name})
        writer.close()
    assert shared_values(tmp_path, "documents", "group") == 2
    assert shared_values(tmp_path, "segments", "text") == 0
