"""The compiled kernels beside the decoder they compute: all families, both kinds of numbers, odd shapes."""

import pytest
import torch
from engine_cases import FAMILIES, make_decoder, need_kernels, random_prompts

from caslon.compress.formats import WeightFormat
from caslon.compress.linear import quantise_layers, weights_written_out
from caslon.engine.engine import Engine
from caslon.engine.native.model import why_not
from caslon.engine.request import SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.tokenizer.tokenizer import Tokenizer

SHAPES = {
    "heads of 48": {"head_dim": 48, "hidden_size": 90, "intermediate_size": 70},
    "one key head, groups of 5": {
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "hidden_size": 160,
    },
    "groups larger than a tile": {
        "num_attention_heads": 16,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "hidden_size": 66,
    },
}


@pytest.fixture(autouse=True)
def needed() -> None:
    need_kernels("compiled")


def decoder_of(**fields: object) -> Decoder:
    shape = {"family": "llama", "hidden_size": 64, "num_attention_heads": 2, "head_dim": 16, **fields}
    decoder = Decoder(DecoderConfig(vocab_size=330, num_hidden_layers=2, max_position_embeddings=160, **shape))  # type: ignore[arg-type]
    decoder.initialise(3)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return decoder.eval()


@torch.inference_mode()
def plain_logprobs(decoder: Decoder, ids: list[int]) -> torch.Tensor:
    logprobs = decoder.logits(decoder(torch.tensor([ids])))[0, :-1].float().log_softmax(-1)
    return logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def native_logprobs(decoder: Decoder, tokenizer: Tokenizer, prompts: list[list[int]]) -> list[torch.Tensor]:
    with Engine(decoder, tokenizer, EngineSettings(kernels="compiled", max_step_tokens=61)) as engine:
        return [torch.tensor(values) for values in engine.score(prompts)]


@pytest.mark.parametrize("name", [*FAMILIES, *SHAPES])
@pytest.mark.promise("engine", "the compiled kernels compute the decoder's own log-probabilities")
def test_log_probabilities_are_the_decoders(name: str, tokenizer: Tokenizer) -> None:
    decoder = make_decoder(name, tokenizer.vocab_size) if name in FAMILIES else decoder_of(**SHAPES[name])
    prompts = random_prompts(tokenizer.vocab_size, (2, 17, 63, 150))
    for prompt, found in zip(prompts, native_logprobs(decoder, tokenizer, prompts), strict=True):
        torch.testing.assert_close(found, plain_logprobs(decoder, prompt), rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_no_further_from_float32_than_torchs(family: str, tokenizer: Tokenizer) -> None:
    decoder = decoder_of(family=family, hidden_size=64, num_attention_heads=4).to(torch.bfloat16)
    exact = decoder_of(family=family, hidden_size=64, num_attention_heads=4)
    exact.load_state_dict({name: tensor.float() for name, tensor in decoder.state_dict().items()})
    prompts = random_prompts(tokenizer.vocab_size, (100, 150, 120))
    found = torch.cat(native_logprobs(decoder, tokenizer, prompts))
    torchs = torch.cat([plain_logprobs(decoder, prompt) for prompt in prompts])
    truth = torch.cat([plain_logprobs(exact, prompt) for prompt in prompts])
    assert (found - truth).abs().mean() <= (torchs - truth).abs().mean()
    assert (found - truth).abs().max() < 0.1


def test_bits_do_not_depend_on_neighbours_chunks_or_blocks_in_bfloat16(tokenizer: Tokenizer) -> None:
    decoder = make_decoder("qwen3", tokenizer.vocab_size).to(torch.bfloat16)
    prompts = random_prompts(tokenizer.vocab_size, (1, 40, 77, 150, 9, 33))
    params = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True, logprobs=0)
    seen = []
    for shape in (
        {"max_running": 1},
        {"block_tokens": 8, "max_step_tokens": 13, "max_running": 5},
        {"block_tokens": 64},
    ):
        with Engine(decoder, tokenizer, EngineSettings.model_validate({**shape, "kernels": "compiled"})) as engine:
            answers = engine.generate(prompts, params)
            seen.append([(one.ids, [entry.logprob for entry in one.logprobs]) for one in answers])
    assert seen[0] == seen[1] == seen[2]


def test_what_is_not_a_number_is_reported_and_does_not_reach_later_requests(tokenizer: Tokenizer) -> None:
    decoder = make_decoder("llama", tokenizer.vocab_size)
    with torch.no_grad():
        decoder.model.embed_tokens.weight[7] = torch.nan
    params = SamplingParams(max_tokens=4, temperature=0, ignore_eos=True)
    fine = [3, 4, 5]
    with Engine(decoder, tokenizer, EngineSettings(kernels="compiled", prefix_cache=False)) as engine:
        before = engine.generate([fine], params)[0].ids
        handle = engine.submit([3, 7, 9], params)
        assert handle.result().error == "model_output_not_finite"
        assert engine.generate([fine], params)[0].ids == before


def test_why_a_decoder_cannot_be_computed_is_said(tokenizer: Tokenizer) -> None:
    small = decoder_of(head_dim=8)
    assert why_not(small.config, small.device, torch.float32) == "heads of 8 numbers are not a multiple of 16"
    with pytest.raises(UserError, match="heads of 8 numbers"):
        Engine(small, tokenizer, EngineSettings(kernels="compiled"))
    with Engine(small, tokenizer) as engine:  # torch computes it
        assert len(engine.generate([[1, 2]])) == 1


@pytest.mark.parametrize("weights", ["int8", "int4", "nf4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["gpt2", "qwen3", "mixtral"])
def test_weights_of_few_bits_are_those_of_the_quantised_layers(
    family: str, dtype: torch.dtype, weights: WeightFormat, tokenizer: Tokenizer
) -> None:
    decoder = decoder_of(family=family, hidden_size=128, num_attention_heads=8, intermediate_size=192)
    quantise_layers(decoder, weights)
    prompts = random_prompts(tokenizer.vocab_size, (3, 40, 150))
    with weights_written_out(decoder):
        expected = torch.cat([plain_logprobs(decoder, prompt) for prompt in prompts])
    found = torch.cat(native_logprobs(decoder.to(dtype), tokenizer, prompts))
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-5 if dtype == torch.float32 else 0.2)
    if dtype == torch.bfloat16:
        assert (found - expected).abs().mean() < 0.02
