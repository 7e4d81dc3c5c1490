import json

import pytest
import torch

from caslon.engine.engine import Engine
from caslon.engine.request import SamplingParams
from caslon.errors import UserError
from caslon.model.config import FAMILIES, DecoderConfig
from caslon.model.folder import ModelFolder, save_model_folder
from caslon.model.release import padded, release

IDS = torch.arange(5, 45)[None]


@pytest.fixture
def trained(tmp_path, make_decoder, tokenizer):
    save_model_folder(tmp_path / "trained", make_decoder("llama"), tokenizer, sidecar={"step": 7, "objective": "lm"})
    return tmp_path / "trained"


@pytest.mark.promise("pretraining", "training keeps float32, a release is bf16 unless float32 is asked for")
@pytest.mark.parametrize(("save_dtype", "size"), [("bf16", 2), ("fp32", 4)])
def test_the_number_format_is_chosen_at_release(save_dtype, size, trained, tmp_path):
    release(trained, tmp_path / "out", save_dtype=save_dtype)
    opened = ModelFolder.open(tmp_path / "out")
    parameters = sum(p.numel() for p in opened.load().parameters())
    stored = (tmp_path / "out/model.safetensors").stat().st_size
    assert size * parameters < stored < size * parameters + 4000  # and the names
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written["dtype"] == written["torch_dtype"] == {2: "bfloat16", 4: "float32"}[size]
    assert opened.sidecar()["parent"] == ModelFolder.open(trained).digest()
    assert opened.sidecar()["step"] == 7
    assert ModelFolder.open(trained).config.dtype == "float32"


@pytest.mark.promise("pretraining", "a padded vocabulary changes no logit, and its padding is never sampled")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_padding_adds_rows_and_changes_no_logit(family, tied, make_decoder, tokenizer):
    decoder = make_decoder(family, tie_word_embeddings=tied)
    wider = padded(decoder, 320, like=tokenizer.pad_id)
    with torch.no_grad():
        before, after = decoder.logits(decoder(IDS)), wider.logits(wider(IDS))
    assert after.shape[-1] == wider.config.vocab_size == 320
    assert torch.allclose(after[..., :300], before, atol=1e-6)
    assert torch.equal(after[..., 300:], after[..., tokenizer.pad_id, None].expand(-1, -1, 20))


def test_padding_is_never_sampled(trained, tmp_path, tokenizer):
    out = tmp_path / "out"
    release(trained, out, save_dtype="fp32", pad_vocab_to=1024)
    assert json.loads((out / "generation_config.json").read_text())["suppress_tokens"] == list(range(300, 1024))
    hot = SamplingParams(max_tokens=60, temperature=2.0, seed=1, ignore_eos=True)
    with Engine.load(out) as engine:
        assert max(engine.generate([[5, 6, 7]], hot)[0].ids) < tokenizer.vocab_size
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    torch.manual_seed(1)
    found = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=60, do_sample=True, temperature=50.0, top_k=0)
    assert int(found.max()) < tokenizer.vocab_size


def test_a_released_model_can_be_cut_into_shards(trained, tmp_path):
    release(trained, tmp_path / "out", save_dtype="fp32", shard_bytes=20_000)
    files = sorted(file.name for file in (tmp_path / "out").glob("model*"))
    assert files[-1] == "model.safetensors.index.json" and len(files) > 3
    before, after = ModelFolder.open(trained).load(), ModelFolder.open(tmp_path / "out").load()
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert (model(IDS).logits - before.logits(before(IDS))).abs().max() <= 1e-5


def test_what_cannot_be_released_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="less than the model's 300"):
        release(trained, tmp_path / "out", pad_vocab_to=299)
    with pytest.raises(UserError, match="the one to read"):
        release(trained, trained)


def test_a_padded_model_stays_padded_when_it_is_trained_and_saved(tmp_path, make_decoder, tokenizer):
    decoder = make_decoder("qwen3", vocab_size=320, extra={"pad_vocab_to": 320})
    save_model_folder(tmp_path, decoder, tokenizer, sidecar={})
    config = ModelFolder.open(tmp_path).config
    assert config.vocab_size == 320 and DecoderConfig.from_json(config.to_json()) == config
