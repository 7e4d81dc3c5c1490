import json
import random
from pathlib import Path

import pytest
import torch

from caslon.corpus.document import Block, Document, Origin
from caslon.corpus.shards import DOCUMENT_SCHEMA, ShardWriter, document_row, read_texts
from caslon.errors import UserError
from caslon.folders import Manifest, StageFolder, content_digest, content_files
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.observe.events import EventLog
from caslon.stages import evaluate
from caslon.stages.stage import PlanContext, StageContext
from caslon.tokenizer.encode import write_token_files
from caslon.tokenizer.train import train_tokenizer

WORDS = [
    "the",
    "a",
    "dog",
    "cat",
    "house",
    "garden",
    "runs",
    "sleeps",
    "sees",
    "finds",
    "old",
    "young",
    "red",
    "green",
    "slowly",
    "quickly",
    "and",
    "then",
]
SMALL = {"sample_tokens": 12, "temperatures": (0.0, 1.0), "prompt_count": 2, "max_bytes": 6_000, "ngram_orders": (2, 3)}


def some_text(seed: int) -> str:
    choose = random.Random(seed)
    return " ".join(choose.choices(WORDS, k=120)) + "."


def write_corpus(folder: Path) -> None:
    for split, seeds in (("train", range(60)), ("validation", range(100, 105)), ("test", range(200, 230))):
        writer = ShardWriter(folder / "documents", split, DOCUMENT_SCHEMA)
        for seed in seeds:
            text = some_text(seed)
            origin = Origin("made", f"{seed}.txt", sha256=str(seed))
            writer.write(document_row(Document(origin, (Block(text, 0, len(text)),))))
        writer.close()


def finished(path: Path, stage: str, **totals: int) -> StageFolder:
    files = content_files(path)
    manifest = Manifest(
        stage, 1, "key", content_digest(files), 1, {}, {}, {}, files, totals, {}, "cpu", "2026-01-01", 1.0
    )
    return StageFolder(path, manifest)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, StageFolder]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("run")
    corpus = root / "corpus"
    write_corpus(corpus)
    tokenizer = train_tokenizer([text for _, text in read_texts(corpus, "train")], vocab_size=320)
    tokenizer.save(root / "tokenizer")
    read = lambda split: read_texts(corpus, split)  # noqa: E731
    write_token_files(root / "tokenizer" / "tokens", tokenizer, read, dataset_id="d" * 64)
    config = DecoderConfig.from_depth(2, family="llama", vocab_size=tokenizer.vocab_size, context=64, hidden_size=32)
    decoder = Decoder(config)
    decoder.initialise(3)
    save_model_folder(root / "pretrain" / "model", decoder, tokenizer, sidecar={})
    return {
        "text": finished(corpus, "corpus"),
        "tokens": finished(root / "tokenizer", "tokenizer", test_bytes=20_000),
        "model": finished(root / "pretrain", "pretrain"),
    }


def evaluated(inputs: dict[str, StageFolder], folder: Path, **settings: object) -> dict[str, object]:
    folder.mkdir()
    with EventLog(folder / "events.jsonl") as events:
        context = StageContext(
            "evaluate", evaluate.Settings(**{**SMALL, **settings}), 1, folder, inputs, events, folder.parent
        )
        return evaluate.run(context)


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("scores") / "evaluate"
    return folder, evaluated(inputs, folder)


def test_scores_stand_beside_their_baselines(whole):
    folder, totals = whole
    scores = json.loads((folder / "scores.json").read_text())
    score = scores["bits_per_byte"]
    assert score["value"] == pytest.approx(score["nats"] / 0.6931471805599453 / score["bytes"])
    assert score["bytes"] == scores["text"]["bytes"] == scores["baselines"]["test_bytes"] <= SMALL["max_bytes"]
    assert score["interval"] is None or score["interval"]["low"] < score["value"] < score["interval"]["high"]
    names = [rung["name"] for rung in scores["baselines"]["rungs"]]
    assert names == ["uniform", "2-gram", "3-gram", "gzip -9", "bzip2 -9", "xz -9e", "zstd -19"]
    assert totals["test_bpb"] == round(score["value"], 4)
    assert (
        totals["best_ngram_bpb"] < 3.0
    )  # eighteen words at random: the n-gram knows them, the untrained model does not
    assert score["value"] > totals["best_ngram_bpb"]
    assert "does not beat" in (folder / "report.html").read_text()


def test_samples_carry_their_spans(whole):
    samples = json.loads((whole[0] / "samples.json").read_text())
    assert [(sample["temperature"], sample["tokens"] <= 12) for sample in samples] == [(0.0, True)] * 2 + [
        (1.0, True)
    ] * 2
    assert all(sample["prompt"] and isinstance(sample["spans"], list) for sample in samples)


def test_same_inputs_same_bytes(inputs, whole, tmp_path):
    evaluated(inputs, tmp_path / "again")
    for name in ("scores.json", "samples.json", "report.html", "report.json"):
        assert (tmp_path / "again" / name).read_bytes() == (whole[0] / name).read_bytes()


def test_only_the_wanted_tasks_are_done(inputs, tmp_path):
    totals = evaluated(inputs, tmp_path / "one", tasks=("bits_per_byte",), prompts=("the dog",))
    scores = json.loads((tmp_path / "one" / "scores.json").read_text())
    assert set(scores) == {"model", "text", "bits_per_byte"}
    assert set(totals) == {"test_bpb", "perplexity", "scored_tokens", "scored_bytes"}
    assert json.loads((tmp_path / "one" / "samples.json").read_text()) == []


def test_a_prompt_that_fills_the_context_is_refused(inputs, tmp_path):
    with pytest.raises(UserError, match="fills the model's context"):
        evaluated(inputs, tmp_path / "long", tasks=("samples",), prompts=("dog " * 200,))


def test_tokens_of_another_corpus_are_refused(inputs, tmp_path):
    other = tmp_path / "other"
    writer = ShardWriter(other / "documents", "test", DOCUMENT_SCHEMA)
    writer.write(document_row(Document(Origin("x", "y"), (Block("text", 0, 4),))))
    writer.close()
    with pytest.raises(UserError, match="not in the corpus"):
        evaluated({**inputs, "text": finished(other, "corpus")}, tmp_path / "wrong")


def test_plan_says_how_much_is_scored(inputs):
    context = PlanContext("evaluate", evaluate.Settings(**SMALL), 1, inputs, {}, Path())
    rows = {row.name: row.value for row in evaluate.plan(context)}
    assert rows["scored text"] == 6_000
    assert rows["samples"] == 4
