from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapter_cases import random_adapter
from engine_cases import gib_for, random_prompts

from caslon.engine.engine import Engine
from caslon.engine.pooling import Pooled
from caslon.engine.request import ContextLengthExceeded, InvalidParameter, SamplingParams
from caslon.model.decoder import Decoder
from caslon.tokenizer.tokenizer import Tokenizer


@torch.inference_mode()
def by_hand(decoder: Decoder, prompt: list[int], pooling: str) -> torch.Tensor:
    states = decoder(torch.tensor([prompt]))[0]
    vector = states.mean(0) if pooling == "mean" else states[-1]
    return vector / vector.norm()


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.promise(
    "engine", "Vectors of texts have length one and are the mean of all states or the last one, in any batch or chunk"
)
def test_vectors_are_the_plain_decoder_s(
    pooling: str, engine_with: Callable[..., Engine], decoder: Decoder, tokenizer: Tokenizer
) -> None:
    prompts = random_prompts(tokenizer.vocab_size, (40, 3, 17, 1, 60, 5))
    expected = torch.stack([by_hand(decoder, prompt, pooling) for prompt in prompts])
    small = gib_for(decoder, 112)  # some have to wait, some are computed twice
    for settings in ({}, {"max_step_tokens": 20}, {"kv_memory_gib": small, "max_running": 4, "max_step_tokens": 30}):
        vectors = engine_with(**settings).embed(prompts, pooling)
        torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(prompts)))


def test_vectors_and_answers_share_the_engine(engine: Engine, decoder: Decoder, tokenizer: Tokenizer) -> None:
    [prompt] = random_prompts(tokenizer.vocab_size, (33,))
    greedy = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
    handle = engine.submit(prompt, greedy)
    torch.testing.assert_close(engine.embed([prompt])[0], by_hand(decoder, prompt, "mean"), rtol=1e-5, atol=1e-5)
    assert handle.result().ids == engine.generate([prompt], greedy)[0].ids
    assert engine.stats().blocks_used == 0


def test_vectors_of_an_adapter(
    engine_with: Callable[..., Engine], decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    engine = engine_with(kernels="torch")
    merged = random_adapter(tmp_path, decoder)
    engine.adapters.add("red", tmp_path)
    [prompt] = random_prompts(tokenizer.vocab_size, (20,))
    found = engine.embed([prompt, prompt], "last", adapters=["red", None])
    torch.testing.assert_close(found[0], by_hand(merged, prompt, "last"), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], by_hand(decoder, prompt, "last"), rtol=1e-5, atol=1e-5)


def test_states_that_come_twice_count_once() -> None:
    states = torch.arange(12.0).view(6, 2)
    pooled = Pooled("mean")
    for start, end in ((0, 3), (0, 2), (2, 5), (5, 6)):
        pooled.add(start, states[start:end])
    torch.testing.assert_close(pooled.vector(), states.mean(0) / states.mean(0).norm())


def test_bad_requests_are_refused(engine: Engine) -> None:
    with pytest.raises(InvalidParameter, match="mean or last"):
        engine.embed([[1, 2]], "first")  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match="at least one token"):
        engine.embed([[]])
    with pytest.raises(ContextLengthExceeded):
        engine.embed([[1] * (engine.model_context + 1)])
    assert engine.embed([]).shape == (0,)
