"""One prompt, one answer: whatever runs beside it, however it is cut, cached or preempted."""

from pathlib import Path

import pytest
import torch
from engine_cases import CONTEXT, FAMILIES, KERNELS, gib_for, need_kernels, plain_greedy, random_prompts

from caslon.engine.engine import Engine
from caslon.engine.request import Completion, SamplingParams
from caslon.engine.settings import EngineSettings
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.tokenizer.tokenizer import Tokenizer

LENGTHS = (1, 5, 17, 63, 64, 65, 70, 130, 33, 12, 90, 2, 150, 100, 31, 128)
NEW_TOKENS = 12
GREEDY = SamplingParams(max_tokens=NEW_TOKENS, temperature=0, ignore_eos=True, logprobs=0)

SHAPES = {
    "alone": {"max_running": 1},
    "batch of 4, chunks of 64": {"max_running": 4, "max_step_tokens": 64, "block_tokens": 8},
    "chunks of 7": {"max_running": 4, "max_step_tokens": 7, "block_tokens": 32, "prefix_cache": False},
    "batch of 16": {"max_running": 16},
    "blocks of 128": {"max_running": 5, "block_tokens": 128, "max_step_tokens": 17},
}


def logprobs(completions: list[Completion]) -> list[tuple[float, ...]]:
    return [tuple(entry.logprob for entry in completion.logprobs) for completion in completions]


@pytest.fixture(scope="module", params=FAMILIES)
def case(
    request: pytest.FixtureRequest, decoders: dict[str, Decoder], tokenizer: Tokenizer
) -> tuple[Decoder, list[list[int]], list[tuple[int, ...]]]:
    decoder = decoders[request.param]
    prompts = random_prompts(tokenizer.vocab_size, LENGTHS)
    return decoder, prompts, [plain_greedy(decoder, prompt, NEW_TOKENS) for prompt in prompts]


@pytest.fixture(scope="module", params=KERNELS)
def kernels(request: pytest.FixtureRequest) -> str:
    need_kernels(request.param)
    return str(request.param)


def test_greedy_equals_the_plain_decoder_bit_by_bit_in_every_shape(
    case: tuple[Decoder, list[list[int]], list[tuple[int, ...]]], tokenizer: Tokenizer, kernels: str
) -> None:
    decoder, prompts, expected = case
    seen = []
    for shape in SHAPES.values():
        with Engine(decoder, tokenizer, EngineSettings.model_validate({**shape, "kernels": kernels})) as engine:
            for _warmth in ("cold", "warm"):
                completions = engine.generate(prompts, GREEDY)
                assert [completion.ids for completion in completions] == expected
                seen.append(logprobs(completions))
    assert all(values == seen[0] for values in seen)


def test_preemption_changes_nothing(
    case: tuple[Decoder, list[list[int]], list[tuple[int, ...]]], tokenizer: Tokenizer, kernels: str
) -> None:
    decoder, prompts, expected = case
    for prefix_cache in (True, False):
        settings = EngineSettings(
            block_tokens=8, kv_memory_gib=gib_for(decoder, 176), prefix_cache=prefix_cache, kernels=kernels
        )
        with Engine(decoder, tokenizer, settings) as engine:
            completions = engine.generate(prompts, GREEDY)
            assert engine.stats().preemptions >= 2
        assert [completion.ids for completion in completions] == expected
        with Engine(decoder, tokenizer, EngineSettings(kernels=kernels)) as engine:
            assert logprobs(completions) == logprobs(engine.generate(prompts, GREEDY))


def test_without_batch_invariance_the_tokens_are_still_the_same(
    case: tuple[Decoder, list[list[int]], list[tuple[int, ...]]], tokenizer: Tokenizer
) -> None:
    decoder, prompts, expected = case
    with Engine(decoder, tokenizer, EngineSettings(batch_invariant=False, kernels="torch")) as engine:
        assert [completion.ids for completion in engine.generate(prompts, GREEDY)] == expected


def test_two_threads_compute_the_same_bits(decoder: Decoder, tokenizer: Tokenizer, kernels: str) -> None:
    prompts = random_prompts(tokenizer.vocab_size, (3, 66, 12, 40, 130))
    params = SamplingParams(max_tokens=4, temperature=0, ignore_eos=True, logprobs=0)
    torch.set_num_threads(2)
    try:
        with Engine(decoder, tokenizer, EngineSettings(prefix_cache=False, kernels=kernels)) as engine:
            together = engine.generate(prompts, params)
            alone = [engine.generate([prompt], params)[0] for prompt in prompts]
    finally:
        torch.set_num_threads(1)
    assert logprobs(alone) == logprobs(together)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_transformers(
    family: str, decoders: dict[str, Decoder], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    save_model_folder(tmp_path, decoders[family], tokenizer, sidecar={})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    prompts = random_prompts(tokenizer.vocab_size, (1, 9, 40, 64, 100, 65), seed=5)
    with Engine.load(tmp_path) as engine:
        completions = engine.generate(prompts, GREEDY)
    for prompt, completion in zip(prompts, completions, strict=True):
        output = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert tuple(output[0, len(prompt) :].tolist()) == completion.ids


def test_seeds_give_the_same_answer_alone_and_in_a_batch(decoder: Decoder, tokenizer: Tokenizer) -> None:
    prompts = random_prompts(tokenizer.vocab_size, LENGTHS[:8])
    params = [
        SamplingParams(max_tokens=12, temperature=1.2, top_p=0.95, top_k=60 + seed, min_p=0.01, seed=seed)
        for seed in range(8)
    ]
    with Engine(decoder, tokenizer) as engine:
        together = engine.generate(prompts, params)
        alone = [engine.generate([prompt], chosen)[0] for prompt, chosen in zip(prompts, params, strict=True)]
        other = engine.generate(prompts, SamplingParams(max_tokens=12, temperature=1.2, seed=99))
    assert [completion.ids for completion in together] == [completion.ids for completion in alone]
    assert [completion.ids for completion in together] != [completion.ids for completion in other]
    assert [completion.seed for completion in together] == list(range(8))


def test_the_whole_context_can_be_used(decoder: Decoder, tokenizer: Tokenizer) -> None:
    prompt = random_prompts(tokenizer.vocab_size, (CONTEXT - 20,))[0]
    params = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
    with Engine(decoder, tokenizer) as engine:
        assert engine.generate([prompt], params)[0].ids == plain_greedy(decoder, prompt, 20)


def test_scores_equal_the_plain_decoder(decoder: Decoder, tokenizer: Tokenizer) -> None:
    prompts = random_prompts(tokenizer.vocab_size, (2, 40, CONTEXT, 1))
    with Engine(decoder, tokenizer, EngineSettings(max_step_tokens=50)) as engine:
        scores = engine.score(prompts)
        assert engine.stats().blocks_used == 0
        small = EngineSettings(block_tokens=8, kv_memory_gib=gib_for(decoder, 200), max_step_tokens=50)
        with Engine(decoder, tokenizer, small) as crowded:
            assert crowded.score(prompts) == scores
    for prompt, found in zip(prompts, scores, strict=True):
        with torch.inference_mode():
            logits = decoder.logits(decoder(torch.tensor([prompt]))[0]).log_softmax(-1)
        expected = logits[:-1].gather(1, torch.tensor(prompt[1:], dtype=torch.long)[:, None])[:, 0]
        assert found == pytest.approx(expected.tolist(), abs=2e-5)


def test_prompt_logprobs_come_with_the_answer(decoder: Decoder, tokenizer: Tokenizer) -> None:
    prompt = random_prompts(tokenizer.vocab_size, (30,))[0]
    with Engine(decoder, tokenizer) as engine:
        engine.generate([prompt])  # a warm prefix must not swallow the prompt's scores
        completion = engine.generate([prompt], SamplingParams(max_tokens=2, prompt_logprobs=3))[0]
        assert completion.prompt_logprobs is not None
        assert completion.prompt_logprobs[0] is None
        assert [entry.id for entry in completion.prompt_logprobs[1:] if entry] == prompt[1:]
        assert [entry.logprob for entry in completion.prompt_logprobs[1:] if entry] == engine.score([prompt])[0]
        assert all(len(entry.top) == 3 for entry in completion.prompt_logprobs[1:] if entry)


def test_a_warm_prefix_is_reused_up_to_the_last_block(decoder: Decoder, tokenizer: Tokenizer) -> None:
    prompt = random_prompts(tokenizer.vocab_size, (125,))[0]
    with Engine(decoder, tokenizer) as engine:
        cold = engine.generate([prompt], GREEDY)[0]
        warm = engine.generate([prompt], GREEDY)[0]
        turn = engine.generate([[*prompt, *cold.ids, 5, 6, 7]], GREEDY)[0]
    assert (cold.cached_tokens, warm.cached_tokens) == (0, 112)  # 7 full blocks
    assert turn.cached_tokens == 128  # the block that decoding filled counts too
    assert warm.ids == cold.ids
