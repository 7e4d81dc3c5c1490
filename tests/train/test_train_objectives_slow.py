"""The small encoder and the small encoder-decoder learn: minutes on two cores."""

import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_train_stages import context

from caslon.model.encoder_config import ENCODER_PRESETS
from caslon.observe.events import EventLog, metric_values
from caslon.stages import pretrain
from caslon.tokenizer.encode import TokenSplit, write_token_files
from caslon.tokenizer.train import TrainingSettings, train_tokenizer
from caslon.train.batches import Documents, PackedBatches
from caslon.train.objective_kinds import Material, objective_kind
from caslon.train.precision import choose_compute
from caslon.train.settings import DeviceSettings
from caslon.train.validation import fixed_batches

pytestmark = pytest.mark.slow
TRAINING: dict[str, Any] = {"context": 64, "batch": 32, "learning_rate": 3e-3, "eval_batches": 16, "sample_tokens": 0}


@pytest.fixture(scope="module")
def python_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token files of some of Python's standard library, with 2,148 entries, of which 100 are sentinels."""
    folder = tmp_path_factory.mktemp("python")
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [(file.name, file.read_text(encoding="utf-8", errors="replace")) for file in files]
    splits = {"train": texts[20:], "validation": texts[:20], "test": []}
    settings = TrainingSettings(vocab_size=2_148, sentinels=100)
    tokenizer = train_tokenizer([text for _, text in splits["train"]], settings=settings)
    tokenizer.save(folder)
    write_token_files(folder / "tokens", tokenizer, splits.__getitem__, dataset_id="python")
    return folder


def run(folder: Path, tokens: Path, **changes: Any) -> dict[str, list[tuple[int, float]]]:
    folder.mkdir(parents=True, exist_ok=True)
    with EventLog(folder / "events.jsonl") as events:
        pretrain.run(context(folder, pretrain.Settings(**{**TRAINING, **changes}), {"tokens": tokens}, events))
    return metric_values(folder / "events.jsonl")


def unigram_loss(tokens: Path, batch: int, batches: int) -> float:
    """Return the mean nats of the same masked tokens under the add-one frequencies of the training tokens."""
    from caslon.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(tokens)
    train, held_out = (TokenSplit.open(tokens / "tokens", name) for name in ("train", "validation"))
    counts = np.bincount(np.asarray(train.ids), minlength=tokenizer.vocab_size) + 1
    nats = -np.log(counts / counts.sum())
    compute = choose_compute(DeviceSettings(device="cpu"))
    kind = objective_kind("mlm")
    objective = kind.make(kind.options(), Material(tokenizer, 64, 1, compute.device))
    rows = PackedBatches(Documents(held_out.ids, held_out.document_starts, held_out.end_of_text_id), 64, 1)
    masked = [
        objective.collate(found, range(number * batch, (number + 1) * batch))
        for number, found in enumerate(fixed_batches(rows, batch, batches))
    ]
    return float(np.concatenate([nats[found.targets[found.scored].numpy()] for found in masked]).mean())


@pytest.mark.promise("pretraining", "bert-mini beats the unigram predictor at masked positions")
def test_bert_mini_beats_the_unigrams(python_tokens: Path, tmp_path: Path) -> None:
    series = run(tmp_path, python_tokens, preset="bert-mini", objective="mlm", steps=600, eval_every=100)
    reached, unigrams = series["eval/val_loss"][-1][1], unigram_loss(python_tokens, 32, 16)
    print(f"bert-mini {reached:.3f} nats, unigrams {unigrams:.3f}")  # noqa: T201
    assert reached < unigrams
    assert ENCODER_PRESETS["bert-mini"]["hidden_size"] == 256


@pytest.mark.promise("pretraining", "the training loss of t5-mini falls below 60 % of its start")
def test_t5_mini_learns(python_tokens: Path, tmp_path: Path) -> None:
    series = run(tmp_path, python_tokens, preset="t5-mini", objective="seq2seq", steps=600, eval_every=100)
    losses = [value for _, value in series["train/loss"]]
    print(f"t5-mini from {losses[0]:.3f} to {np.mean(losses[-20:]):.3f} nats")  # noqa: T201
    assert np.mean(losses[-20:]) < 0.6 * losses[0]
