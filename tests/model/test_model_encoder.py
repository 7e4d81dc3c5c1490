"""Encoders and encoder-decoders: exact counts, and folders that transformers loads with the same numbers."""

import json
from pathlib import Path

import pytest
import torch

from caslon.errors import UserError
from caslon.model.encoder import Encoder
from caslon.model.encoder_config import ENCODER_PRESETS, EncoderConfig, EncoderDecoderConfig, encoder_from_depth
from caslon.model.encoder_decoder import EncoderDecoder
from caslon.model.transformers_model import TransformersModel
from caslon.tokenizer.alphabet import byte_tokenizer
from caslon.train.optimizer import groups

transformers = pytest.importorskip("transformers")

TOKENIZER = byte_tokenizer(["<|mask|>", "<|pad|>"], sentinels=4)
V = TOKENIZER.vocab_size


def preset(name: str, vocab_size: int) -> EncoderConfig | EncoderDecoderConfig:
    fields = {key: value for key, value in ENCODER_PRESETS[name].items() if key != "family"}
    return (EncoderConfig if name == "bert-mini" else EncoderDecoderConfig)(vocab_size=vocab_size, **fields)


def shape(width: int, layers: int, heads: int, inner: int, vocab_size: int) -> dict[str, int]:
    return {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner,
        "vocab_size": vocab_size, "max_position_embeddings": 512,
    }  # fmt: skip


@pytest.mark.promise(
    "pretraining", "bert-mini has 5,462,784 parameters, t5-mini 9,468,672, and the known shapes theirs"
)
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (preset("bert-mini", 8_192), 5_462_784),
        (preset("t5-mini", 8_292), 9_468_672),
        (EncoderConfig(**shape(768, 12, 12, 3072, 30_522)), 109_514_298),  # BERT-base
        (EncoderDecoderConfig(**shape(512, 6, 8, 2048, 32_128)), 60_506_624),  # T5-small
        (EncoderConfig(**shape(64, 2, 2, 96, 77), next_sentence=True), None),
    ],
)
def test_counts_are_exact(config, expected):
    with torch.device("meta"):
        model = Encoder(config) if isinstance(config, EncoderConfig) else EncoderDecoder(config)
    built = sum(parameter.numel() for parameter in model.parameters())
    counts = config.counts()
    assert counts.trained == built
    assert expected in (None, built)
    found = groups(model.named_parameters(), "muon")
    assert sum(parameter.numel() for parameter in found.matrices.values()) == counts.matrices
    assert sum(parameter.numel() for parameter in found.tables.values()) == counts.embedding + counts.positions


def model(family: str, **changes: object) -> TransformersModel:
    config = encoder_from_depth(
        family, 2, vocab_size=V, context=16, hidden_size=32, num_attention_heads=2, head_dim=16, **changes
    )
    made = Encoder(config) if family == "bert" else EncoderDecoder(config)
    made.initialise(5)
    return made.eval()


@pytest.mark.promise(
    "pretraining", "encoders and encoder-decoders are folders that transformers' Auto classes load unchanged"
)
@pytest.mark.parametrize(
    ("family", "auto", "name"),
    [
        ("bert", "AutoModelForMaskedLM", "BertForMaskedLM"),
        ("t5", "AutoModelForSeq2SeqLM", "T5ForConditionalGeneration"),
    ],
)
def test_a_folder_loads_in_transformers_with_the_same_logits(family, auto, name, tmp_path):
    ours = model(family)
    ours.save(tmp_path, TOKENIZER, sidecar={"step": 3})
    theirs, report = getattr(transformers, auto).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert type(theirs).__name__ == name
    ids = torch.randint(0, 250, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if family == "bert":
            states, weight = ours.predictor(ours(ids, torch.arange(9).expand(2, 9)).flatten(0, 1))
            logits, expected = (states @ weight.T).view(2, 9, V), theirs(input_ids=ids).logits
        else:
            logits = ours(ids, ids[:, :4]) @ ours.head_weight.T
            expected = theirs(input_ids=ids, decoder_input_ids=ids[:, :4]).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [name]
    assert config["dtype"] == config["torch_dtype"] == "float32"
    assert (config["eos_token_id"], config["pad_token_id"], config["vocab_size"]) == (256, 258, V)
    assert json.loads((tmp_path / "caslon.json").read_text())["step"] == 3
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)("abc")["input_ids"] == [97, 98, 99]


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_saved_weights_come_back_and_equal_models_write_equal_bytes(family: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        model(family).save(tmp_path / folder, TOKENIZER, sidecar={})
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    fresh = model(family)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    fresh.load_state_dict(fresh.weights_of(tmp_path / "a"))
    expected = dict(model(family).named_parameters())
    assert all(torch.equal(parameter, expected[name]) for name, parameter in fresh.named_parameters())
    other = EncoderDecoder(encoder_from_depth("t5", 1, vocab_size=V, context=16, hidden_size=32))
    with pytest.raises(UserError, match="of another shape"):
        other.weights_of(tmp_path / "a")


def test_weights_follow_from_the_seed_alone_and_leave_the_global_generator() -> None:
    before = torch.get_rng_state()
    for family in ("bert", "t5"):
        made = model(family)
        torch.rand(3)
        other = model(family)
        assert all(torch.equal(a, b) for a, b in zip(made.parameters(), other.parameters(), strict=True))
        other.initialise(6)
        assert not torch.equal(next(made.parameters()), next(other.parameters()))
    assert not torch.equal(torch.get_rng_state(), before)  # transformers draws when it builds; nothing depends on it


def test_attention_of_an_encoder_ends_with_its_document() -> None:
    encoder = model("bert")
    ids = torch.randint(0, 250, (1, 12), generator=torch.Generator().manual_seed(1))
    documents = torch.tensor([[1] * 5 + [2] * 7])
    positions = torch.cat([torch.arange(5), torch.arange(7)])[None]
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(5.0) if parameter.ndim > 1 else None
        packed = encoder(ids, positions, documents)[:, 5:]
        alone = encoder(ids[:, 5:], torch.arange(7)[None])
        leaking = encoder(ids, positions)[:, 5:]
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)
    assert (leaking - alone).abs().max() > 1e-3


def test_computing_activations_twice_changes_nothing() -> None:
    for family in ("bert", "t5"):
        gradients = []
        for every in (0, 1):
            made = model(family).train()
            made.checkpoint_every = every
            assert made.checkpoint_every == every
            ids = torch.arange(16).view(2, 8)
            hidden = made(ids, torch.arange(8).expand(2, 8)) if family == "bert" else made(ids, ids)
            (hidden * torch.linspace(-1, 1, 32)).sum().backward()
            gradients.append(next(made.parameters()).grad)
        if family == "bert":
            assert torch.equal(*gradients)
        else:  # what the decoder's layers ask of the encoder is added up in another order
            torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UserError, match="do not divide the width 30"):
        EncoderConfig(**shape(30, 1, 4, 8, 9))
    with pytest.raises(UserError, match="vocab_size must be at least 1"):
        EncoderDecoderConfig(**shape(32, 1, 4, 8, 0))
