"""Speculation changes how fast an answer comes, never what it says."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import OnlyTheseInTurn, gib_for, make_decoder, preempt_often, random_prompts

from caslon.engine.engine import Engine
from caslon.engine.request import Completion, SamplingParams, Sequence
from caslon.engine.settings import EngineSettings
from caslon.engine.speculate import NgramDrafter, Speculator
from caslon.errors import UserError
from caslon.model.config import DecoderConfig
from caslon.model.decoder import Decoder
from caslon.model.folder import save_model_folder
from caslon.tokenizer.tokenizer import Tokenizer
from caslon.tokenizer.train import train_tokenizer

KINDS = ("ngram", "draft")


@pytest.fixture(scope="module")
def draft_folder(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says what the served one says, most of the time."""
    folder = tmp_path_factory.mktemp("draft")
    decoder = make_decoder("qwen3", tokenizer.vocab_size)
    with torch.no_grad():
        decoder.lm_head.weight.add_(0.2 * torch.randn(decoder.lm_head.weight.shape, generator=torch.Generator()))
    save_model_folder(folder, decoder, tokenizer, sidecar={})
    return folder


def speculate(kind: str, folder: Path) -> str:
    return "ngram" if kind == "ngram" else f"draft:{folder}"


def repeating(tokenizer: Tokenizer) -> list[list[int]]:
    """Return prompts; the first ones repeat themselves, so that there is something to look up."""
    return [part * 5 for part in random_prompts(tokenizer.vocab_size, (3, 7, 11), seed=1)] + random_prompts(
        tokenizer.vocab_size, (1, 20, 60), seed=2
    )


def said(completions: list[Completion]) -> list[tuple[Any, ...]]:
    return [(one.ids, one.text, one.finish_reason, one.stop_reason, one.logprobs) for one in completions]


FIELDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0, "ignore_eos": True},
    "sampled": {"temperature": 0.15, "seed": 3},
    "penalties": {"temperature": 0, "repetition_penalty": 1.3, "frequency_penalty": 0.2, "no_repeat_ngram_size": 4},
    "narrow": {"top_k": 2, "seed": 8, "logprobs": 2},
    "stops": {"temperature": 0, "stop": ("a", "e", "\n"), "min_tokens": 3},
}


@pytest.mark.promise("engine", "an answer is the same with and without speculation, greedy or drawn with a seed")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_answers_are_the_same(
    engine_with: Callable[..., Engine], tokenizer: Tokenizer, draft_folder: Path, kind: str, fields: dict[str, Any]
) -> None:
    prompts = repeating(tokenizer)
    params = SamplingParams(max_tokens=30, **fields)
    expected = said(engine_with().generate(prompts, params))
    engine = engine_with(speculate=speculate(kind, draft_folder), max_running=4, max_step_tokens=40)
    for _warmth in ("cold", "warm"):
        completions = engine.generate(prompts, params)
        assert said(completions) == expected
    stats = engine.stats()
    if kind == "draft" or fields.get("ignore_eos"):  # a random model repeats itself only where nothing hinders it
        assert stats.speculation.accepted > 0
    assert stats.speculation.accepted <= stats.speculation.drafted
    assert stats.blocks_used == 0
    assert sum(stats.speculation.accepted_at.values()) == stats.speculation.accepted
    assert all(0 <= share <= 1 for share in stats.speculation.acceptance_by_place())
    assert sum(len(one.guessed) for one in completions) <= stats.speculation.accepted
    if fields.get("ignore_eos"):
        assert stats.steps < 2 * 30 * len(prompts)


@pytest.mark.parametrize("kind", KINDS)
def test_under_pressure_and_with_a_constraint(
    engine_with: Callable[..., Engine], decoder: Decoder, tokenizer: Tokenizer, draft_folder: Path, kind: str
) -> None:
    prompts = repeating(tokenizer)
    params = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)
    expected = said(engine_with().generate(prompts, params))
    chosen = speculate(kind, draft_folder)
    engine = engine_with(speculate=chosen, kv_memory_gib=gib_for(decoder, 112), block_tokens=8, prefix_cache=False)
    preempt_often(engine, every=5)
    assert said(engine.generate(prompts, params)) == expected
    assert engine.stats().preemptions > 0
    words = tokenizer.encode("the lazy dog the lazy dog the lazy dog")
    constraint = OnlyTheseInTurn(words, end=None)
    handle = engine.submit([40, 50], SamplingParams(max_tokens=60, ignore_eos=True), constraint=constraint)
    assert handle.result(60).ids == tuple(words)
    assert constraint.seen == words


def test_guessed_tokens_are_marked(engine_with: Callable[..., Engine], tokenizer: Tokenizer) -> None:
    engine = engine_with(speculate="ngram")
    prompt = repeating(tokenizer)[0]
    bias = dict.fromkeys(prompt[:1], 60.0)
    params = SamplingParams(max_tokens=20, temperature=0, logit_bias=bias, ignore_eos=True)
    completion = engine.generate([prompt], params)[0]
    assert set(completion.ids) == set(prompt[:1])
    assert completion.guessed
    assert list(completion.guessed) == sorted(set(completion.guessed))
    assert max(completion.guessed) < len(completion.ids)
    assert engine.stats().steps < 20


@pytest.mark.promise("engine", "sampled answers keep the model's distribution under speculation")
@pytest.mark.parametrize("rounds", [1_500, pytest.param(20_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_draws_keep_the_distribution(kind: str, rounds: int, tmp_path: Path) -> None:
    """Draw the second and third token of an answer over 16 tokens, guessed or not, and compare with what they should be."""
    tokenizer = train_tokenizer(["ab"], vocab_size=300)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    decoders = []
    for seed in (1, 2):
        decoder = Decoder(
            DecoderConfig(family="llama", vocab_size=tokenizer.vocab_size, max_position_embeddings=32, **shape)
        )
        decoder.initialise(seed)
        with torch.no_grad():
            for parameter in decoder.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(8)
        decoders.append(decoder.eval())
    save_model_folder(tmp_path, decoders[1], tokenizer, sidecar={})
    only = dict.fromkeys(range(16, tokenizer.vocab_size), -100.0)
    prompt = [3, 5, 3, 5, 3, 5, 3]
    with Engine(decoders[0], tokenizer, EngineSettings(speculate=speculate(kind, tmp_path), max_running=64)) as engine:
        params = [SamplingParams(max_tokens=3, seed=seed, ignore_eos=True, logit_bias=only) for seed in range(rounds)]
        completions = engine.generate([prompt] * rounds, params)
        assert engine.stats().speculation.drafted > rounds / 3
    with torch.inference_mode():
        pairs = torch.tensor([[*prompt, first] for first in range(16)])
        hidden = decoders[0](pairs)
        first = decoders[0].logits(hidden[0, -2])[:16].softmax(-1)
        second = decoders[0].logits(hidden[:, -1])[:, :16].softmax(-1)
    shares = (first[:, None] * second).flatten()
    counts = Counter(one.ids[0] * 16 + one.ids[1] for one in completions)
    seen = torch.tensor([counts[cell] for cell in range(256)], dtype=torch.float64)
    expected = shares.double() * rounds
    common = expected >= 5
    pooled = torch.cat([expected[common], expected[~common].sum()[None]])
    found = torch.cat([seen[common], seen[~common].sum()[None]])
    chi_square = float(((found - pooled) ** 2 / pooled).sum())
    freedom = len(pooled) - 1
    # the 0.999 quantile of chi-square, by Wilson and Hilferty
    assert chi_square < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3


def test_lookup_finds_what_followed_the_longest_run() -> None:
    drafter = NgramDrafter()
    params = SamplingParams(max_tokens=50)

    def draft(ids: list[int]) -> tuple[int, ...]:
        return drafter.draft([Sequence(tuple(ids), params, frozenset(), 0)])[0]

    assert draft([1, 2, 3, 9, 8, 7, 6, 5, 1, 2, 3]) == (9, 8, 7, 6, 5)
    assert draft([4, 3, 9, 1, 3, 8, 4, 3]) == (9, 1, 3)  # two tokens say more than one
    assert draft([7, 7]) == (7,)
    assert draft([7, 7, 7, 7]) == (7, 7, 7, 7, 7)
    assert draft([1, 2, 1, 2, 1]) == (2, 1, 2, 1, 2)
    assert draft([1, 2, 3]) == ()
    growing = Sequence((1, 2, 3), params, frozenset(), 0)
    for token in (1, 2, 4, 1, 2):
        growing.append(token)
        drafter.draft([growing])
    assert drafter.draft([growing])[0] == (4, 1, 2)


def test_speculation_stops_where_it_fails() -> None:
    speculator = Speculator(NgramDrafter())
    sequence = Sequence((7,) * 4, SamplingParams(max_tokens=500), frozenset(), 0)
    sequence.computed = 3
    for checked in range(13):
        speculator.propose([sequence])
        assert (len(sequence.guesses) == 5) == (checked < 13)
        speculator.record(sequence, 5, 1)
    speculator.propose([sequence])
    assert sequence.guesses == ()
    assert speculator.counts.turned_off == 1
    assert speculator.counts.acceptance_by_place() == [1, 0, 0, 0, 0]
    assert (speculator.counts.drafted, speculator.counts.accepted, speculator.counts.emitted) == (65, 13, 26)
    nearly_done = Sequence((7,) * 4, SamplingParams(max_tokens=3), frozenset(), 0)
    nearly_done.computed = 3
    speculator.propose([nearly_done])
    assert len(nearly_done.guesses) == 2


def test_a_draft_with_another_tokenizer_is_refused(
    engine_with: Callable[..., Engine], decoder: Decoder, tmp_path: Path
) -> None:
    other = train_tokenizer(["something else entirely"], vocab_size=300)
    save_model_folder(tmp_path, make_decoder("llama", other.vocab_size), other, sidecar={})
    with pytest.raises(UserError, match=other.digest[:12]):
        engine_with(speculate=f"draft:{tmp_path}")
