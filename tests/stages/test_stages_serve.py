import json
import re
from pathlib import Path

import pytest
import torch

from caslon.errors import CaslonError
from caslon.folders import Manifest, StageFolder
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.observe.events import EventLog
from caslon.stages import serve
from caslon.stages.stage import StageContext
from caslon.tokenizer.train import train_tokenizer

TEXT = ["the quick brown fox jumps over the lazy dog " * 20]


@pytest.fixture(scope="module")
def model_stage(tmp_path_factory: pytest.TempPathFactory) -> StageFolder:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("run") / "finetune.sft"
    tokenizer = train_tokenizer(TEXT, vocab_size=300)
    config = DecoderConfig.from_depth(2, family="qwen3", vocab_size=300, context=128, hidden_size=32)
    decoder = Decoder(config)
    decoder.initialise(1)
    save_model_folder(path / "model", decoder, tokenizer, sidecar={})
    manifest = Manifest(
        stage="finetune.sft", stage_version=1, key="k", digest="d", seed=1, settings={}, inputs={}, sources={}, files={},
        totals={}, versions={}, device="cpu", started="", seconds=0.0,
    )  # fmt: skip
    return StageFolder(path, manifest)


def serve_into(folder: Path, model: StageFolder, **settings: object) -> dict[str, object]:
    folder.mkdir()
    with EventLog(folder / "events.jsonl") as events:
        context = StageContext(
            name="serve",
            settings=serve.Settings(**{"prompts": ("the quick", "fox"), "max_tokens": 12, **settings}),
            seed=1,
            folder=folder,
            inputs={"model": model},
            events=events,
            base=folder,
        )
        return serve.run(context)


def test_transcript_is_complete_and_the_same_each_time(model_stage: StageFolder, tmp_path: Path) -> None:
    totals = serve_into(tmp_path / "one", model_stage)
    serve_into(tmp_path / "two", model_stage)
    text = (tmp_path / "one" / "transcript.json").read_bytes()
    assert text == (tmp_path / "two" / "transcript.json").read_bytes()
    transcript = json.loads(text)
    assert transcript["model"] == "finetune.sft"
    assert [record["prompt"] for record in transcript["completions"]] == ["the quick", "fox"]
    assert [record["question"] for record in transcript["chats"]] == ["What can you do?"]
    assert all(record["tokens_equal_to_plain_decoder"] > 0 for record in transcript["completions"])
    assert totals["completions"] == 2
    assert totals["chats"] == 1
    assert not re.search(rb"127\.0\.0\.1|seconds", text)


def test_model_without_template_is_asked_for_completions_only(model_stage: StageFolder, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    (bare / "model").mkdir(parents=True)
    for file in (model_stage.path / "model").iterdir():
        if file.name != "chat_template.jinja":
            (bare / "model" / file.name).write_bytes(file.read_bytes())
    totals = serve_into(tmp_path / "out", StageFolder(bare, model_stage.manifest))
    assert totals["chats"] == 0


def test_a_served_answer_that_differs_fails_the_stage(
    model_stage: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from caslon.server import completions

    whole = completions._whole

    def garbled(*arguments: object) -> dict[str, object]:
        body = whole(*arguments)
        body["choices"][0]["logprobs"]["tokens"][1] = "garbled"
        return body

    monkeypatch.setattr(completions, "_whole", garbled)
    with pytest.raises(CaslonError, match=r"token 1 is 'garbled'"):
        serve_into(tmp_path / "out", model_stage)
