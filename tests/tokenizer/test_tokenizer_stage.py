import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from caslon.corpus.shards import read_segments, read_texts
from caslon.folders import StageFolder, content_files
from caslon.observe.events import EventLog, read_events
from caslon.settings import problems
from caslon.stages import tokenizer as stage
from caslon.stages.stage import PlanContext, StageContext
from caslon.tokenizer.encode import TokenSplit
from caslon.tokenizer.tokenizer import Tokenizer


def run(folder: Path, corpus: StageFolder, **settings: object) -> dict[str, object]:
    folder.mkdir(exist_ok=True)
    with EventLog(folder / "events.jsonl") as events:
        context = StageContext(
            "tokenizer", stage.Settings(**settings), 1, folder, {"text": corpus}, events, folder.parent
        )
        return stage.run(context)


@pytest.fixture(scope="module")
def done(corpus: StageFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("run") / "tokenizer.partial"
    return folder, run(folder, corpus, vocab_size=400)


def test_the_folder_is_a_tokenizer_with_token_files(done: tuple[Path, dict[str, object]], corpus: StageFolder) -> None:
    folder, totals = done
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.vocab_size == totals["vocab_size"] == 400
    for split in ("train", "validation", "test"):
        tokens = TokenSplit.open(folder / "tokens", split)
        texts = dict(read_texts(corpus.path, split))
        assert tokens.document_ids() == list(texts)
        decoded = [tokenizer.decode(tokens.document(number).tolist()) for number in range(len(texts))]
        assert decoded == list(texts.values())
        assert totals[f"{split}_tokens"] == len(tokens.ids)
        assert tokens.dataset_id == corpus.digest


def test_only_the_train_split_is_learned_from(done: tuple[Path, dict[str, object]], corpus: StageFolder) -> None:
    from caslon.tokenizer.train import train_tokenizer

    texts = [text for _, text in read_texts(corpus.path, "train")]
    assert Tokenizer.load(done[0]).digest == train_tokenizer(texts, vocab_size=400).digest


def test_the_report_holds_the_figures_and_passes(done: tuple[Path, dict[str, object]]) -> None:
    numbers = json.loads((done[0] / "report.json").read_text())
    assert numbers["passed"] is True
    assert numbers["round_trips"] > 2_000
    assert numbers["held_out"]["bytes_per_token"] == pytest.approx(done[1]["held_out_bytes_per_token"], abs=1e-4)
    assert numbers["training"]["tokens"] == done[1]["train_tokens"]
    page = (done[0] / "report.html").read_text()
    assert "bytes per token" in page
    assert f"{numbers['held_out']['used_entries']:,} of 400 entries" in page


def test_the_same_again_and_after_an_interruption(
    done: tuple[Path, dict[str, object]], corpus: StageFolder, tmp_path: Path
) -> None:
    run(tmp_path / "again", corpus, vocab_size=400, workers=2)
    assert content_files(tmp_path / "again") == content_files(done[0])
    interrupted = tmp_path / "interrupted"
    Tokenizer.load(done[0]).save(interrupted)
    (interrupted / "tokens").mkdir()
    (interrupted / "tokens" / "train-00000.bin").write_bytes(b"left over")
    run(interrupted, corpus, vocab_size=400)
    assert content_files(interrupted) == content_files(done[0])
    notes = [event["text"] for event in read_events(interrupted / "events.jsonl") if event["kind"] == "note"]
    assert any("before the interruption" in note for note in notes)


def test_segments_as_units(corpus: StageFolder, tmp_path: Path) -> None:
    run(tmp_path / "t", corpus, vocab_size=300, unit="segment")
    tokens = TokenSplit.open(tmp_path / "t" / "tokens", "test")
    segments = list(read_segments(corpus.path, "test"))
    assert tokens.document_ids() == [segment.id for segment in segments]
    assert Tokenizer.load(tmp_path / "t").decode(tokens.document(1).tolist()) == segments[1].text


def test_a_limit_draws_a_seeded_share_of_the_documents(corpus: StageFolder, tmp_path: Path) -> None:
    characters = sum(len(text) for _, text in read_texts(corpus.path, "train"))
    with EventLog(None) as events:
        chosen = stage.Settings(vocab_size=300, max_bytes=characters // 2)
        contexts = [
            StageContext("tokenizer", chosen, seed, tmp_path, {"text": corpus}, events, tmp_path) for seed in (1, 1, 2)
        ]
        first, again, other = (list(stage._training_texts(context)) for context in contexts)
    assert first == again != other
    assert 0 < sum(len(text.encode()) for text in first) <= characters // 2


def test_too_small_a_vocabulary_names_the_least_size() -> None:
    with pytest.raises(ValidationError) as caught:
        stage.Settings(vocab_size=100)
    assert "288" in problems(caught.value, stage.Settings)[0][1]


def test_workers_change_no_key_and_the_plan_names_its_sources(corpus: StageFolder) -> None:
    assert stage.Settings(workers=3).output_settings() == stage.Settings().output_settings()
    rows = stage.plan(PlanContext("tokenizer", stage.Settings(vocab_size=400), 1, {"text": corpus}, {}, Path()))
    assert {row.name: row.value for row in rows}["vocab_size"] == 400
    assert all(row.origin for row in rows)
    assert len(stage.plan(PlanContext("tokenizer", stage.Settings(), 1, {}, {}, Path()))) == 2
