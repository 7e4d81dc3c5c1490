import errno
import json
import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from caslon.errors import CaslonError, StorageError, UserError
from caslon.folders import content_files
from caslon.tokenizer import encode, encode_workers
from caslon.tokenizer.encode import TokenSplit, check_token_files, read_meta, write_token_files
from caslon.tokenizer.tokenizer import Tokenizer

TEXTS = {
    "train": [(f"t{number}", f"Text {number}: naïve £{number}\n" * (1 + number % 5)) for number in range(50)],
    "validation": [("v0", ""), ("v1", "<|endoftext|> spelled out")],
    "test": [],
}


def read(split: str) -> Iterable[tuple[str, str]]:
    return iter(TEXTS[split])


@pytest.fixture(scope="module")
def written(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    write_token_files(folder, tokenizer, read, dataset_id="d" * 64)
    return folder


def test_the_files_give_every_text_back_in_order(tokenizer: Tokenizer, written: Path) -> None:
    for split, units in TEXTS.items():
        tokens = TokenSplit.open(written, split)
        assert tokens.ids.dtype == np.dtype("<u2")
        assert tokens.document_ids() == [id for id, _ in units]
        decoded = [tokenizer.decode(tokens.document(number).tolist()) for number in range(len(units))]
        assert decoded == [text for _, text in units]
        assert tokens.document_bytes().tolist() == [len(text.encode()) for _, text in units]
        assert tokens.text_bytes == sum(len(text.encode()) for _, text in units)
        ends = tokens.document_starts[1:] - 1
        assert np.array_equal(np.flatnonzero(tokens.ids == tokenizer.end_of_text_id), ends)
        assert tokens.document_starts[0] == 0
        assert tokens.document_starts[-1] == len(tokens.ids)


def test_meta_says_what_the_files_are(tokenizer: Tokenizer, written: Path) -> None:
    meta = read_meta(written)
    assert (meta.vocab_size, meta.id_type, meta.unit) == (tokenizer.vocab_size, "uint16", "document")
    assert (meta.tokenizer_digest, meta.dataset_id, meta.end_of_text_id) == (tokenizer.digest, "d" * 64, 1)
    files = content_files(written)
    assert set(files) == {
        "train-00000.bin", "validation-00000.bin", "test-00000.bin", "documents.parquet", "meta.json",
    }  # fmt: skip
    assert all(file.sha256 == files[file.name].sha256 for figures in meta.splits.values() for file in figures.files)
    assert meta.splits["train"].characters == sum(len(text) for _, text in TEXTS["train"])
    table = pq.read_table(written / "documents.parquet").to_pylist()
    assert all(row["end"] - row["start"] == row["tokens"] and row["document"] == row["id"] for row in table)
    assert [row["id"] for row in table] == [id for units in TEXTS.values() for id, _ in units]
    assert sum(row["tokens"] for row in table if row["split"] == "train") == meta.splits["train"].tokens


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_processes_writes_the_same_bytes(
    tokenizer: Tokenizer, written: Path, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 100)
    seen: list[tuple[str, int]] = []
    write_token_files(
        tmp_path, tokenizer, read, dataset_id="d" * 64, workers=workers, progress=lambda *at: seen.append(at)
    )
    assert content_files(tmp_path) == content_files(written)
    assert seen[-1] == ("validation", len(TEXTS["validation"][1][1]))
    assert len(seen) > 10


def test_an_error_in_another_process_arrives_whole(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="surrogate"):
        write_token_files(tmp_path, tokenizer, lambda _: [("a", "\ud800")], dataset_id="", workers=2)
    assert not list(tmp_path.glob("*.bin"))


def test_a_reader_that_fails_leaves_no_file_that_looks_finished(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def failing(split: str) -> Iterable[tuple[str, str]]:
        yield "a", "text"
        raise RuntimeError(split)

    with pytest.raises(RuntimeError):
        write_token_files(tmp_path, tokenizer, failing, dataset_id="")
    assert not list(tmp_path.glob("[!.]*"))


def test_opening_what_is_not_there(written: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no token files"):
        TokenSplit.open(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'dev'"):
        TokenSplit.open(written, "dev")
    meta = json.loads((written / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "train-00000.bin").write_bytes((written / "train-00000.bin").read_bytes()[:-2])
    with pytest.raises(StorageError, match="cut short"):
        TokenSplit.open(tmp_path, "train")


@pytest.fixture
def in_small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "TOKENS_PER_FILE", 200)
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 100)
    monkeypatch.setattr(encode, "CURSOR_CHARACTERS", 300)


@pytest.mark.usefixtures("in_small_files")
def test_a_split_in_several_files_reads_as_one(tokenizer: Tokenizer, written: Path, tmp_path: Path) -> None:
    meta = write_token_files(tmp_path, tokenizer, read, dataset_id="d" * 64)
    files = meta.splits["train"].files
    assert [file.name for file in files] == [f"train-{number:05d}.bin" for number in range(len(files))]
    assert len(files) > 3
    assert all(file.tokens >= 200 for file in files[:-1])
    whole, parts = TokenSplit.open(written, "train"), TokenSplit.open(tmp_path, "train")
    assert np.array_equal(np.asarray(parts.ids), whole.ids)
    assert len(parts.ids) == len(whole.ids)
    assert (parts.ids.max(), parts.ids.argmax()) == (whole.ids.max(), whole.ids.argmax())
    for start in range(0, len(whole.ids), 37):
        for length in (0, 1, 150, 450):
            assert parts.ids[start : start + length].tolist() == whole.ids[start : start + length].tolist()
        assert parts.ids[start] == whole.ids[start]
        assert parts.unit_at(start) == whole.unit_at(start)
    assert parts.ids[-3:].tolist() == whole.ids[-3:].tolist()
    assert [parts.document(number).tolist() for number in range(50)] == [
        whole.document(number).tolist() for number in range(50)
    ]
    assert check_token_files(tmp_path, tokenizer, read) == 52


def test_any_position_leads_back_to_its_unit(tokenizer: Tokenizer, written: Path) -> None:
    split = TokenSplit.open(written, "train")
    ids = split.document_ids()
    for number, (start, end) in enumerate(zip(split.document_starts, split.document_starts[1:], strict=False)):
        assert ids[split.unit_at(int(start))] == ids[split.unit_at(int(end) - 1)] == f"t{number}"
    with pytest.raises(UserError, match="outside"):
        split.unit_at(len(split.ids))


def test_segments_name_their_document(tokenizer: Tokenizer, tmp_path: Path) -> None:
    units = [("a-b-0", "one"), ("a-b-1", "two"), ("c-0", "three")]
    meta = write_token_files(
        tmp_path, tokenizer, lambda split: units if split == "train" else (), dataset_id="", unit="segment"
    )
    assert (meta.splits["train"].units, meta.splits["train"].documents) == (3, 2)
    assert pq.read_table(tmp_path / "documents.parquet")["document"].to_pylist() == ["a-b", "a-b", "c"]


def test_the_same_work_is_not_done_again_and_other_work_is(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reads: list[str] = []

    def counted(split: str) -> Iterable[tuple[str, str]]:
        reads.append(split)
        return read(split)

    first = write_token_files(tmp_path, tokenizer, counted, dataset_id="one")
    assert write_token_files(tmp_path, tokenizer, counted, dataset_id="one") == first
    assert len(reads) == 3
    assert write_token_files(tmp_path, tokenizer, counted, dataset_id="two").key != first.key
    assert write_token_files(tmp_path, tokenizer, counted, dataset_id="two", unit="segment").unit == "segment"
    assert len(reads) == 9
    (tmp_path / "train-00000.bin").unlink()
    write_token_files(tmp_path, tokenizer, counted, dataset_id="two", unit="segment")
    assert len(reads) == 12
    assert not list(tmp_path.glob(".*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from caslon.tokenizer import encode, encode_workers
from caslon.tokenizer.tokenizer import Tokenizer
encode.TOKENS_PER_FILE, encode.BATCH_CHARACTERS, encode.CURSOR_CHARACTERS = 200, 100, 300
folder, tokenizer, kill_at, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
given = 0
def read(split):
    global given
    for number in range({"train": 50, "validation": 3, "test": 0}[split]):
        if given == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        given += 1
        yield f"{split}{number}", f"{split} {number}: naïve £{number}\\n" * (1 + number % 5)
if __name__ == "__main__":
    encode.write_token_files(folder, Tokenizer.load(tokenizer), read, dataset_id="d", workers=workers)
    print(given)
"""


def test_killed_and_resumed_gives_the_same_bytes(tokenizer_folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)

    def run(folder: Path, kill_at: int, workers: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), str(folder), str(tokenizer_folder), str(kill_at), str(workers)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert run(tmp_path / "whole", -1, 1).returncode == 0
    for workers, kills in ((1, (1, 33, 51)), (2, (45,))):
        folder = tmp_path / f"killed{workers}"
        for kill_at in kills:
            assert run(folder, kill_at, workers).returncode == -signal.SIGKILL
            assert not (folder / "meta.json").exists()
        assert run(folder, -1, workers).returncode == 0
        assert content_files(folder) == content_files(tmp_path / "whole")
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            path.name for path in (tmp_path / "whole").iterdir()
        )


@pytest.mark.usefixtures("in_small_files")
def test_a_resumed_call_keeps_what_was_written(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(split: str) -> Iterable[tuple[str, str]]:
        for number, unit in enumerate(read(split)):
            if number == 40:
                raise RuntimeError("stop")
            yield unit

    with pytest.raises(RuntimeError):
        write_token_files(tmp_path, tokenizer, failing, dataset_id="x")
    encoded: list[str] = []
    original = encode._batches

    def watched(units: Iterable[tuple[str, str]]) -> Iterable[tuple[list[str], list[str]]]:
        for ids, texts in original(units):
            encoded.extend(ids)
            yield ids, texts

    monkeypatch.setattr(encode, "_batches", watched)
    write_token_files(tmp_path, tokenizer, read, dataset_id="x")
    assert len(encoded) < 30
    assert check_token_files(tmp_path, tokenizer, read) == 52


def test_the_check_finds_a_changed_id(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_token_files(tmp_path, tokenizer, read, dataset_id="d")
    data = bytearray((tmp_path / "train-00000.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "train-00000.bin").write_bytes(bytes(data))
    with pytest.raises(StorageError, match="do not give this text back"):
        check_token_files(tmp_path, tokenizer, read)


def test_token_files_of_an_older_form_are_named_as_such(written: Path, tmp_path: Path) -> None:
    meta = json.loads((written / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps({**meta, "format": 1}))
    with pytest.raises(UserError, match="format 1"):
        read_meta(tmp_path)


def test_a_process_that_dies_and_a_full_disk_say_so(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with encode_workers.encoders(tokenizer, 2) as group:
        assert isinstance(group, encode_workers.ProcessEncoders)
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        with pytest.raises(CaslonError, match="ended early"):
            list(group.encode([(["a"], ["text"])] * 4))

    def full(split: str) -> Iterable[tuple[str, str]]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="cannot write: No space left"):
        write_token_files(tmp_path, tokenizer, full, dataset_id="")

    def gone(split: str) -> Iterable[tuple[str, str]]:
        raise FileNotFoundError("shard")

    with pytest.raises(FileNotFoundError):
        write_token_files(tmp_path, tokenizer, gone, dataset_id="")


@pytest.mark.promise("pretraining", "exact copies of a document in two splits are refused, with their number")
def test_the_same_document_in_two_splits_is_refused_with_its_number(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = {
        "train": [("a", "one"), ("b", "two"), ("c", "three"), ("d", "two")],
        "validation": [("e", "two"), ("f", "four"), ("g", "")],
        "test": [("h", "four"), ("i", "")],
    }
    for _ in range(2):  # the second call goes on where the first one was refused
        with pytest.raises(UserError, match="two splits: 2 of train in validation, 1 of validation in test"):
            write_token_files(tmp_path, tokenizer, lambda split: texts[split], dataset_id="copies")
    texts["validation"] = [("e", "five"), ("g", "")]
    files = write_token_files(tmp_path / "other", tokenizer, lambda split: texts[split], dataset_id="none")
    assert files.total("units") == 8
    segments = write_token_files(
        tmp_path / "segments", tokenizer, lambda split: [(f"{split}-0", "the same")], dataset_id="s", unit="segment"
    )
    assert segments.total("units") == 3
