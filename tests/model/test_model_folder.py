import json
import os

import pytest
import torch

from caslon.errors import StorageError, UserError
from caslon.model.cache import greedy_decode
from caslon.model.config import FAMILIES
from caslon.model.folder import ModelFolder, save_model_folder


@pytest.fixture
def folder(tmp_path, make_decoder, tokenizer):
    save_model_folder(tmp_path / "model", make_decoder("qwen3"), tokenizer, sidecar={"step": 3, "objective": "lm"})
    return tmp_path / "model"


def change_json(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_folder_opens_with_the_same_model(family, tmp_path, make_decoder, tokenizer):
    decoder = make_decoder(family)
    save_model_folder(tmp_path, decoder, tokenizer, sidecar={})
    opened = ModelFolder.open(tmp_path)
    loaded = opened.load()
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), loaded.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert opened.tokenizer().digest == tokenizer.digest


def test_the_folder_is_complete(folder, tokenizer):
    names = {file.name for file in folder.iterdir()}
    assert {
        *("config.json", "generation_config.json", "model.safetensors", "caslon.json", "chat_template.jinja"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    } <= names
    opened = ModelFolder.open(folder)
    assert opened.stop_ids == (tokenizer.end_of_text_id, tokenizer.end_of_turn_id)
    assert opened.generation_config["pad_token_id"] == tokenizer.pad_id not in opened.stop_ids
    assert opened.config.eos_token_id == tokenizer.end_of_text_id
    assert opened.sidecar()["step"] == 3


@pytest.mark.promise("pretraining", "files of a model folder are readable as the umask says: 0644 under 022")
def test_modes_follow_the_umask(tmp_path, make_decoder, tokenizer):
    before = os.umask(0o022)
    try:
        save_model_folder(tmp_path, make_decoder("llama"), tokenizer, sidecar={})
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o644}


def test_equal_models_write_equal_folders_and_the_sidecar_is_not_part_of_the_digest(tmp_path, make_decoder, tokenizer):
    for name, sidecar in (("a", {"step": 1}), ("b", {"step": 2})):
        save_model_folder(tmp_path / name, make_decoder("llama"), tokenizer, sidecar=sidecar)
    for file in (tmp_path / "a").iterdir():
        if file.name != "caslon.json":
            assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
    digest = ModelFolder.open(tmp_path / "a").digest()
    assert digest == ModelFolder.open(tmp_path / "b").digest()
    save_model_folder(tmp_path / "b", make_decoder("llama", seed=2), tokenizer, sidecar={})
    assert digest != ModelFolder.open(tmp_path / "b").digest()


def test_half_precision_is_stored_and_named(tmp_path, make_decoder, tokenizer):
    decoder = make_decoder("llama")
    save_model_folder(tmp_path, decoder, tokenizer, sidecar={}, dtype=torch.bfloat16)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    loaded = ModelFolder.open(tmp_path).load()
    assert loaded.model.norm.weight.dtype == torch.float32
    assert torch.equal(loaded.model.embed_tokens.weight, decoder.model.embed_tokens.weight.bfloat16().float())


def test_a_loaded_model_can_be_trained_without_touching_the_file(folder):
    before = (folder / "model.safetensors").read_bytes()
    decoder = ModelFolder.open(folder).load()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(1.0)
    assert (folder / "model.safetensors").read_bytes() == before


def test_pickles_are_refused_by_name(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="pickle") as error:
        ModelFolder.open(folder)
    assert "pytorch_model.bin" in str(error.value) and "safe_serialization" in str(error.value)


def test_a_pickle_in_disguise_is_not_read(folder):
    torch.save({"x": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(StorageError, match="cannot read"):
        ModelFolder.open(folder).load()


def test_a_chat_model_that_cannot_stop_is_refused(folder, tokenizer):
    change_json(folder / "generation_config.json", eos_token_id=tokenizer.end_of_text_id)
    with pytest.raises(UserError, match="talk past its turn") as error:
        ModelFolder.open(folder)
    assert f"{sorted([tokenizer.end_of_text_id, tokenizer.end_of_turn_id])}" in str(error.value)


def test_ids_outside_the_vocabulary_are_refused(folder):
    change_json(folder / "config.json", eos_token_id=50256)
    with pytest.raises(UserError, match="50256"):
        ModelFolder.open(folder)


def test_another_tokenizer_is_refused(folder):
    change_json(folder / "config.json", vocab_size=301)
    with pytest.raises(UserError, match="301"):
        ModelFolder.open(folder)
    (folder / "caslon.json").unlink()  # made elsewhere: spare rows are usual
    assert ModelFolder.open(folder).config.vocab_size == 301
    change_json(folder / "config.json", vocab_size=299)
    with pytest.raises(UserError, match="299"):
        ModelFolder.open(folder)


def test_saving_with_another_tokenizer_is_refused(tmp_path, make_decoder, tokenizer):
    with pytest.raises(UserError, match="310"):
        save_model_folder(tmp_path, make_decoder("llama", vocab_size=310), tokenizer, sidecar={})
    assert not (tmp_path / "config.json").exists()
    padded = make_decoder("llama", vocab_size=310, extra={"pad_vocab_to": 310})
    save_model_folder(tmp_path, padded, tokenizer, sidecar={})
    assert ModelFolder.open(tmp_path).config.vocab_size == 310


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=missing.split(".")[0]):
        ModelFolder.open(folder)


def test_no_folder_and_broken_json(tmp_path, folder):
    with pytest.raises(UserError, match="no model folder"):
        ModelFolder.open(tmp_path / "nowhere")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        ModelFolder.open(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_decoding_equals_decoding_from_the_start(family, make_decoder):
    decoder = make_decoder(family)
    ids = [5, 9, 77, 120]
    expected = list(ids)
    with torch.no_grad():
        for _ in range(20):
            hidden = decoder(torch.tensor([expected]))
            expected.append(int(decoder.logits(hidden[0, -1]).argmax()))
    found = greedy_decode(decoder, ids, 20)
    assert found == expected[4:]
    assert greedy_decode(decoder, ids, 20, stop_ids={found[3]})[-1] == found[3]
    with pytest.raises(UserError, match="96 positions"):
        greedy_decode(decoder, ids, 94)
