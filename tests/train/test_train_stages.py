"""The two stages from end to end, on a tokenizer of 320 entries and a model of width 32."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from caslon.errors import UserError
from caslon.folders import Manifest, StageFolder, content_digest, content_files
from caslon.model.folder import ModelFolder
from caslon.observe.events import EventLog, read_events
from caslon.stages import finetune, pretrain
from caslon.stages.stage import PlanContext, StageContext

SHAPE: dict[str, Any] = {"depth": 2, "hidden_size": 32, "context": 64, "threads": 1, "sample_tokens": 4}
TRAINING: dict[str, Any] = {**SHAPE, "steps": 6, "batch": 4, "learning_rate": 0.01, "eval_every": 3, "eval_batches": 2}


def stage_folder(path: Path) -> StageFolder:
    files = content_files(path)
    digest = content_digest(files)
    return StageFolder(path, Manifest("", 1, "", digest, 0, {}, {}, {}, files, {}, {}, "", "", 0.0))


def context(
    folder: Path, settings: Any, inputs: dict[str, Path], events: EventLog, name: str = "pretrain"
) -> StageContext:
    folder.mkdir(parents=True, exist_ok=True)
    return StageContext(
        name, settings, 1, folder, {kind: stage_folder(path) for kind, path in inputs.items()}, events, folder
    )


def pretrained(folder: Path, tokens_folder: Path, **changes: Any) -> dict[str, Any]:
    with EventLog(None) as events:
        chosen = pretrain.Settings(**{**TRAINING, **changes})
        return pretrain.run(context(folder, chosen, {"tokens": tokens_folder}, events))


@pytest.fixture(scope="module")
def model_stage(tmp_path_factory: pytest.TempPathFactory, tokens_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("pretrain")
    pretrained(folder, tokens_folder)
    return folder


def test_pretraining_leaves_a_whole_model_folder(model_stage: Path) -> None:
    folder = ModelFolder.open(model_stage / "model")
    assert folder.config.family == "qwen3"
    assert folder.sidecar()["objective"] == "lm"
    assert {"run", "parent", "data", "tokens_seen", "step", "objective", "caslon_version"} <= set(folder.sidecar())
    assert folder.sidecar()["step"] in (3, 6)
    assert folder.sidecar()["tokens_seen"] == folder.sidecar()["step"] * 4 * 64
    names = {file.name for file in (model_stage / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "caslon.json"} <= names
    assert not names & {"optim.safetensors", "trainer.json", "MANIFEST.json"}


def test_pretraining_twice_gives_the_same_content_and_totals(
    model_stage: Path, tokens_folder: Path, tmp_path: Path
) -> None:
    totals = pretrained(tmp_path, tokens_folder)
    assert content_digest(content_files(tmp_path)) == content_digest(content_files(model_stage))
    assert totals["steps"] == 6
    assert 0 < totals["val_bpb"] < 8


def test_a_checkpoint_says_nothing_of_where_or_when(model_stage: Path) -> None:
    text = (model_stage / "checkpoints" / "last" / "trainer.json").read_text()
    assert str(model_stage) not in text
    state = json.loads(text)
    assert state["step"] == 6
    assert state["cursor"]["epoch"] >= 0
    assert state["cursor"]["shuffle_seed"] == 1
    assert "recipe" in state


def test_the_plan_gives_an_origin_for_every_value(tokens_folder: Path) -> None:
    chosen = pretrain.Settings(depth=2, threads=1)
    rows = {
        row.name: row
        for row in pretrain.plan(
            PlanContext("pretrain", chosen, 1, {"tokens": stage_folder(tokens_folder)}, {}, Path())
        )
    }
    assert rows["hidden_size"].value == 128
    assert rows["hidden_size"].origin == "derived from depth"
    assert rows["depth"].origin == "setting"
    assert rows["tokens"].value == rows["steps"].value * rows["batch"].value * rows["context"].value
    assert all(row.origin for row in rows.values())
    assert {"parameters", "training", "training time", "memory", "checkpoint", "epochs", "precision"} <= set(rows)


def test_what_is_set_by_hand_wins(tokens_folder: Path) -> None:
    chosen = pretrain.Settings(depth=2, batch=3, steps=7, learning_rate=0.5)
    plan, origins = pretrain.train_plan(chosen, 320, seed=0)
    assert (plan.batch, plan.steps, plan.schedule.peak) == (3, 7, 0.5)
    assert origins["batch"] == origins["steps"] == origins["learning_rate"] == "setting"
    assert origins["context"] == "derived from depth"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 4, "micro_batch": 3}, "does not divide batch = 4"),
        ({"steps": 5, "warmup_steps": 5}, "leaves no step"),
        ({"family": "mamba"}, "gpt2"),
        ({"stepz": 5}, "stepz"),
    ],
)
def test_wrong_settings_are_found_before_any_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain.Settings(**changes)


def test_more_batch_than_data_says_what_is_there(tokens_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the data set has \d+ rows of 64 tokens, one batch needs 9999"):
        pretrained(tmp_path, tokens_folder, batch=9999)


def test_tokens_of_another_tokenizer_are_refused(tokens_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tokens_folder, tmp_path / "tokenizer")
    meta = tmp_path / "tokenizer" / "tokens" / "meta.json"
    data = json.loads(meta.read_text())
    meta.write_text(json.dumps({**data, "tokenizer_digest": "0" * 64}))
    with pytest.raises(UserError, match="tokenizer 0000000000000000, this one is"):
        pretrained(tmp_path / "run", tmp_path / "tokenizer")


def conversations(path: Path, count: int) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"what comes {n}"}, {"role": "assistant", "content": f"row {n % 3}"}]}
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_fine_tuning_measures_answers_to_unseen_questions(model_stage: Path, tmp_path: Path) -> None:
    rows = conversations(tmp_path / "rows.jsonl", 120)
    chosen = finetune.Settings(
        conversations=(str(rows),), steps=40, batch=8, learning_rate=0.01, threads=1, answer_tokens=12, sample_tokens=4
    )
    with EventLog(tmp_path / "events.jsonl") as events:
        totals = finetune.run(
            context(tmp_path / "sft", chosen, {"model": model_stage, "text": tmp_path}, events, "finetune.sft")
        )
    assert totals["answers_ended_share"] == totals["answers_ended_by_themselves"] / totals["questions"]
    assert totals["answers_ended_share"] > 0.5
    answers = json.loads((tmp_path / "sft" / "answers.json").read_text())["answers"]
    assert 0 < len(answers) <= 20
    assert set(answers[0]) == {"question", "expected", "answer", "ended", "f1", "before"}
    tuned = ModelFolder.open(tmp_path / "sft" / "model")
    assert tuned.sidecar()["parent"] == ModelFolder.open(model_stage / "model").digest()
    assert tuned.sidecar()["objective"] == "sft"
    assert any(record["kind"] == "sample" for record in read_events(tmp_path / "events.jsonl"))


def test_a_context_beyond_the_models_positions_is_refused(model_stage: Path, tmp_path: Path) -> None:
    chosen = finetune.Settings(conversations=(str(conversations(tmp_path / "rows.jsonl", 60)),), context=128)
    with EventLog(None) as events, pytest.raises(UserError, match="context = 128, but the model has 64 positions"):
        finetune.run(context(tmp_path / "sft", chosen, {"model": model_stage, "text": tmp_path}, events))


def test_word_overlap() -> None:
    assert finetune.word_f1("a b c", "a b c") == 1.0
    assert finetune.word_f1("a b", "b c") == 0.5
    assert finetune.word_f1("", "b") == 0.0
