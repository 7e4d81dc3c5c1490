"""Folders as compressed-tensors writes them, made by hand."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from caslon.compress.linear import Int4Linear, Int8Linear, QuantisedLinear, quantise_layers
from caslon.engine.engine import Engine
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import ModelFolder, save_model_folder
from caslon.tokenizer.alphabet import byte_tokenizer

TOKENIZER = byte_tokenizer([])


def quantised_folder(path: Path, family: str, kind: str) -> Decoder:
    """Write a quantised folder and return the decoder with the same layers, quantised here."""
    decoder = Decoder(
        DecoderConfig(
            family=family, vocab_size=TOKENIZER.vocab_size, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=128, max_position_embeddings=64,
        )
    )  # fmt: skip
    decoder.initialise(3)
    save_model_folder(path, decoder, TOKENIZER, sidecar={})
    tensors = load_file(path / "model.safetensors")
    quantise_layers(decoder, kind)
    for name, layer in decoder.named_modules():
        if not isinstance(layer, QuantisedLinear):
            continue
        stored = name
        if family == "mixtral" and ".mlp." in name:
            for ours, theirs in (
                (".mlp.", ".block_sparse_moe."),
                ("gate_proj", "w1"),
                ("down_proj", "w2"),
                ("up_proj", "w3"),
            ):
                stored = stored.replace(ours, theirs)
        del tensors[f"{stored}.weight"]
        if isinstance(layer, Int4Linear):
            nibbles = torch.stack((layer.weight & 15, layer.weight >> 4), -1).flatten(1).to(torch.int64)
            packed = sum(nibbles[:, place::8] << 4 * place for place in range(8))
            tensors[f"{stored}.weight_packed"] = torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32)
            tensors[f"{stored}.weight_shape"] = torch.tensor([layer.out_features, layer.in_features])
            tensors[f"{stored}.weight_scale"] = layer.scale.bfloat16()
        else:
            tensors[f"{stored}.weight"] = layer.weight.clone()
            tensors[f"{stored}.weight_scale"] = layer.scale[:, None].bfloat16()
    save_file(tensors, path / "model.safetensors")
    told = {"num_bits": 8 if kind == "int8" else 4, "type": "int", "symmetric": True}
    quantization = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if kind == "int8" else "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": told, "input_activations": None}},
    }
    change_config(path, quantization)
    return decoder.eval()


def change_config(path: Path, quantization: dict[str, object]) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "mixtral"])
@pytest.mark.promise(
    "engine", "A folder quantised as compressed-tensors writes it is read without unpacking, to the same numbers"
)
def test_a_quantised_folder_is_read_as_it_is(family: str, kind: str, tmp_path: Path) -> None:
    expected = quantised_folder(tmp_path, family, kind)
    with Engine.load(tmp_path, EngineSettings(kernels="torch")) as engine:
        layers = dict(engine.decoder.named_modules())
        for name, layer in expected.named_modules():
            if isinstance(layer, QuantisedLinear):
                assert type(layers[name]) is type(layer) is (Int8Linear if kind == "int8" else Int4Linear)
                assert torch.equal(layers[name].weight, layer.weight)
                assert torch.equal(layers[name].scale, layer.scale)
        ids = torch.tensor([[1, 2, 3, 4]])
        torch.testing.assert_close(engine.decoder(ids), expected(ids))
        assert engine.generate([[1, 2, 3]])[0].ids


def test_what_is_stored_otherwise_is_refused(tmp_path: Path) -> None:
    quantised_folder(tmp_path, "llama", "int8")
    right = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    with pytest.raises(UserError, match="quantised already"):
        Engine.load(tmp_path, EngineSettings(weights="int4"))
    with pytest.raises(UserError, match="can answer, nothing else"):
        ModelFolder.open(tmp_path).load()
    for change, what in (
        ({"quant_method": "gptq"}, "quant_method is 'gptq'"),
        ({"format": "marlin-24"}, "format is 'marlin-24'"),
        ({"config_groups": {}}, "0 groups of layers"),
        ({"config_groups": {"a": {"weights": {"num_bits": 8}, "input_activations": {"num_bits": 8}}}}, "activations"),
        ({"config_groups": {"a": {"weights": {"num_bits": 8, "symmetric": False}}}}, "zero points"),
        ({"config_groups": {"a": {"weights": {"num_bits": 3}}}}, "3 bits"),
    ):
        change_config(tmp_path, {**right, **change})
        with pytest.raises(UserError, match=what):
            Engine.load(tmp_path)
