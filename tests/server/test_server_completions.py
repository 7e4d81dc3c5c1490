import pytest
from openai import BadRequestError, OpenAI


def test_text_usage_and_ids(client: OpenAI, engine) -> None:
    answer = client.completions.create(model="fox", prompt="hello", max_tokens=5)
    assert answer.choices[0].text == engine.tokenizer.decode(engine.tokenizer.encode(ANSWER)[:5])
    assert answer.choices[0].finish_reason == "length"
    assert answer.object == "text_completion"
    assert answer.usage.prompt_tokens == len(engine.tokenizer.encode("hello"))
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5
    assert answer.usage.prompt_tokens_details.cached_tokens == 3


def test_sixteen_tokens_unless_asked(client: OpenAI) -> None:
    assert client.completions.create(model="fox", prompt="x").usage.completion_tokens == 16


@pytest.mark.parametrize("prompt", ["the fox", ["the fox"], [289, 315], [[289, 315]]])
def test_every_form_of_prompt(client: OpenAI, engine, prompt) -> None:
    client.completions.create(model="fox", prompt=prompt, max_tokens=1)
    assert engine.seen[-1][0] == engine.tokenizer.encode("the fox") == [289, 315]


def test_prompts_times_answers_in_order(client: OpenAI) -> None:
    answer = client.completions.create(model="fox", prompt=["a", "b"], n=2, seed=7, max_tokens=4, echo=True)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text[:4] for choice in answer.choices] == ["a[7]", "a[8]", "b[7]", "b[8]"]
    assert answer.usage.prompt_tokens == 2
    assert answer.usage.completion_tokens == 16


def test_empty_prompt_is_the_start_of_a_document(client: OpenAI, engine) -> None:
    answer = client.completions.create(model="fox", prompt="", max_tokens=1, echo=True)
    assert engine.seen[-1][0] == [engine.tokenizer.end_of_text_id]
    assert answer.choices[0].text == "T"


def test_logprobs_of_prompt_and_answer(client: OpenAI, engine) -> None:
    answer = client.completions.create(model="fox", prompt="the fox", max_tokens=6, logprobs=1, echo=True)
    logprobs = answer.choices[0].logprobs
    assert logprobs.tokens[:3] == ["the", " fox", "T"]
    assert logprobs.token_logprobs[:3] == [None, -2.0, -0.5]
    assert logprobs.top_logprobs[2] == {"T": -0.5, "B": -1.5}
    text = answer.choices[0].text
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert text[offset:].startswith(token)


def test_zero_new_tokens_scores_the_prompt(client: OpenAI) -> None:
    answer = client.completions.create(model="fox", prompt="the fox", max_tokens=0, logprobs=0, echo=True)
    assert answer.choices[0].text == "the fox"
    assert answer.choices[0].logprobs.token_logprobs == [None, -2.0]
    assert answer.usage.completion_tokens == 0


def test_stop_strings_reach_the_engine(client: OpenAI) -> None:
    answer = client.completions.create(model="fox", prompt="x", max_tokens=60, stop=["lazy", "never"])
    assert answer.choices[0].text == "The quick brown fox — ünïcode 🦊 jumps over the "
    assert answer.choices[0].finish_reason == "stop"


def test_request_wins_over_the_folders_defaults(client: OpenAI, engine) -> None:
    client.completions.create(model="fox", prompt="x")
    assert engine.seen[-1][1].temperature == 0.7
    client.completions.create(
        model="fox", prompt="x", temperature=0, top_p=0.5, logit_bias={"65": 3}, extra_body={"top_k": 4, "min_p": 0.1}
    )
    params = engine.seen[-1][1]
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (0, 0.5, 4, 0.1)
    assert params.logit_bias == {65: 3}


def test_stream_adds_up_to_the_whole(client: OpenAI) -> None:
    fields = {"model": "fox", "prompt": ["a", "b"], "max_tokens": 30, "seed": 3, "n": 2, "echo": True}
    whole = client.completions.create(**fields)
    texts = [""] * 4
    reasons = [None] * 4
    for chunk in client.completions.create(**fields, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert reasons == ["length"] * 4


def test_streamed_logprobs_and_usage_equal_the_whole(client: OpenAI) -> None:
    fields = {"model": "fox", "prompt": "x", "max_tokens": 25, "logprobs": 1}
    whole = client.completions.create(**fields)
    chunks = list(client.completions.create(**fields, stream=True, stream_options={"include_usage": True}))
    parts = [choice.logprobs for chunk in chunks for choice in chunk.choices if choice.logprobs]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [value for part in parts for value in getattr(part, name)]
        assert joined == getattr(whole.choices[0].logprobs, name)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_too_long_a_prompt_is_refused_with_the_numbers(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.completions.create(model="fox", prompt="z" * 190, max_tokens=20)
    assert refused.value.code == "context_length_exceeded"
    assert all(number in str(refused.value) for number in ("190", "20", "200"))


def test_no_answer_is_started_when_one_prompt_does_not_fit(client: OpenAI, engine) -> None:
    with pytest.raises(BadRequestError):
        client.completions.create(model="fox", prompt=["x", "z" * 300], max_tokens=20)
    assert client.completions.create(model="fox", prompt="x", max_tokens=2).usage.completion_tokens == 2
    assert engine.finished == ["length"]


ANSWER = "The quick brown fox — ünïcode 🦊 jumps over the lazy dog. "
