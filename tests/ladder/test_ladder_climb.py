"""The whole ladder on a small text: one table, kept rungs, the page, and texts from where people have them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from caslon.cli import app
from caslon.errors import UserError
from caslon.ladder import rungs
from caslon.ladder.climb import Sampling, climb
from caslon.ladder.rungs import all_rungs, chosen_rungs
from caslon.ladder.text import ladder_text
from caslon.observe.events import EventLog

LIMITS = {"max_train_bytes": 1_000_000, "max_validation_bytes": 100_000}


def test_a_text_file_is_parted_in_order(small_file: Path, small_text: bytes) -> None:
    text = ladder_text(small_file, **LIMITS)
    assert text.train + text.validation == small_text
    assert len(text.train) == len(small_text) * 9 // 10


@pytest.mark.promise("pretraining", "tiny Shakespeare is parted into 1,003,854 and 111,540 bytes for the ladder")
def test_tiny_shakespeare_is_parted_as_published(tiny_shakespeare: Path) -> None:
    text = ladder_text(tiny_shakespeare, max_train_bytes=20_000_000, max_validation_bytes=500_000)
    assert (len(text.train), len(text.validation)) == (1_003_854, 111_540)


def test_limits_cut_and_say_so(small_file: Path, small_text: bytes) -> None:
    text = ladder_text(small_file, max_train_bytes=2_000, max_validation_bytes=1_000)
    border = len(small_text) * 9 // 10
    assert (text.train, text.validation) == (small_text[border - 2_000 : border], small_text[border : border + 1_000])
    assert "cut" in text.rule


def write_corpus(folder: Path, splits: dict[str, list[str]]) -> None:
    (folder / "documents").mkdir(parents=True)
    for split, texts in splits.items():
        pq.write_table(pa.table({"text": texts}), folder / "documents" / f"{split}-00000.parquet")


@pytest.mark.parametrize("inside", ["corpus", ""])
def test_a_run_or_corpus_folder_keeps_its_splits(tmp_path: Path, inside: str) -> None:
    write_corpus(tmp_path / inside, {"train": ["a tale. " * 100, "é " * 200], "validation": ["another. " * 200]})
    text = ladder_text(tmp_path, **LIMITS)
    assert text.train == ("a tale. " * 100 + "é " * 200).encode()
    assert text.validation == b"another. " * 200


@pytest.mark.parametrize("make", ["nothing", "empty folder", "short file"])
def test_what_is_no_text_is_refused(tmp_path: Path, make: str) -> None:
    path = tmp_path / "text"
    if make == "empty folder":
        path.mkdir()
    if make == "short file":
        path.write_bytes(b"short")
    with pytest.raises(UserError):
        ladder_text(path, **LIMITS)


@pytest.mark.promise("pretraining", "`caslon ladder` trains every rung on the same bytes and prints one table")
def test_one_table_of_all_rungs(small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rungs, "CONTEXT", 32)
    monkeypatch.setattr(rungs, "TRANSFORMER", {"width": 32, "layers": 2, "optimizer": "muon", "precision": "auto"})
    command = ["ladder", str(small_file), "--out", str(tmp_path / "out"), "--steps", "3", "--sample-bytes", "30"]
    first = CliRunner().invoke(app, [*command, "--json"])
    assert first.exit_code == 0, first.output
    numbers = json.loads(first.stdout)
    found = {item["rung"]: item for item in numbers["rungs"]}
    assert list(found) == [rung.name for rung in all_rungs(seed=1)]
    assert found["uniform"]["bits_per_byte"] == 8.0
    assert all(0 < item["bits_per_byte"] <= 8.5 and item["sample"] for item in found.values())
    assert all(
        {"syntax", "long_range", "bytes_back", "numbers", "train_seconds"} <= set(item) for item in found.values()
    )
    assert (
        found["witten-bell-5"]["bits_per_byte"] < found["markov"]["bits_per_byte"] < found["unigram"]["bits_per_byte"]
    )
    assert "witten-bell-5" in (tmp_path / "out" / "ladder.html").read_text()
    table = CliRunner().invoke(app, command)  # every rung is kept: this only prints
    assert table.exit_code == 0, table.output
    lines = [line.split()[:2] for line in table.stdout.splitlines() if line.split()]
    assert ["uniform", "8.0000"] in lines
    assert [line[0] for line in lines if line[0] in found][: len(found)] == list(found)


def test_finished_rungs_are_kept(small_file: Path, tmp_path: Path) -> None:
    text = ladder_text(small_file, **LIMITS)
    trained: list[str] = []

    def counted(name: str) -> Any:
        [rung] = chosen_rungs([name], all_rungs(seed=1))

        def train(data: bytes, work: Any) -> Any:
            trained.append(name)
            return rung.train(data, work)

        return type(rung)(rung.name, rung.reach, train, rung.settings, rung.holds)

    wanted = [counted("unigram"), counted("markov")]
    first = climb(text, wanted[:1], tmp_path, EventLog(None), Sampling(length=5))
    both = climb(text, wanted, tmp_path, EventLog(None), Sampling(length=5))
    assert trained == ["unigram", "markov"]
    assert both[0] == first[0]
    climb(text, wanted[:1], tmp_path, EventLog(None), Sampling(length=6))
    assert trained == ["unigram", "markov", "unigram"]


def test_an_unknown_rung_names_the_nearest() -> None:
    with pytest.raises(UserError, match="no rung 'marcov'") as caught:
        chosen_rungs(["marcov"], all_rungs(seed=1))
    assert "did you mean 'markov'" in str(caught.value)


def test_writes_like_the_author(small_file: Path, small_text: bytes) -> None:
    command = ["ladder", "write", str(small_file), "--order", "4", "--length", "60", "--prompt", "the "]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    text = result.stdout.removesuffix("\n").encode()
    assert len(text) == 64
    assert all(text[i : i + 5] in small_text for i in range(60))


def test_the_command_loads_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys; from caslon.ladder.rungs import all_rungs; all_rungs(seed=1); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
