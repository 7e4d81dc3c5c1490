"""Programs side by side: what is asked of them, and what is made of their answers."""

from pathlib import Path

import pytest

from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.peers.compare import Measured, compare
from caslon.peers.loads import Load, fitting, loads
from caslon.peers.peer import Setting, parsed_spec
from caslon.peers.verdicts import verdicts
from caslon.tokenizer.train import train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_tokenizer(["the quick brown fox jumps over the lazy dog " * 20], vocab_size=300)
    config = DecoderConfig(
        family="llama", vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    decoder = Decoder(config)
    decoder.initialise(1)
    path = tmp_path_factory.mktemp("peer") / "model"
    save_model_folder(path, decoder, tokenizer, sidecar={})
    return path


ASKED = [
    Load("decode", "tokens/s", [[5, 6, 7], [8, 9]], [6, 6], 2),
    Load("mixed", "tokens/s", [[5, 6], [7], [8, 9, 10]], [3, 7, 2], 2),
    Load("first", "ms to first token", [[5] * 20], [1], 1),
]


def measured(folder: Path, programs: list[str]) -> list[Measured]:
    setting = Setting(folder, 1, "cpu", "float32", {})
    *_, (_, found) = compare([parsed_spec(text) for text in programs], setting, ASKED, rounds=1)
    return found


def test_a_program_that_cannot_load_does_not_stop_the_others(folder: Path) -> None:
    ours, failed = measured(folder, ["caslon", "caslon:weights=int3"])
    assert (ours.failure, ours.dtype, ours.same_tokens) == ("", "float32", 1.0)
    assert set(ours.figures) == {load.name for load in ASKED}
    assert ours.peak_bytes is not None
    assert failed.figures == {}
    assert "int3" in failed.failure


@pytest.mark.slow
@pytest.mark.promise(
    "engine", "in float32 the engine and transformers write the same tokens, in the run that compares their speed"
)
def test_transformers_writes_the_same_tokens(folder: Path) -> None:
    ours, theirs = measured(folder, ["caslon", "transformers"])
    assert theirs.failure == ""
    assert (ours.same_tokens, theirs.same_tokens) == (1.0, 1.0)
    assert all(theirs.figures[load.name] > 0 for load in ASKED)


def test_loads_are_repeatable_and_fit_or_are_named() -> None:
    assert list(loads(300, 4096)) == list(loads(300, 4096))
    fit, too_long = fitting(loads(300, 1024), 1024)
    assert too_long == ["prefill 2,048"]
    assert [load.name for load in fit] == [
        "prefill 512", "first token", "decode, batch 1", "decode, batch 8", "decode, batch 16", "decode, batch 32",
        "64 mixed requests",
    ]  # fmt: skip
    mixed = fit[-1]
    assert len(mixed.prompts) == 64
    assert len(set(mixed.new_tokens)) > 10


def test_figures_in_their_units() -> None:
    assert ASKED[0].figure(2.0) == 6.0
    assert ASKED[2].figure(0.5) == 500.0
    assert Load("p", "prompt tokens/s", [[1] * 512], [1], 1).figure(0.5) == 1024.0


def test_specs() -> None:
    spec = parsed_spec("caslon:weights=int8,kernels=torch")
    assert (spec.name, dict(spec.options)) == ("caslon", {"weights": "int8", "kernels": "torch"})
    with pytest.raises(UserError, match="did you mean transformers"):
        parsed_spec("transformer")
    with pytest.raises(UserError, match="NAME=VALUE"):
        parsed_spec("caslon:int8")


def test_verdicts_name_their_figures() -> None:
    names = ("decode, batch 1", "64 mixed requests", "prefill 512")
    ours = Measured(
        "caslon", dtype="float32", peak_bytes=2**30, figures=dict(zip(names, (26.0, 300.0, 90.0), strict=True))
    )
    theirs = Measured("transformers", figures=dict(zip(names, (20.0, 200.0, 100.0), strict=True)))
    llama = Measured("llama.cpp", figures={"decode, batch 1": 40.0})
    found = {
        verdict.claim: (verdict.measured, verdict.holds) for verdict in verdicts([ours, theirs, llama], 108_000_000)
    }
    assert found == {
        "decode, batch 1: at least 1.3 times transformers": ("1.30", True),
        "64 mixed requests: at least 2 times transformers": ("1.50", False),
        "prefill 512: at least 0.95 times transformers": ("0.90", False),
        "decode, batch 1: at least 0.6 times llama.cpp": ("0.65", True),
        "at least 20 tokens/s alone at 108 M parameters": ("26.0", True),
        "reading speed: 11 tokens/s": ("26.0", True),
        "edge: above 1 token/s within 8 GiB": ("26.0, 1.0 GiB", True),
    }
