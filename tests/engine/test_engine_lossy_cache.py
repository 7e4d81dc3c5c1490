"""Caches in fewer bits and caches that forget, against attention written out by hand."""

from collections.abc import Callable

import pytest
import torch
from engine_cases import plain_greedy, random_prompts
from torch import Tensor

from caslon.engine.engine import Engine
from caslon.engine.kv_codes import coded_keys, coded_values, decoded
from caslon.engine.planner import kv_block_bytes, kv_recent_bytes
from caslon.engine.request import SamplingParams
from caslon.engine.retained_cache import RetainedCache
from caslon.engine.runner import TorchRunner
from caslon.engine.settings import EngineSettings
from caslon.errors import UserError
from caslon.model.attention import reference_attention
from caslon.model.decoder import Decoder
from caslon.tokenizer.tokenizer import Tokenizer

GREEDY = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)


@pytest.mark.promise(
    "engine", "At 4 bits one large channel of the keys does not spoil the others: their error stays below 0.2"
)
def test_an_outlier_channel_leaves_the_others_alone() -> None:
    keys = torch.randn(4, 16, 2, 64, generator=torch.Generator().manual_seed(0))
    keys[..., 5] *= 100
    others = [channel for channel in range(64) if channel != 5]

    def error(found: Tensor) -> float:
        return float((found - keys)[..., others].norm() / keys[..., others].norm())

    assert error(decoded(coded_keys(keys, 4), torch.float32)) <= 0.2
    step = keys.abs().max() / 7  # one scale for everything
    assert error((keys / step).round().clamp(-7, 7) * step) > 0.9


@pytest.mark.parametrize("bits", [8, 4])
def test_codes_are_packed_and_come_back(bits: int) -> None:
    numbers = torch.randn(3, 8, 2, 32, generator=torch.Generator().manual_seed(1))
    for coded, scales in ((coded_keys(numbers, bits), (3, 1, 2, 32)), (coded_values(numbers, bits), (3, 8, 2, 1))):
        assert coded.codes.nbytes == numbers.numel() * bits // 8
        assert coded.scales.shape == scales
        error = (decoded(coded, torch.float32) - numbers).abs()
        assert (error <= coded.scales.float() * (0.5 if bits == 4 else 0.76)).all()
    assert decoded(coded_keys(torch.zeros(1, 8, 1, 4), bits), torch.float32).count_nonzero() == 0


def assert_close_but_for_roundings(differences: Tensor) -> None:
    """Sums that differ in the last digit may round to another code, which moves what comes after by a step of that code."""
    assert (differences > 2e-4).float().mean() < 0.1
    assert differences.max() < 0.03


@torch.inference_mode()
def by_hand(decoder: Decoder, ids: list[int], bits: int, block: int = 16) -> Tensor:
    """Return the logits of every position, each token seeing all blocks older than its newest 64 tokens quantised."""

    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        whole = keys.shape[2] // block * block

        def coded(part: Tensor, code: Callable[[Tensor, int], object]) -> Tensor:
            blocks = part[0, :, :whole].transpose(0, 1).unflatten(0, (-1, block))  # [B, T, K, C]
            return decoded(code(blocks, bits), torch.float32).flatten(0, 1).transpose(0, 1)[None]  # type: ignore[arg-type]

        old_keys, old_values = coded(keys, coded_keys), coded(values, coded_values)
        rows = []
        for place in range(queries.shape[2]):
            old = max(0, (place + 1 - 64) // block) * block
            seen = [
                torch.cat((was[:, :, :old], now[:, :, old : place + 1]), 2)
                for was, now in ((old_keys, keys), (old_values, values))
            ]
            rows.append(reference_attention(queries[:, :, place : place + 1], *seen))
        return torch.cat(rows, 2)

    return decoder.logits(decoder(torch.tensor([ids]), None, attend))[0]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.promise(
    "engine",
    "A quantised cache gives, in any chunk and batch, what quantising all but the newest 64 tokens gives by hand",
)
def test_quantised_answers_are_those_by_hand(
    bits: int, family: str, decoders: dict[str, Decoder], tokenizer: Tokenizer
) -> None:
    decoder = decoders[family]
    prompts = random_prompts(tokenizer.vocab_size, (150, 70, 7))
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    for settings in ({}, {"max_step_tokens": 24}, {"max_step_tokens": 50, "block_tokens": 8}):
        chosen = EngineSettings(kv_dtype=f"int{bits}", max_running=3, **settings)
        with Engine(decoder, tokenizer, chosen) as engine:
            stats = engine.stats()
            size = chosen.block_tokens
            planned = stats.blocks_total * kv_block_bytes(decoder.config, chosen.kv_dtype, size)
            assert stats.kv_bytes == planned + kv_recent_bytes(decoder.config, chosen.kv_dtype, "float32", size, 3)
            scores = engine.generate(prompts, params)
            written = engine.generate(prompts, GREEDY)
        for prompt, scored, answer in zip(prompts, scores, written, strict=True):
            expected = by_hand(decoder, prompt, bits, size).log_softmax(-1)
            found = [entry.logprob for entry in scored.prompt_logprobs or () if entry is not None]
            hand = expected[:-1].gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
            assert_close_but_for_roundings((torch.tensor(found) - hand).abs())
            logits = by_hand(decoder, prompt + list(answer.ids[:-1]), bits, size)[len(prompt) - 1 :]
            chosen_logits = logits.gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
            assert_close_but_for_roundings(logits.amax(1) - chosen_logits)  # each token is the likeliest


def test_quantised_sequences_may_be_preempted(decoder: Decoder, tokenizer: Tokenizer) -> None:
    prompts = random_prompts(tokenizer.vocab_size, (90, 80, 70))
    answers = []
    for blocks in (100, 17):
        recent = kv_recent_bytes(decoder.config, "int8", "float32", 16, 4)
        gib = (recent + blocks * kv_block_bytes(decoder.config, "int8", 16)) / 2**30
        with Engine(decoder, tokenizer, EngineSettings(kv_dtype="int8", max_running=4, kv_memory_gib=gib)) as engine:
            answers.append([completion.ids for completion in engine.generate(prompts, GREEDY)])
            assert (engine.stats().preemptions > 0) == (blocks == 17)
            assert engine.stats().blocks_used == 0
    assert answers[0] == answers[1]


@torch.inference_mode()
def window_by_hand(decoder: Decoder, prompt: list[int], tokens: int, window: int) -> tuple[int, ...]:
    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        places = torch.arange(queries.shape[2])
        near = (places[None] <= places[:, None]) & (places[None] > places[:, None] - window)
        first = (places[None] < 4) & (places[None] <= places[:, None])
        return reference_attention(queries, keys, values, near | first)

    ids = list(prompt)
    for _ in range(tokens):
        ids.append(int(decoder.logits(decoder(torch.tensor([ids]), None, attend)[0, -1]).argmax()))
    return tuple(ids[len(prompt) :])


@pytest.mark.promise(
    "engine", "A window keeps the first 4 and the newest N tokens at their true positions, in bounded memory"
)
def test_window_is_the_masked_decoder(decoder: Decoder, tokenizer: Tokenizer) -> None:
    prompts = random_prompts(tokenizer.vocab_size, (100, 40, 3))
    for step in (20, 64):
        settings = EngineSettings(retention="window:24", max_step_tokens=step, max_running=3)
        with Engine(decoder, tokenizer, settings) as engine:
            answers = engine.generate(prompts, GREEDY)
            assert engine.stats().blocks_total == 3 * -(-(4 + 24 + 16 + step) // 16)
        for prompt, answer in zip(prompts, answers, strict=True):
            assert answer.ids == window_by_hand(decoder, prompt, 30, 24)


def test_a_large_window_or_many_hitters_keep_everything(decoder: Decoder, tokenizer: Tokenizer) -> None:
    [prompt] = random_prompts(tokenizer.vocab_size, (60,))
    for retention in ("window:500", "heavy_hitter:500"):
        with Engine(decoder, tokenizer, EngineSettings(retention=retention)) as engine:
            assert engine.generate([prompt], GREEDY)[0].ids == plain_greedy(decoder, prompt, 30)


def test_heavy_hitters_stay_in_order_with_their_positions(
    engine_with: Callable[..., Engine], tokenizer: Tokenizer
) -> None:
    engine = engine_with(retention="heavy_hitter:32", max_step_tokens=40)
    runner = engine._runner
    assert isinstance(runner, TorchRunner)
    cache = runner.cache
    assert isinstance(cache, RetainedCache)
    held: list[list[int]] = []

    def look(piece: object) -> None:
        held.extend(cache.positions(sequence) for sequence in engine._scheduler.running)

    [prompt] = random_prompts(tokenizer.vocab_size, (120,))
    engine.submit(prompt, GREEDY, look).result(30)
    assert held
    for number, positions in enumerate(held[:-1]):
        assert positions == sorted(set(positions))
        assert len(positions) <= (32 + 16 if number else 32 + 40)  # the last chunk of the prompt forgets after it
        newest = 120 + number
        assert set(range(newest - 15, newest)) <= set(positions)
    assert held[-2][0] < 100  # something old was kept


def test_what_does_not_go_together_is_refused(decoder: Decoder, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="do not go together"):
        EngineSettings(kv_dtype="int8", retention="window:8")
    with pytest.raises(ValueError, match="retention"):
        EngineSettings(retention="window:0")
    with pytest.raises(UserError, match="the cache is quantised or forgets"):
        Engine(decoder, tokenizer, EngineSettings(kv_dtype="int4", kernels="compiled"))
