"""The sampler against the published example, transformers' processors, and its own promises."""

from collections import Counter
from typing import Any

import pytest
import torch
from engine_cases import OnlyTheseInTurn
from hypothesis import given, settings
from hypothesis import strategies as st

from caslon.engine.request import SamplingParams, Sequence
from caslon.engine.sampler import NO_ALLOWED_TOKEN, NOT_FINITE, allowed, changed, sample, token_logprobs

WORDS = ("woman", "man", "boy", "girl", "king", "child")
LOGITS = torch.tensor([0.35, 0.26, 0.13, 0.11, 0.08, 0.07]).log()


def sequence(prompt: tuple[int, ...] = (0,), output: tuple[int, ...] = (), **fields: Any) -> Sequence:
    params = SamplingParams(**fields)
    made = Sequence(prompt, params, frozenset(params.stop_token_ids), params.seed or 0)
    for token in output:
        made.append(token)
    return made


def kept(**fields: Any) -> list[str]:
    return [
        WORDS[index] for index in allowed(LOGITS[None], [SamplingParams(**fields)])[0].isfinite().nonzero().flatten()
    ]


@pytest.mark.promise("engine", "top-k, top-p and penalties choose the words of the published example")
def test_the_published_example() -> None:
    assert kept(top_k=3) == ["woman", "man", "boy"]
    assert kept(top_p=0.5) == ["woman", "man"]
    assert kept(top_p=0.3) == ["woman"]
    assert kept(min_p=0.5) == ["woman", "man"]
    assert kept(top_k=-1) == kept(top_k=0) == kept(top_k=6) == kept(top_k=99) == list(WORDS)
    used = changed(LOGITS, sequence(output=(1, *[2] * 100), presence_penalty=0.5))
    assert (LOGITS - used)[1:3].tolist() == pytest.approx([0.5, 0.5])
    greedy = [sequence(temperature=0, seed=seed) for seed in range(20)]
    assert {choice.id for choice in sample(LOGITS.expand(20, -1), greedy)} == {0}


def test_draws_follow_the_distribution() -> None:
    chooser = sequence(seed=7)
    counts = Counter(sample(LOGITS[None], [chooser])[0].id for _ in range(4000))
    chi_square = sum((counts[i] - 4000 * p) ** 2 / (4000 * p) for i, p in enumerate(LOGITS.exp().tolist()))
    assert chi_square < 20.5  # 0.001, five degrees of freedom


@pytest.mark.parametrize("temperature", [1e-5, 1e-20, 1e-45, 5e-324])
def test_the_smallest_temperatures_choose_the_likeliest(temperature: float) -> None:
    assert sample(100 * LOGITS[None], [sequence(temperature=temperature)])[0].id == 0


def test_ties_go_to_the_lowest_id() -> None:
    logits = torch.zeros(2, 50)
    logits[0, [7, 30]] = 3.0
    assert [choice.id for choice in sample(logits, [sequence(temperature=0), sequence(temperature=0)])] == [7, 0]


def test_what_cannot_be_chosen_from_is_reported_and_touches_nobody_else() -> None:
    logits = torch.stack([LOGITS, LOGITS.clone(), LOGITS])
    logits[1, 2] = torch.nan
    blocked = sequence(logit_bias={}, min_tokens=3, stop_token_ids=tuple(range(6)))
    choices = sample(logits, [sequence(temperature=0), sequence(temperature=0), blocked])
    assert [choice.error for choice in choices] == [None, NOT_FINITE, NO_ALLOWED_TOKEN]
    infinite = torch.full((1, 6), torch.inf)
    assert sample(infinite, [sequence()])[0].error == NOT_FINITE


def test_bias_and_min_tokens() -> None:
    assert sample(LOGITS[None], [sequence(temperature=0, logit_bias={5: 100})])[0].id == 5
    assert sample(LOGITS[None], [sequence(temperature=0, min_tokens=1, stop_token_ids=(0,))])[0].id == 1
    assert sample(LOGITS[None], [sequence(output=(3,), temperature=0, min_tokens=1, stop_token_ids=(0,))])[0].id == 0


def test_logprobs_are_of_the_raw_output() -> None:
    choice = sample(LOGITS[None], [sequence(temperature=0, logit_bias={5: 100}, logprobs=2)])[0]
    assert choice.logprob is not None
    assert choice.logprob.id == 5
    assert choice.logprob.logprob == pytest.approx(LOGITS[5].item(), abs=1e-6)
    assert [token for token, _ in choice.logprob.top] == [0, 1]
    assert token_logprobs(LOGITS[None], [3], 0)[0].top == ()


def processors(params: SamplingParams) -> Any:
    logits_process = pytest.importorskip("transformers.generation.logits_process")
    made = logits_process.LogitsProcessorList()
    if params.repetition_penalty != 1:
        made.append(logits_process.RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.no_repeat_ngram_size:
        made.append(logits_process.NoRepeatNGramLogitsProcessor(params.no_repeat_ngram_size))
    if params.temperature != 1:
        made.append(logits_process.TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        made.append(logits_process.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        made.append(logits_process.TopPLogitsWarper(params.top_p))
    if params.min_p:
        made.append(logits_process.MinPLogitsWarper(params.min_p))
    return made


@pytest.mark.promise(
    "engine", "penalties, no-repeat n-gram, temperature, top-k, top-p and min-p give what transformers gives"
)
@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.3},
        {"temperature": 1.7, "top_k": 40},
        {"top_p": 0.9},
        {"min_p": 0.05},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2, "top_k": 20},
        {"no_repeat_ngram_size": 3, "temperature": 0.5},
        {"repetition_penalty": 0.7, "temperature": 0.8, "top_k": 50, "top_p": 0.8, "min_p": 0.02},
    ],
)
def test_equal_to_transformers_processors(fields: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        logits = 4 * torch.randn(500, generator=generator)
        ids = torch.randint(5, (30,), generator=generator).tolist()  # few different ones, so that n-grams repeat
        params = SamplingParams(**fields)
        ours = allowed(changed(logits, sequence(tuple(ids[:10]), tuple(ids[10:]), **fields))[None], [params])[0]
        theirs = processors(params)(torch.tensor([ids]), logits[None])[0]
        assert torch.equal(ours.isinf(), theirs.isinf())
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40),
    st.floats(0.01, 2),
    st.integers(0, 50),
    st.floats(0.001, 1),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_a_drawn_token_is_always_an_allowed_one(
    values: list[float], temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    logits = torch.tensor(values)
    chooser = sequence(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    open_to_choice = allowed(logits[None], [chooser.params])[0].isfinite()
    assert open_to_choice[logits == logits.max()].any()
    assert open_to_choice[sample(logits[None], [chooser])[0].id]


def test_rows_do_not_depend_on_their_neighbours() -> None:
    generator = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(40, 700, generator=generator)
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0},
        {"top_p": 0.7},
        {"top_k": 5, "temperature": 1.5},
        {"min_p": 0.1},
        {"repetition_penalty": 2, "top_p": 0.9, "logprobs": 2},
        {"logit_bias": {3: 5.0}},
        {"presence_penalty": 1.0, "frequency_penalty": 0.5},
    ]
    fields = [{**kinds[row % len(kinds)], "seed": row} for row in range(40)]

    def made(row: int) -> Sequence:
        return sequence((1, 2), (3, 3, row), **fields[row])

    together = sample(logits, [made(row) for row in range(40)])
    assert together == [sample(logits[row : row + 1], [made(row)])[0] for row in range(40)]


def test_a_constraint_decides_before_everything_else() -> None:
    bound = sequence(temperature=0, logit_bias={0: 100})
    bound.constraint = OnlyTheseInTurn([3], end=5)
    assert sample(LOGITS[None], [bound])[0].id == 3
    blocked = sequence(min_tokens=1, stop_token_ids=(3,))
    blocked.constraint = OnlyTheseInTurn([3], end=5)
    assert sample(LOGITS[None], [blocked])[0].error == NO_ALLOWED_TOKEN
