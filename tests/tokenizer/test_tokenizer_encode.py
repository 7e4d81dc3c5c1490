import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from caslon.errors import StorageError, UserError
from caslon.folders import content_files
from caslon.tokenizer import encode
from caslon.tokenizer.encode import TokenSplit, read_meta, write_token_files
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
    assert all(figures.sha256 == files[figures.file].sha256 for figures in meta.splits.values())
    assert meta.splits["train"].characters == sum(len(text) for _, text in TEXTS["train"])
    table = pq.read_table(written / "documents.parquet").to_pylist()
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
