"""Several answers to one prompt, lengths, seeds: what a request is promised whatever else runs."""

import random
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from engine_cases import random_prompts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caslon.engine.branches import best, branches, mean_logprob
from caslon.engine.engine import Engine
from caslon.engine.request import InvalidParameter, SamplingParams
from caslon.tokenizer.tokenizer import Tokenizer

PROMPT = [40, 50, 60, 70]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 21}, "best_of"),
        ({"no_repeat_ngram_size": 17}, "no_repeat_ngram_size"),
        ({"num_beams": 17, "temperature": 0}, "num_beams"),
        ({"num_beams": 2}, "num_beams"),
        ({"num_beams": 2, "temperature": 0, "top_p": 0.5}, "num_beams"),
        ({"num_beams": 2, "temperature": 0, "n": 3}, "n"),
        ({"num_beams": 2, "temperature": 0, "best_of": 3}, "n"),
        ({"num_beams": 2, "temperature": 0, "penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha"),
        ({"num_beams": 2, "temperature": 0, "early_stopping": "never"}, "early_stopping"),
        ({"penalty_alpha": 0.6, "temperature": 0}, "top_k"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "penalty_alpha"),
        ({"penalty_alpha": 1.5, "top_k": 4, "temperature": 0}, "penalty_alpha"),
        ({"penalty_alpha": 0.6, "top_k": 4, "temperature": 0, "n": 2}, "n"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"truncate": True}, "truncate"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        SamplingParams(**fields)
    assert raised.value.field == named


@pytest.mark.promise("engine", "the i-th of n answers is the answer to the same request with seed + i")
def test_n_answers_are_those_of_the_next_seeds(engine: Engine) -> None:
    prompts = [PROMPT, [44, 55]]
    params = SamplingParams(max_tokens=9, seed=11, n=3)
    together = engine.generate(prompts, params)
    alone = [
        engine.generate([prompt], replace(params, n=1, seed=seed))[0] for prompt in prompts for seed in (11, 12, 13)
    ]
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert [one.seed for one in together] == [11, 12, 13] * 2
    with pytest.raises(InvalidParameter, match="branches"):
        engine.submit(PROMPT, params)
    unseeded = engine.generate([PROMPT], SamplingParams(max_tokens=9, n=2))
    assert unseeded[1].seed == unseeded[0].seed + 1


@pytest.mark.promise("engine", "best_of returns the tries with the highest mean log-probability")
def test_best_of_ranks_by_mean_log_probability(engine: Engine) -> None:
    params = SamplingParams(max_tokens=9, seed=5, n=2, best_of=7)
    tries = engine.generate([PROMPT] * 7, [replace(one, logprobs=0) for one in branches(params)])
    means = {one.ids: fmean(entry.logprob for entry in one.logprobs) for one in tries}
    assert len(means) == 7
    answers = engine.generate([PROMPT], params)
    assert [one.ids for one in answers] == sorted(means, key=lambda ids: -means[ids])[:2]
    assert all(one.logprobs == () for one in answers)
    assert all(one.logprobs for one in best(tries, replace(params, logprobs=0)))
    assert mean_logprob(answers[0]) == 0


FIELDS = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 14), "seed": st.integers(0, 2**40), "ignore_eos": st.booleans()},
    optional={
        "temperature": st.floats(0, 2),
        "top_k": st.integers(-1, 30),
        "top_p": st.floats(0.1, 1),
        "min_p": st.floats(0, 0.5),
        "repetition_penalty": st.floats(0.5, 2),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "no_repeat_ngram_size": st.integers(2, 4),
        "stop": st.lists(st.text("aeiou ", min_size=1, max_size=2), max_size=2).map(tuple),
    },
)


@pytest.mark.promise(
    "engine", "an answer never has more than max_tokens tokens, and exactly as many when nothing else ends it"
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(FIELDS, min_size=1, max_size=6))
def test_lengths_are_exact_and_answers_are_their_own(
    engine: Engine, tokenizer: Tokenizer, requests: list[dict[str, Any]]
) -> None:
    lengths = tuple(random.Random(len(requests)).randrange(1, 40) for _ in requests)
    prompts = random_prompts(tokenizer.vocab_size, lengths, seed=len(requests))
    params = [SamplingParams(**fields) for fields in requests]
    for prompt, chosen, completion in zip(prompts, params, engine.generate(prompts, params), strict=True):
        assert len(completion.ids) <= chosen.max_tokens
        assert (completion.finish_reason == "length") == (completion.stop_reason is None)
        if chosen.ignore_eos and not chosen.stop:
            assert (len(completion.ids), completion.finish_reason) == (chosen.max_tokens, "length")
        if not chosen.stop and completion.finish_reason == "length":
            assert completion.text == tokenizer.decode(completion.ids, skip_special_tokens=True)
        streamed = engine.submit(prompt, chosen)
        assert "".join(piece.text for piece in streamed) == completion.text
        assert streamed.result().ids == completion.ids


def test_a_start_token_comes_by_the_rule_or_on_request(engine: Engine, tokenizer: Tokenizer) -> None:
    plain = tokenizer.encode("The fox")
    assert engine.prompt_ids("The fox", add_special_tokens=False) == plain
    assert engine.prompt_ids("The fox", add_special_tokens=True) == [tokenizer.start_of_text_id, *plain]
    params = SamplingParams(max_tokens=3, temperature=0, add_special_tokens=True)
    assert engine.generate(["The fox"], params)[0].prompt_tokens == len(plain) + 1
