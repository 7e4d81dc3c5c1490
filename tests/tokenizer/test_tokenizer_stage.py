import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from caslon.corpus.shards import read_segments, read_texts
from caslon.errors import CaslonError
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
    size = sum(len(text.encode()) for _, text in read_texts(corpus.path, "train"))
    records = []
    for number, seed in enumerate((1, 1, 2)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with EventLog(folder / "events.jsonl") as events:
            chosen = stage.Settings(vocab_size=300, max_bytes=size // 2)
            stage.run(StageContext("tokenizer", chosen, seed, folder, {"text": corpus}, events, tmp_path))
        records.append(Tokenizer.load(folder).record)
    first, again, other = records
    assert first == again
    assert first["digest"] != other["digest"]
    (read,) = first["read"]
    assert (read["source"], read["bytes"], read["bytes_read"]) == ("made", size, size // 2)
    assert 0 < read["texts_read"] < read["texts"] == 60
    report = json.loads((tmp_path / "0" / "report.json").read_text())
    assert report["read"] == [read]
    notes = [event["text"] for event in read_events(tmp_path / "0" / "events.jsonl") if event["kind"] == "note"]
    assert any("50.0% of the training text" in note for note in notes)


def test_too_small_a_vocabulary_names_the_least_size() -> None:
    with pytest.raises(ValidationError) as caught:
        stage.Settings(vocab_size=100)
    assert "288" in problems(caught.value, stage.Settings)[0][1]


LEXICON = {"entries": [{"word": "lazy", "category": "any"}, {"word": "morn", "category": "temporal"}]}


def test_a_lexicon_file_as_words_and_as_tags(corpus: StageFolder, tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(LEXICON))
    for mode, other in (("words", None), ("tags", "words")):
        folder = tmp_path / mode
        run(folder, corpus, vocab_size=420, lexicon=str(path), special_mode=mode)
        tokenizer = Tokenizer.load(folder)
        assert [entry["word"] for entry in tokenizer.special_map["entries"]] == ["lazy", "morn"]
        assert len(tokenizer.encode(" lazy")) == 1
        numbers = json.loads((folder / "report.json").read_text())
        assert (numbers.get("other_mode") or {}).get("mode") == other
        tokens = TokenSplit.open(folder / "tokens", "test")
        texts = [text for _, text in read_texts(corpus.path, "test")]
        assert [tokenizer.decode(tokens.document(number).tolist()) for number in range(len(texts))] == texts
    assert stage.sources(stage.Settings(lexicon=str(path)), tmp_path) == [path]
    assert stage.sources(stage.Settings(lexicon="london"), tmp_path) == []


def test_strict_size_fails_when_the_corpus_cannot_fill_the_vocabulary(corpus: StageFolder, tmp_path: Path) -> None:
    with pytest.raises(CaslonError, match="of the 30,000 entries") as caught:
        run(tmp_path / "t", corpus, strict_size=True)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"lexicon": "london", "vocab_size": 1_000}, "1275 or more"),
        ({"algorithm": "wordpiece", "vocab_size": 500}, "544 or more"),
        ({"digits": "groups3", "vocab_size": 1_000}, "1388 or more"),
        ({"lexicon": "paris"}, "unknown lexicon"),
        ({"pattern": "llama3", "digits": "single"}, "from the left"),
        ({"special_tokens": ("<|a|>", "<|a|>")}, "repeated"),
        ({"special_tokens": (" ",)}, "blank"),
    ],
)
def test_settings_that_cannot_be_had(settings: dict[str, object], what: str) -> None:
    with pytest.raises(ValidationError) as caught:
        stage.Settings(**settings)
    assert what in problems(caught.value, stage.Settings)[0][1]


def test_workers_change_no_key_and_the_plan_names_its_sources(corpus: StageFolder) -> None:
    assert stage.Settings(workers=3).output_settings() == stage.Settings().output_settings()
    rows = stage.plan(PlanContext("tokenizer", stage.Settings(vocab_size=400), 1, {"text": corpus}, {}, Path()))
    assert {row.name: row.value for row in rows}["vocab_size"] == 400
    assert all(row.origin for row in rows)
    assert len(stage.plan(PlanContext("tokenizer", stage.Settings(), 1, {}, {}, Path()))) == 2
