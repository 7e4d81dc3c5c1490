"""Our folders in transformers and its folders here: same names, same logits, same greedy tokens."""

import logging

import pytest
import torch

from caslon.model.cache import greedy_decode
from caslon.model.config import FAMILIES, DecoderConfig
from caslon.model.folder import ModelFolder, save_model_folder
from caslon.model.weights import disk_tensors, read_weights

transformers = pytest.importorskip("transformers", reason="parity needs transformers")
IDS = torch.randint(0, 300, (2, 64), generator=torch.Generator().manual_seed(2))
VARIANTS = [
    *[(family, {}) for family in FAMILIES],
    ("gpt2", {"bias": False}),
    ("gpt2", {"hidden_act": "relu", "tie_word_embeddings": False}),
    ("llama", {"rope_theta": 500_000.0, "tie_word_embeddings": False, "bias": True}),
    ("llama", {"norm_eps": 1e-6, "num_key_value_heads": 4, "intermediate_size": 48}),
    ("qwen3", {"head_dim": 16, "num_key_value_heads": 1}),
    ("mixtral", {"num_experts_per_tok": 1, "tie_word_embeddings": False, "rope_theta": 1e6}),
    ("mixtral", {"num_local_experts": 6, "num_experts_per_tok": 3, "head_dim": 16}),
]


@pytest.fixture(autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()


def greedy_by_transformers(model, ids, count):
    with torch.no_grad():
        found = model.generate(
            torch.tensor([ids]), max_new_tokens=count, min_new_tokens=count, do_sample=False, eos_token_id=None
        )
    return found[0, len(ids) :].tolist()


def assert_same(decoder, model):
    with torch.no_grad():
        ours, theirs = decoder.logits(decoder(IDS)), model(IDS).logits
    assert (ours - theirs).abs().max() <= 1e-5
    prompt = IDS[0, :16].tolist()
    assert greedy_decode(decoder, prompt, 32) == greedy_by_transformers(model, prompt, 32)


@pytest.mark.promise(
    "pretraining", "every family has the logits, greedy tokens and tensor names of transformers, from the same folder"
)
@pytest.mark.parametrize(("family", "changes"), VARIANTS)
def test_our_folder_in_transformers(family, changes, tmp_path, make_decoder, tokenizer):
    decoder = make_decoder(family, **changes)
    save_model_folder(tmp_path, decoder, tokenizer, sidecar={})
    model, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.float32
    model.save_pretrained(tmp_path / "theirs")
    assert set(disk_tensors(decoder)) == set(read_weights(tmp_path / "theirs"))
    assert_same(decoder, model.eval())
    assert model.generation_config.eos_token_id == list(tokenizer.stop_ids)
    assert model.config.pad_token_id == tokenizer.pad_id
    text = "The quick brown fox"
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == tokenizer.encode(text)


@pytest.mark.parametrize(("family", "changes"), VARIANTS)
def test_a_folder_of_transformers_here(family, changes, tmp_path, make_config, tokenizer):
    config = make_config(family, **{key: value for key, value in changes.items() if key != "bias"})
    data = {key: value for key, value in config.to_json().items() if key not in ("architectures", "torch_dtype")}
    # Keys that only old readers need are left out, so that this is what transformers writes by itself.
    data.pop("rope_theta", None)
    torch.manual_seed(3)
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**{**data, **ids}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.dim() == 1 else 0.05))
    model.eval().save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    generation = model.generation_config
    generation.eos_token_id = list(tokenizer.stop_ids)
    generation.save_pretrained(tmp_path)
    folder = ModelFolder.open(tmp_path)
    assert_same(folder.load(), model)
    assert DecoderConfig.from_json(folder.config.to_json()) == folder.config
    # And on through our own save, back to transformers.
    save_model_folder(tmp_path / "again", folder.load(), tokenizer, sidecar={})
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again").eval()
    with torch.no_grad():
        assert torch.equal(again(IDS).logits, model(IDS).logits)


@pytest.mark.promise(
    "pretraining", "attention maps are there for every layer and head whatever kernel computes attention"
)
def test_attention_maps_equal_those_of_eager_transformers(tmp_path, make_decoder, tokenizer):
    from caslon.model.attention import AttentionMaps

    decoder = make_decoder("qwen3")
    save_model_folder(tmp_path, decoder, tokenizer, sidecar={})
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    maps = AttentionMaps()
    with torch.no_grad():
        decoder(IDS, attend=maps)
        theirs = model(IDS, output_attentions=True).attentions
    for layer, shares in enumerate(theirs):
        assert (maps.maps[layer] - shares).abs().max() <= 1e-6


def test_a_packed_row_equals_transformers_on_each_document(tmp_path, make_decoder, tokenizer):
    from caslon.model.attention import document_attention

    decoder = make_decoder("llama")
    save_model_folder(tmp_path, decoder, tokenizer, sidecar={})
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    documents = torch.tensor([[0] * 20 + [1] * 44, [0] * 50 + [1] * 14])
    positions = torch.tensor([[*range(20), *range(44)], [*range(50), *range(14)]])
    with torch.no_grad():
        packed = decoder.logits(decoder(IDS, positions, document_attention(documents)))
        for row, cut in ((0, 20), (1, 50)):
            for part in (slice(0, cut), slice(cut, 64)):
                assert (packed[row, part] - model(IDS[row : row + 1, part]).logits[0]).abs().max() <= 1e-5


@pytest.mark.parametrize("counted", [None, torch.rand(2, 64, generator=torch.Generator().manual_seed(6)) < 0.7])
@pytest.mark.promise("pretraining", "the balance loss of a mixture equals transformers' function")
def test_the_balance_loss_equals_that_of_transformers(counted, make_decoder):
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    from caslon.model.experts import balance_loss

    decoder = make_decoder("mixtral")
    routings = []
    with torch.no_grad():
        decoder(IDS, record=routings.append)
    assert len(routings) == 2
    logits = tuple(routing.probabilities.log() for routing in routings)
    theirs = load_balancing_loss_func(logits, 4, 2, None if counted is None else counted.long())
    ours = balance_loss(routings, None if counted is None else counted.flatten())
    assert ours.item() == pytest.approx(float(theirs), abs=1e-6)
