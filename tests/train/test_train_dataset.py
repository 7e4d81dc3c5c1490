"""Token folders opened, checked and mixed; a large one in no time."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_train_stages import TRAINING, context

from caslon.errors import UserError
from caslon.observe.events import EventLog, metric_values, read_events
from caslon.stages import pretrain
from caslon.tokenizer.encode import write_token_files
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.dataset import open_data


def mixed_run(folder: Path, tokens_folder: Path, mixture: dict[str, float], **changes: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    chosen = pretrain.Settings(**{**TRAINING, **changes}, mixture=mixture)
    with EventLog(folder / "events.jsonl") as events:
        return pretrain.run(context(folder, chosen, {"tokens": tokens_folder}, events))


@pytest.mark.parametrize("packing", ["packed", "windows"])
def test_a_mixture_trains_and_its_shares_are_logged(
    packing: str, tokens_folder: Path, other_tokens_folder: Path, tmp_path: Path
) -> None:
    other = str(other_tokens_folder)
    totals = mixed_run(tmp_path, tokens_folder, {"tokens": 3, other: 1}, steps=12, packing=packing)
    assert totals["data_shares"]["tokens"] == pytest.approx(0.75, abs=0.15)
    assert sum(totals["data_shares"].values()) == pytest.approx(1)
    series = metric_values(tmp_path / "events.jsonl")
    assert [step for step, _ in series["data/share/tokens"]] == [3, 6, 9, 12]
    assert series[f"data/share/{other}"][-1][1] == totals["data_shares"][other]
    notes = [event["text"] for event in read_events(tmp_path / "events.jsonl") if event["kind"] == "note"]
    assert any(note.startswith("rows by data set: tokens ") for note in notes)
    assert pretrain.sources(pretrain.Settings(mixture={"tokens": 3, other: 1}), tmp_path) == [
        other_tokens_folder / "tokens" / "meta.json"
    ]


def test_a_mixture_of_another_tokenizer_or_of_nothing_is_refused(tokens_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no token files"):
        mixed_run(tmp_path / "a", tokens_folder, {"nowhere": 1})
    other = tmp_path / "tokens"
    write_token_files(other, Tokenizer.load(tokens_folder), lambda split: [(split, split)], dataset_id="x")
    meta = json.loads((other / "meta.json").read_text())
    (other / "meta.json").write_text(json.dumps({**meta, "tokenizer_digest": "1" * 64}))
    with pytest.raises(UserError, match="tokenizer 1111111111111111"):
        mixed_run(tmp_path / "a", tokens_folder, {str(other): 1})


def test_what_one_set_learns_may_not_be_held_out_in_another(tokens_folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(tokens_folder)
    for name, held_out in (("a", "five"), ("b", "one")):
        texts = {"train": [("1", f"one{'' if name == 'a' else 's'}")], "validation": [("2", held_out)], "test": []}
        write_token_files(tmp_path / name, tokenizer, texts.__getitem__, dataset_id=name)
    with pytest.raises(UserError, match="1 documents of 'a' are held out in 'b'"):
        open_data(tmp_path, {"a": 1, "b": 1}, tmp_path, tokenizer)


def test_val_tokens_sets_how_much_is_measured() -> None:
    for given, expected in (({"val_tokens": 1_000}, 4), ({"val_tokens": 1_024}, 4), ({"eval_batches": 9}, 9)):
        chosen = pretrain.Settings(batch=4, context=64, steps=10, **given)
        assert pretrain.train_plan(chosen, 320, seed=0)[0].eval_batches == expected
    with pytest.raises(ValueError, match="val_tokens"):
        pretrain.Settings(val_tokens=10_000_001)


OPEN = """
import re, sys, time
began = time.perf_counter()
from pathlib import Path
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.train.dataset import open_data
folder = Path(sys.argv[1])
data = open_data(folder / "tokens", {}, folder, Tokenizer.load(folder))
batches = data.rows("train", sys.argv[2], 512, 1, doc_mask=True)
assert batches.batch(3, 16).ids.shape == (16, 512)
assert data.tokens == 1_000_000_000
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())  # getrusage counts the parent's, before exec
print(time.perf_counter() - began, int(peak[1]) * 1024)
"""


def sparse_token_files(folder: Path, tokenizer: Tokenizer, tokens: int, document_tokens: int) -> None:
    """Write token files whose ids are all 0 and take no room on disk, with a million documents and their digests."""
    write_token_files(folder, tokenizer, lambda split: [(split, split)], dataset_id="sparse")
    meta = json.loads((folder / "meta.json").read_text())
    files = []
    for number in range(10):
        path = folder / f"train-{number:05d}.bin"
        with path.open("wb") as file:
            file.truncate(tokens // 10 * 2)
        files.append({"name": path.name, "sha256": "", "tokens": tokens // 10})
    count = tokens // document_tokens
    meta["splits"]["train"] |= {"files": files, "tokens": tokens, "units": count, "documents": count}
    (folder / "meta.json").write_text(json.dumps(meta))
    rows = pq.read_table(folder / "documents.parquet")
    held_out = rows.filter(pa.compute.not_equal(rows["split"], "train"))
    names = pa.array(["x"]).take(pa.array(np.zeros(count, dtype=np.int32)))
    of_train = {"split": pa.array(["train"]).take(pa.array(np.zeros(count, dtype=np.int32)))}
    numbers = {"tokens": np.full(count, document_tokens), "digest": np.arange(1, count + 1)}
    columns = [
        of_train.get(field.name, names)
        if field.type == pa.string()
        else pa.array(numbers.get(field.name, numbers["tokens"]))
        for field in rows.schema
    ]
    pq.write_table(pa.concat_tables([pa.table(columns, schema=rows.schema), held_out]), folder / "documents.parquet")


@pytest.mark.promise("pretraining", "a data set of a billion tokens is opened in less than 10 s and 500 MB")
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of one process is read from /proc")
@pytest.mark.parametrize("packing", ["packed", "windows"])
def test_a_billion_tokens_are_opened_in_no_time(packing: str, tokens_folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(tokens_folder)
    tokenizer.save(tmp_path)
    sparse_token_files(tmp_path / "tokens", tokenizer, 1_000_000_000, 1_000)
    done = subprocess.run([sys.executable, "-c", OPEN, tmp_path, packing], capture_output=True, text=True, check=True)
    seconds, memory = map(float, done.stdout.split())
    assert seconds < 10
    assert memory < 500e6
