"""Objectives by name: each trains what it needs through the one loop, resumes exactly, and refuses what it cannot use."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_stages import context

from caslon.errors import UserError
from caslon.folders import content_files, sha256_of_file
from caslon.observe.events import Event, EventLog, Metrics, metric_values
from caslon.recipe import load_recipe
from caslon.stages import pretrain
from caslon.tokenizer.encode import write_token_files
from caslon.tokenizer.train import TrainingSettings, train_tokenizer
from caslon.train import objective_kinds
from caslon.train.batches import Batch
from caslon.train.objective_kinds import Material, NoOptions, ObjectiveKind, objective_kind, register
from caslon.train.objectives import NextToken

TRAINING: dict[str, Any] = {
    "hidden_size": 32, "num_attention_heads": 2, "depth": 1, "context": 64, "batch": 4, "micro_batch": 2, "steps": 8,
    "learning_rate": 0.01, "eval_every": 4, "eval_batches": 2, "save_every": 3, "threads": 1, "device": "cpu", "dropout": 0.1,
    "precision": "fp32",
}  # fmt: skip
KINDS = [("lm", "llama"), ("mlm", "bert"), ("seq2seq", "t5")]


def texts(count: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    words = ["the", "model", "reads", "a", "row", "of", "tokens", "and", "predicts", "what", "comes", "next"]
    return [(f"{seed}-{n}", " ".join(rng.choices(words, k=rng.choice([5, 20, 60])))) for n in range(count)]


@pytest.fixture(scope="module")
def marked_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token files of a tokenizer with sentinels."""
    folder = tmp_path_factory.mktemp("marked")
    splits = {"train": texts(60, 1), "validation": texts(20, 2), "test": []}
    settings = TrainingSettings(vocab_size=340, sentinels=20)
    tokenizer = train_tokenizer([text for _, text in splits["train"]], settings=settings)
    tokenizer.save(folder)
    write_token_files(folder / "tokens", tokenizer, splits.__getitem__, dataset_id="words")
    return folder


def run(folder: Path, tokens: Path, listener: Callable[[Event], None] | None = None, **changes: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    with EventLog(folder / "events.jsonl", (listener,) if listener else ()) as events:
        return pretrain.run(context(folder, pretrain.Settings(**{**TRAINING, **changes}), {"tokens": tokens}, events))


def stop_at(step: int) -> Callable[[Event], None]:
    def listen(event: Event) -> None:
        if isinstance(event, Metrics) and event.step == step and "train/loss" in event.values:
            raise KeyboardInterrupt

    return listen


@pytest.mark.promise(
    "pretraining", "a run of any objective that is interrupted ends in the same bytes as one that was not"
)
@pytest.mark.parametrize(("objective", "family"), KINDS)
def test_every_objective_trains_and_resumes_to_the_same_bytes(
    objective: str, family: str, marked_folder: Path, tmp_path: Path
) -> None:
    chosen = {"objective": objective, "family": family, "sample_tokens": 4 if objective == "lm" else 0}
    totals = run(tmp_path / "whole", marked_folder, **chosen)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", marked_folder, stop_at(5), **chosen)
    assert run(tmp_path / "cut", marked_folder, **chosen) == totals
    checkpoints = [tmp_path / name / "checkpoints" / "step-000008" for name in ("whole", "cut")]
    assert len({sha256_of_file(folder / "model.safetensors") for folder in checkpoints}) == 1
    assert content_files(tmp_path / "whole" / "model") == content_files(tmp_path / "cut" / "model")
    series = metric_values(tmp_path / "whole" / "events.jsonl")
    losses = [value for _, value in series["train/loss"]]
    assert losses[-1] < losses[0]
    assert {"eval/val_loss", "eval/val_ppl", "eval/val_accuracy"} <= set(series)
    assert (
        ("eval/val_bpb" in series) == ("val_bpb" in totals) == (objective == "lm")
    )  # bits per byte only where they mean it
    assert totals["parameters"] > 10_000


@pytest.mark.parametrize(("objective", "family"), KINDS[1:])
def test_a_model_of_another_family_is_planned_and_its_folder_loads(
    objective: str, family: str, marked_folder: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    run(tmp_path, marked_folder, objective=objective, family=family, steps=2, eval_every=2)
    auto = "AutoModelForMaskedLM" if family == "bert" else "AutoModelForSeq2SeqLM"
    model = getattr(transformers, auto).from_pretrained(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.vocab_size == len(tokenizer) == 340
    if family == "t5":
        ids = tokenizer("the model <|extra_0|> tokens", return_tensors="pt").input_ids
        assert model.generate(ids, max_new_tokens=5).size(1) <= 6


def test_whole_words_and_next_sentences_train(marked_folder: Path, tmp_path: Path) -> None:
    options = {"whole_words": True, "next_sentence": True}
    run(tmp_path, marked_folder, objective="mlm", family="bert", objective_options=options)
    series = metric_values(tmp_path / "events.jsonl")
    assert 0 < series["eval/val_next_sentence_loss"][-1][1] < 2
    assert 0 <= series["eval/val_next_sentence_accuracy"][-1][1] <= 1


@pytest.mark.promise("pretraining", "mlm on a causal model and lm on an encoder are refused with the right objective")
@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ('objective = "mlm"', "'mlm' guesses hidden tokens from both sides, and 'qwen3' is a decoder"),
        (
            'family = "bert"',
            "'lm' predicts each token from those before it, and 'bert' is an encoder; use 'mlm' with it",
        ),
        ('family = "t5"\nobjective = "mlm"', "'t5' is an encoder-decoder; use 'seq2seq' with it"),
        ('objective = "ml"', "there is no objective 'ml'; did you mean"),
        ('objective = "sft"', "learns from conversations"),
        ('objective = "mlm"\nfamily = "bert"\nobjective_options = {shares = 0.1}', "did you mean 'share'"),
        ('objective = "seq2seq"\nfamily = "t5"\ndoc_mask = true', "has no document masks"),
        ('objective = "mlm"\nfamily = "bert"\nrope_theta = 5.0', "rope_theta has no effect on family 'bert'"),
        ('preset = "bert-mini"', "use 'mlm' with it"),
        ('preset = "bert-mini"\nobjective = "mlm"\nparallel = "fsdp"', "fsdp divides decoders, not 'bert'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_work(keys: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f'name = "x"\n[tokenizer]\ntext = "a.txt"\nalgorithm = "bytes"\n[pretrain]\n{keys}\n')
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert what in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_tokenizer_without_the_marks_an_objective_needs_is_refused(tokens_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs 4 sentinels, the tokenizer has 0"):
        run(tmp_path, tokens_folder, objective="seq2seq", family="t5")


@dataclass(frozen=True)
class EverySecond:
    """An objective somebody adds: only every second token is to be predicted."""

    plain: NextToken = NextToken(name="every_second")  # noqa: RUF009 (frozen)
    name: str = "every_second"

    def collate(self, batch: Batch, rows: range) -> Batch:
        every_second = torch.arange(batch.scored.size(1)) % 2 == 0
        return replace(batch, scored=batch.scored & every_second)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


@pytest.mark.promise("pretraining", "a new objective is one class and one registered name: the loop is not touched")
def test_an_objective_can_be_added_by_name(
    tokens_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objective_kinds, "_KINDS", dict(objective_kinds._KINDS))

    def make(options: NoOptions, material: Material) -> EverySecond:
        return EverySecond()

    register(ObjectiveKind("every_second", "decoder", "predicts every second token", NoOptions, make))
    totals = run(tmp_path, tokens_folder, objective="every_second", family="llama", sample_tokens=0)
    series = metric_values(tmp_path / "events.jsonl")
    assert series["eval/val_tokens"][-1][1] <= 2 * 4 * 32
    assert totals["steps"] == 8
    assert objective_kind("every_second").name in objective_kinds.known_objectives()
