import json
import os

import pytest
import torch

from caslon.errors import StorageError, UserError
from caslon.model.config import FAMILIES
from caslon.model.decoder import Decoder
from caslon.model.weights import INDEX_FILE, disk_tensors, load_disk_tensors, read_weights, write_weights


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_weights_come_back_bit_for_bit(family, tied, bias, make_decoder, tmp_path):
    decoder = make_decoder(family, tie_word_embeddings=tied, bias=bias and family != "mixtral")
    write_weights(tmp_path, disk_tensors(decoder))
    again = Decoder(decoder.config)
    load_disk_tensors(again, read_weights(tmp_path))
    expected = dict(decoder.named_parameters())
    assert {name for name, _ in again.named_parameters()} == set(expected)
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, expected[name]), name


def test_the_file_mode_follows_the_umask(make_decoder, tmp_path):
    before = os.umask(0o022)
    try:
        write_weights(tmp_path, disk_tensors(make_decoder("llama")))
    finally:
        os.umask(before)
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644


def test_large_weights_are_cut_into_shards(make_decoder, tmp_path):
    tensors = disk_tensors(make_decoder("qwen3"))
    write_weights(tmp_path, tensors, shard_bytes=20_000)
    index = json.loads((tmp_path / INDEX_FILE).read_text())
    names = sorted(set(index["weight_map"].values()))
    assert len(names) > 1 and names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert set(read_weights(tmp_path)) == set(tensors)
    (tmp_path / names[1]).unlink()
    with pytest.raises(StorageError, match="missing"):
        read_weights(tmp_path)
    write_weights(tmp_path, tensors)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_equal_weights_write_equal_bytes(make_decoder, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_weights(tmp_path / name, disk_tensors(make_decoder("gpt2")))
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_a_damaged_file_is_named(make_decoder, tmp_path):
    write_weights(tmp_path, disk_tensors(make_decoder("llama")))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StorageError, match="cannot read") as error:
        read_weights(tmp_path)
    assert str(file) in str(error.value)


def test_missing_unknown_and_misshapen_weights_are_named(make_decoder):
    decoder = make_decoder("llama")
    tensors = disk_tensors(decoder)
    fewer = {name: tensor for name, tensor in tensors.items() if name != "model.norm.weight"}
    with pytest.raises(UserError, match=r"model\.norm\.weight"):
        load_disk_tensors(Decoder(decoder.config), fewer)
    with pytest.raises(UserError, match=r"_orig_mod\.x"):
        load_disk_tensors(Decoder(decoder.config), tensors | {"_orig_mod.x": torch.zeros(1)})
    with pytest.raises(UserError, match=r"\[31\]"):
        load_disk_tensors(Decoder(decoder.config), tensors | {"model.norm.weight": torch.zeros(31)})


def test_a_bias_that_is_not_zero_is_refused_where_the_config_says_there_is_none(make_decoder):
    decoder = make_decoder("gpt2", bias=False)
    tensors = disk_tensors(decoder)
    tensors["transformer.h.0.attn.c_attn.bias"] += 1
    with pytest.raises(UserError, match="not zero"):
        load_disk_tensors(Decoder(decoder.config), tensors)


def test_the_oldest_gpt2_names_load(make_decoder):
    decoder = make_decoder("gpt2")
    old = {name.removeprefix("transformer."): tensor for name, tensor in disk_tensors(decoder).items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 96, 96).tril()
    again = Decoder(decoder.config)
    load_disk_tensors(again, old)
    assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), again.parameters(), strict=True))
