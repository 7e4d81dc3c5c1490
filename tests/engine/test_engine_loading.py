import json
from pathlib import Path

import pytest
import torch
from engine_cases import make_decoder, random_prompts

from caslon.compress.formats import WEIGHT_FORMATS, WeightFormat
from caslon.compress.linear import Int4Linear, Int8Linear, Nf4Linear, resident_bytes
from caslon.engine.engine import Engine
from caslon.engine.golden import write_golden_prompts
from caslon.engine.loading import placement
from caslon.engine.settings import EngineSettings
from caslon.errors import CaslonError, UserError
from caslon.model.folder import save_model_folder
from caslon.tokenizer.tokenizer import Tokenizer

KINDS = {"int8": Int8Linear, "int4": Int4Linear, "nf4": Nf4Linear}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[str, Path]:
    made = {}
    for family in ("gpt2", "mixtral"):
        decoder = make_decoder(family, tokenizer.vocab_size)
        made[family] = tmp_path_factory.mktemp(family)
        save_model_folder(made[family], decoder, tokenizer, sidecar={})
        write_golden_prompts(made[family], decoder, random_prompts(tokenizer.vocab_size, (5, 9, 30)))
    return made


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
@pytest.mark.parametrize("kind", WEIGHT_FORMATS)
@pytest.mark.promise(
    "engine", "With quantised weights the engine starts only where its probabilities are those of the plain decoder"
)
def test_weights_are_made_smaller_at_load(folders: dict[str, Path], family: str, kind: WeightFormat) -> None:
    with Engine.load(folders[family]) as whole, Engine.load(folders[family], EngineSettings(weights=kind)) as engine:
        assert isinstance(engine.decoder.model.layers[0].self_attn.q_proj, KINDS[kind])
        assert resident_bytes(engine.decoder) < resident_bytes(whole.decoder)
        assert engine.decoder.device == torch.device("cpu")


def test_a_kernel_that_computes_something_else_is_found(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Int8Linear.forward

    def wrong(layer: Int8Linear, x: torch.Tensor) -> torch.Tensor:
        return right(layer, x) if layer.written_out else 1.3 * right(layer, x)

    monkeypatch.setattr(Int8Linear, "forward", wrong)
    with pytest.raises(CaslonError, match="other probabilities than the plain decoder"):
        Engine.load(folders["gpt2"], EngineSettings(weights="int8", kernels="torch"))


def test_bfloat16_is_computed_where_it_is_asked_for(folders: dict[str, Path]) -> None:
    with Engine.load(folders["mixtral"], EngineSettings(dtype="bfloat16"), verify=False) as engine:
        assert engine.decoder.model.embed_tokens.weight.dtype == torch.bfloat16
        assert engine.generate([[1, 2, 3]])[0].ids


def test_placement_takes_what_the_machine_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    native = torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
    on_cpu = EngineSettings(device="cpu")
    assert placement(on_cpu, "float32").dtype == torch.float32
    assert placement(on_cpu, "bfloat16").dtype == native
    assert placement(on_cpu, "float16").dtype == torch.float32
    assert str(placement(EngineSettings(device="cpu", dtype="bfloat16"), "float32")) == "bfloat16 on cpu"
    with pytest.raises(UserError, match="float16 needs a GPU"):
        placement(EngineSettings(device="cpu", dtype="float16"), "float32")
    with pytest.raises(UserError, match="there is no cuda:63"):
        placement(EngineSettings(device="cuda:63"), "float32")


def test_a_changed_weight_file_is_found_by_the_golden_prompts(folders: dict[str, Path], tmp_path: Path) -> None:
    for file in folders["gpt2"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    golden = json.loads((tmp_path / "golden.json").read_text())
    golden[0]["ids"][0] ^= 1
    (tmp_path / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(CaslonError, match="golden prompt 1 of 3 is answered differently: token 0"):
        Engine.load(tmp_path)
