from pathlib import Path

import pytest
import torch

from caslon.engine.encoders import EncoderModel, is_encoder, open_encoder
from caslon.engine.request import ContextLengthExceeded, InvalidParameter
from caslon.errors import UserError
from caslon.model.encoder import Encoder
from caslon.model.encoder_config import encoder_from_depth
from caslon.model.encoder_decoder import EncoderDecoder
from caslon.tokenizer.alphabet import byte_tokenizer

transformers = pytest.importorskip("transformers")

TOKENIZER = byte_tokenizer(["<|mask|>", "<|pad|>"], sentinels=4)
TEXTS = ["the bell of Bow", "a", "Cheapside at noon"]


def folder_of(family: str, path: Path, **changes: object) -> Path:
    config = encoder_from_depth(
        family,
        2,
        vocab_size=TOKENIZER.vocab_size,
        context=48,
        hidden_size=32,
        num_attention_heads=2,
        head_dim=16,
        **changes,
    )
    model = Encoder(config) if family == "bert" else EncoderDecoder(config)
    model.initialise(5)
    model.eval().save(path, TOKENIZER, sidecar={})
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {family: folder_of(family, tmp_path_factory.mktemp(family)) for family in ("bert", "t5")}
    made["two heads"] = folder_of("bert", tmp_path_factory.mktemp("nsp"), next_sentence=True)
    return made


def states_of(folder: Path, model: EncoderModel, text: str) -> torch.Tensor:
    with torch.inference_mode():
        whole = transformers.AutoModel.from_pretrained(folder).eval()
        part = whole.encoder if hasattr(whole, "decoder") else whole
        return part(input_ids=torch.tensor([model.text_ids(text)])).last_hidden_state[0]


@pytest.mark.parametrize("kind", ["bert", "t5", "two heads"])
@pytest.mark.promise(
    "engine", "Folders of BERT's and T5's layouts give vectors that do not depend on the texts beside them"
)
def test_vectors_are_those_of_the_text_alone(kind: str, folders: dict[str, Path]) -> None:
    model = open_encoder(folders[kind])
    assert is_encoder(folders[kind])
    assert "embed" in model.tasks
    for pooling in ("mean", "last"):
        vectors = model.embed(TEXTS, pooling)
        for text, vector in zip(TEXTS, vectors, strict=True):
            states = states_of(folders[kind], model, text)
            expected = states.mean(0) if pooling == "mean" else states[-1]
            torch.testing.assert_close(vector, expected / expected.norm(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "two heads"])
def test_masked_places_are_filled(kind: str, folders: dict[str, Path]) -> None:
    model = open_encoder(folders[kind])
    [first, second] = model.fill("the <|mask|>ell of <|mask|>ow", alternatives=3)
    assert len(first) == len(second) == 3
    whole = transformers.AutoModelForMaskedLM.from_pretrained(folders[kind]).eval()
    ids = torch.tensor([model.text_ids("the <|mask|>ell of <|mask|>ow")])
    with torch.inference_mode():
        logits = whole(input_ids=ids).logits[0, (ids[0] == TOKENIZER.id_of("<|mask|>")).nonzero()[0, 0]]
    assert first[0].id == int(logits.argmax())
    assert first[0].logprob == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-4)
    with pytest.raises(InvalidParameter, match=r"a text with the mask token <\|mask\|>"):
        model.fill("no hole")


def test_text_to_text_is_greedy_and_the_same_in_any_batch(folders: dict[str, Path]) -> None:
    model = open_encoder(folders["t5"])
    together = model.text_to_text(TEXTS, max_tokens=6)
    assert together == [model.text_to_text([text], max_tokens=6)[0] for text in TEXTS]
    with pytest.raises(UserError, match="cannot do fill"):
        model.fill("x")


def test_what_cannot_be_served_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    model = open_encoder(folders["bert"])
    with pytest.raises(ContextLengthExceeded):
        model.embed(["x" * 100])
    with pytest.raises(UserError, match="cannot do text_to_text"):
        model.text_to_text(["x"])
    for file in folders["bert"].iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="pickle"):
        open_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert not is_encoder(tmp_path)
    with pytest.raises(UserError, match="no encoder"):
        open_encoder(tmp_path)
