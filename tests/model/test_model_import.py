"""A checkpoint as nanoGPT writes it, from a model written here as nanoGPT's is."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from typer.testing import CliRunner, Result

from caslon.cli import app
from caslon.errors import UserError
from caslon.model.folder import ModelFolder
from caslon.model.import_nanogpt import import_checkpoint

SHAPE = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 48, "vocab_size": 300}
IDS = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(2))


class Source(nn.Module):
    """nanoGPT's model: linear layers that lie output-first, one switch for all biases, exact GELU, a tied head."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        width, self.heads = SHAPE["n_embd"], SHAPE["n_head"]
        blocks = []
        for _ in range(SHAPE["n_layer"]):
            attention = nn.ModuleDict(
                {"c_attn": nn.Linear(width, 3 * width, bias=bias), "c_proj": nn.Linear(width, width, bias=bias)}
            )
            attention.register_buffer("bias", torch.ones(1, 1, 48, 48).tril())
            mlp = nn.ModuleDict(
                {"c_fc": nn.Linear(width, 4 * width, bias=bias), "c_proj": nn.Linear(4 * width, width, bias=bias)}
            )
            norms = {name: nn.LayerNorm(width, bias=bias) for name in ("ln_1", "ln_2")}
            blocks.append(nn.ModuleDict({**norms, "attn": attention, "mlp": mlp}))
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(SHAPE["vocab_size"], width),
                "wpe": nn.Embedding(SHAPE["block_size"], width),
                "h": nn.ModuleList(blocks),
                "ln_f": nn.LayerNorm(width, bias=bias),
            }
        )
        self.lm_head = nn.Linear(width, SHAPE["vocab_size"], bias=False)
        self.lm_head.weight = self.transformer["wte"].weight

    def forward(self, ids: torch.Tensor, activation=F.gelu) -> torch.Tensor:
        parts = self.transformer
        x = parts["wte"](ids) + parts["wpe"](torch.arange(ids.shape[1]))
        for block in parts["h"]:
            rows = block["attn"]["c_attn"](block["ln_1"](x))
            q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in rows.chunk(3, dim=-1))
            shares = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            shares = shares.masked_fill(block["attn"].bias[..., : ids.shape[1], : ids.shape[1]] == 0, -torch.inf)
            x = x + block["attn"]["c_proj"]((shares.softmax(-1) @ v).transpose(1, 2).flatten(2))
            x = x + block["mlp"]["c_proj"](activation(block["mlp"]["c_fc"](block["ln_2"](x))))
        return self.lm_head(parts["ln_f"](x))


def checkpoint_of(model: nn.Module, prefix: str = "", **changes: object) -> dict:
    optimizer = torch.optim.AdamW(model.parameters())
    model(IDS).sum().backward()
    optimizer.step()
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    arguments = {**SHAPE, "bias": False, "dropout": 0.1, **changes}
    return {"model": state, "optimizer": optimizer.state_dict(), "model_args": arguments, "iter_num": 60_000}


@pytest.mark.promise(
    "pretraining", "a nanoGPT checkpoint becomes a folder with its logits, smaller than the checkpoint"
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module._orig_mod.", "module."])
def test_an_imported_checkpoint_has_the_logits_of_its_source(bias, prefix, tmp_path, tokenizer):
    torch.manual_seed(1)
    model = Source(bias)
    torch.save(checkpoint_of(model, prefix), tmp_path / "ckpt.pt")
    config = import_checkpoint(tmp_path / "ckpt.pt", tmp_path / "out", tokenizer=tokenizer)
    assert (config.hidden_act, config.bias, config.tie_word_embeddings, config.dropout) == ("gelu", bias, True, 0.1)
    folder = ModelFolder.open(tmp_path / "out")
    decoder = folder.load()
    with torch.no_grad():
        expected = model(IDS)
        assert (decoder.logits(decoder(IDS)) - expected).abs().max() <= 1e-4
    assert folder.sidecar()["step"] == 60_000
    assert (tmp_path / "out/model.safetensors").stat().st_size < (tmp_path / "ckpt.pt").stat().st_size / 2
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        assert (theirs(IDS).logits - expected).abs().max() <= 1e-4


def test_the_activation_is_kept(tmp_path):
    torch.save(checkpoint_of(Source(False), activation="relu"), tmp_path / "ckpt.pt")
    assert import_checkpoint(tmp_path / "ckpt.pt", tmp_path / "out").hidden_act == "relu"
    assert json.loads((tmp_path / "out/config.json").read_text())["activation_function"] == "relu"


@pytest.mark.promise("pretraining", "a checkpoint that lacks a part of its shape is refused with the key's name")
@pytest.mark.parametrize("key", SHAPE)
def test_a_missing_part_of_the_shape_is_named_and_may_be_given(key, tmp_path):
    content = checkpoint_of(Source(True))
    del content["model_args"][key]
    torch.save(content, tmp_path / "ckpt.pt")
    with pytest.raises(UserError, match=key) as error:
        import_checkpoint(tmp_path / "ckpt.pt", tmp_path / "out")
    assert f"--shape {key}=" in str(error.value)
    assert not (tmp_path / "out").exists()
    import_checkpoint(tmp_path / "ckpt.pt", tmp_path / "out", shape={key: SHAPE[key]})


def test_a_wrong_shape_is_refused(tmp_path):
    torch.save(checkpoint_of(Source(True), n_layer=3), tmp_path / "ckpt.pt")
    with pytest.raises(UserError, match="missing"):
        import_checkpoint(tmp_path / "ckpt.pt", tmp_path / "out")


class Harm:
    def __reduce__(self):
        return print, ("harm",)


@pytest.mark.promise("pretraining", "a checkpoint is opened in weights-only mode: nothing in it is run")
def test_a_checkpoint_that_runs_something_is_refused(tmp_path, capsys):
    torch.save({**checkpoint_of(Source(True)), "config": Harm()}, tmp_path / "ckpt.pt")
    with pytest.raises(UserError, match="without running"):
        import_checkpoint(tmp_path / "ckpt.pt", tmp_path / "out")
    assert "harm" not in capsys.readouterr().out
    (tmp_path / "noise.pt").write_bytes(b"no checkpoint at all")
    with pytest.raises(UserError, match="cannot be read"):
        import_checkpoint(tmp_path / "noise.pt", tmp_path / "out")
    with pytest.raises(UserError, match="no checkpoint here"):
        import_checkpoint(tmp_path / "nowhere.pt", tmp_path / "out")


def test_a_vocabulary_padded_for_speed_takes_a_smaller_tokenizer(tmp_path, tokenizer):
    content = checkpoint_of(Source(True))
    content["model_args"]["vocab_size"] = 320
    for name in ("transformer.wte.weight", "lm_head.weight"):
        content["model"][name] = F.pad(content["model"][name], (0, 0, 0, 20))
    torch.save(content, tmp_path / "ckpt.pt")
    import_checkpoint(tmp_path / "ckpt.pt", tmp_path / "out", tokenizer=tokenizer)
    assert ModelFolder.open(tmp_path / "out").config.vocab_size == 320


def test_the_commands(tmp_path, tokenizer):
    torch.save(checkpoint_of(Source(True)), tmp_path / "ckpt.pt")
    tokenizer.save(tmp_path / "tokenizer")

    def caslon(*arguments: object) -> Result:
        return CliRunner().invoke(app, list(map(str, arguments)))

    done = caslon("import", tmp_path / "ckpt.pt", tmp_path / "out", "--tokenizer", tmp_path / "tokenizer")
    assert done.exit_code == 0 and "activation gelu" in done.stdout
    with pytest.raises(UserError, match="not empty"):
        raise caslon("import", tmp_path / "ckpt.pt", tmp_path / "out").exception
    done = caslon("export", "hf", tmp_path / "out", "--out", tmp_path / "released", "--pad-vocab-to", 320)
    assert done.exit_code == 0 and "320 entries, weights in bf16" in done.stdout
    with pytest.raises(UserError, match="heads=3"):
        raise caslon("import", tmp_path / "ckpt.pt", tmp_path / "no", "--shape", "heads=3").exception
