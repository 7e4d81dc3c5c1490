"""The official clients of OpenAI and Anthropic against a running server, unchanged but for the address."""

import json
from collections.abc import Iterator

import anthropic
import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field
from scripted_engine import ScriptedEngine

from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.tokenizer.tokenizer import Tokenizer

ASK = [{"role": "user", "content": "Weather in Rome?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
THOUGHT = "<|think|>sun?<|/think|>"
CALL = '<|tool_call|>{"name": "weather", "arguments": {"city": "Rome"}}<|/tool_call|>'


@pytest.fixture
def scripted(tokenizer: Tokenizer) -> ScriptedEngine:
    return ScriptedEngine(tokenizer)


@pytest.fixture
def address(scripted: ScriptedEngine) -> Iterator[str]:
    with running_server(scripted, "fox", ServerSettings(page=False, request_timings=True)) as url:
        yield url


@pytest.fixture
def oai(address: str) -> OpenAI:
    return OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=20)


@pytest.fixture
def claude(address: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=address, api_key="none", max_retries=0, timeout=20)


class Town(BaseModel):
    name: str = Field(max_length=8)
    people: int = Field(ge=0, le=99)


@pytest.mark.promise(
    "server", "OpenAI's Python client works unchanged: chat, streams, tools, parsed schemas, embeddings"
)
def test_parse_with_a_real_model(tiny_engine) -> None:
    with running_server(tiny_engine, "tiny", ServerSettings(page=False)) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
        parsed = client.chat.completions.parse(
            model="tiny", messages=ASK, response_format=Town, max_tokens=200, temperature=1, seed=1
        )
        assert isinstance(parsed.choices[0].message.parsed, Town)
        vectors = client.embeddings.create(model="tiny", input=["the fox", "a dog", ""])
        assert [round(sum(x * x for x in item.embedding), 3) for item in vectors.data] == [1, 1, 1]
        assert vectors.usage.prompt_tokens == vectors.usage.total_tokens > 3
        raw = client.embeddings.create(model="tiny", input="the fox", encoding_format="float").data[0].embedding
        assert raw == pytest.approx(vectors.data[0].embedding, abs=1e-6)  # the client asks for base64 by itself
        short = client.embeddings.create(model="tiny", input=[1, 2, 3], dimensions=4, extra_body={"pooling": "last"})
        assert sum(x * x for x in short.data[0].embedding) == pytest.approx(1, abs=1e-5)
        for wrong in ({"input": []}, {"input": [[]]}, {"input": ["x"] * 2049}, {"input": "x", "dimensions": 9999}):
            with pytest.raises(openai.BadRequestError):
                client.embeddings.create(model="tiny", **wrong)


def test_response_whole_and_streamed(oai: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = THOUGHT + "Sunny."
    fields = {"model": "fox", "input": "Weather?", "instructions": "Be brief.", "metadata": {"a": "b"}}
    whole = oai.responses.create(**fields)
    assert (whole.output_text, whole.status, whole.object) == ("Sunny.", "completed", "response")
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    assert whole.output[0].content[0].text == "sun?"
    assert whole.usage.output_tokens_details.reasoning_tokens > 0
    assert "Be brief." in scripted.tokenizer.decode(scripted.seen[-1][0])
    events = list(oai.responses.create(**fields, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Sunny."
    assert "".join(event.delta for event in events if event.type == "response.reasoning_text.delta") == "sun?"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "Sunny."
    with oai.responses.stream(**fields) as stream:
        assert stream.get_final_response().output_text == "Sunny."


def test_response_with_tools_and_forms(oai: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = "Hm." + CALL
    tool = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
    first = oai.responses.create(model="fox", input=ASK, tools=[tool])
    call = first.output[1]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Rome"})
    scripted.script = "Sunny."
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    history = [*ASK, *(item.model_dump(exclude_none=True) for item in first.output), result]
    assert oai.responses.create(model="fox", input=history, tools=[tool]).output_text == "Sunny."
    assert f"<|tool|>{call.call_id}\nsun" in scripted.tokenizer.decode(scripted.seen[-1][0])
    scripted.script = "Hm." + CALL
    events = list(oai.responses.create(model="fox", input=ASK, tools=[tool], stream=True))
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert json.loads("".join(deltas)) == {"city": "Rome"}
    scripted.script = '{"city": "Rome"}'
    form = {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}}
    answer = oai.responses.create(model="fox", input="x", text=form)
    assert json.loads(answer.output_text) == {"city": "Rome"}
    assert answer.text.format.name == "place"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"previous_response_id": "resp_1"}, "unsupported_parameter"),
        ({"store": True}, "unsupported_parameter"),
        ({"truncation": "auto"}, "invalid_parameter"),
        ({"input": []}, "invalid_parameter"),
        ({"input": [{"type": "image_generation_call"}]}, "unsupported_content"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "unsupported_content"),
        ({"input": "word " * 5000}, "context_length_exceeded"),
    ],
)
def test_what_responses_refuse(oai: OpenAI, scripted: ScriptedEngine, fields: dict, code: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        oai.responses.create(**{"model": "fox", "input": "x", **fields})
    assert refused.value.code == code


@pytest.mark.promise("server", "Anthropic's Python client works unchanged: messages, streams, tools, thinking")
def test_message_whole_and_streamed(claude: anthropic.Anthropic, scripted: ScriptedEngine) -> None:
    scripted.script = THOUGHT + "Sunny."
    fields = {"model": "fox", "max_tokens": 300, "messages": ASK, "system": "Be brief."}
    whole = claude.messages.create(**fields, thinking={"type": "enabled", "budget_tokens": 100})
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert (whole.content[0].thinking, whole.content[1].text, whole.stop_reason) == ("sun?", "Sunny.", "end_turn")
    assert scripted.seen[-1][1].thinking_budget == 100
    assert scripted.seen[-1][1].total_tokens == 300
    with claude.messages.stream(**fields) as stream:
        assert "".join(stream.text_stream) == "Sunny."
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.usage.output_tokens == whole.usage.output_tokens
    scripted.script = "Sunny. END here"
    stopped = claude.messages.create(**fields, stop_sequences=["END"])
    assert (stopped.content[0].text, stopped.stop_reason, stopped.stop_sequence) == ("Sunny. ", "stop_sequence", "END")
    assert claude.messages.count_tokens(model="fox", messages=ASK).input_tokens > 5


def test_message_tools_round_trip(claude: anthropic.Anthropic, scripted: ScriptedEngine) -> None:
    scripted.script = "Hm." + CALL
    tools = [{"name": "weather", "description": "asks the sky", "input_schema": SCHEMA}]
    fields = {"model": "fox", "max_tokens": 300, "tools": tools}
    first = claude.messages.create(**fields, messages=ASK)
    assert first.stop_reason == "tool_use"
    text, use = first.content
    assert (text.text, use.name, use.input) == ("Hm.", "weather", {"city": "Rome"})
    with claude.messages.stream(**fields, messages=ASK) as stream:
        assert stream.get_final_message().content[1].input == {"city": "Rome"}
    scripted.script = "Sunny."
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "sun"}]}
    turns = [*ASK, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    assert claude.messages.create(**fields, messages=turns).content[0].text == "Sunny."
    assert f"<|tool|>{use.id}\nsun" in scripted.tokenizer.decode(scripted.seen[-1][0])
    scripted.script = CALL
    forced = claude.messages.create(**fields, messages=ASK, tool_choice={"type": "tool", "name": "weather"})
    assert forced.content[0].input == {"city": "Rome"}


def test_message_errors_have_anthropics_shape(claude: anthropic.Anthropic, address: str) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        claude.messages.create(model="wolf", max_tokens=5, messages=ASK)
    assert missing.value.body["error"]["type"] == "not_found_error"
    for wrong in ({"max_tokens": 0}, {"messages": [*ASK, {"role": "assistant", "content": "Su"}]}):
        with pytest.raises(anthropic.BadRequestError):
            claude.messages.create(**{"model": "fox", "max_tokens": 5, "messages": ASK, **wrong})
    body = httpx.post(f"{address}/v1/messages", json={"max_token": 5}).json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert "max_tokens" in body["error"]["message"]


# What Open WebUI sends, as recorded: the model list, a streamed chat with its own settings, a title in the background.
OPEN_WEBUI = [
    {"stream": True, "model": "fox", "messages": ASK, "stream_options": {"include_usage": True}},
    {
        "stream": True,
        "model": "fox",
        "messages": [{"role": "system", "content": "x"}, *ASK],
        "temperature": 0.7,
        "max_tokens": 50,
        "top_p": 0.9,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.1,
        "seed": 3,
        "stop": ["END"],
        "logit_bias": {"65": 1},
        "reasoning_effort": "low",
    },
    {"model": "fox", "messages": ASK, "stream": False, "max_completion_tokens": 50},
]


def test_open_webui(address: str, scripted: ScriptedEngine) -> None:
    scripted.script = THOUGHT + "Sunny."
    assert httpx.get(f"{address}/v1/models", headers={"authorization": "Bearer x"}).json()["data"][0]["id"] == "fox"
    for body in OPEN_WEBUI:
        answer = httpx.post(f"{address}/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        said = {"content": "", "reasoning_content": ""}
        for line in answer.text.splitlines():
            chunk = (
                json.loads(line.removeprefix("data: ")) if line.strip() and "[DONE]" not in line else {"choices": []}
            )
            for choice in chunk["choices"]:
                part = choice["delta"] if "delta" in choice else choice["message"]
                said = {name: text + (part.get(name) or "") for name, text in said.items()}
        assert said == {"content": "Sunny.", "reasoning_content": "sun?"}


def test_plain_text(address: str, scripted: ScriptedEngine) -> None:
    scripted.script = "Zwölf Boxkämpfer"
    streamed = httpx.post(f"{address}/generate", json={"prompt": "x", "max_tokens": 90})
    assert streamed.text == "Zwölf Boxkämpfer"
    assert streamed.headers["content-type"] == "text/plain; charset=utf-8"
    whole = httpx.post(f"{address}/generate", json={"prompt": "x", "max_tokens": 90, "stream": False}).json()
    assert (whole["text"], whole["prompt"], whole["finish_reason"]) == ("Zwölf Boxkämpfer", "x", "stop")
    refused = httpx.post(f"{address}/generate", json={"prompt": "x", "max_length": 20})
    assert refused.status_code == 400
    assert "max_tokens" in refused.json()["error"]["message"]


def test_times_are_added_where_asked_for(oai: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = "Sunny."
    answer = oai.chat.completions.create(model="fox", messages=ASK)
    assert set(answer.timings[0]) == {
        "queue_seconds",
        "time_to_first_token_seconds",
        "generation_seconds",
        "tokens_per_second",
    }


def test_template_as_the_model_sees_it(address: str, scripted: ScriptedEngine) -> None:
    body = {"messages": [*ASK, {"role": "assistant", "content": "a", "reasoning_content": "b"}]}
    answer = httpx.post(f"{address}/apply-template", json=body).json()
    expected = "<|startoftext|><|user|>Weather in Rome?<|end|><|assistant|><|think|>b<|/think|>a<|end|><|assistant|>"
    assert answer["prompt"] == expected
    assert answer["count"] == len(answer["tokens"])


def test_gap_and_best_of(oai: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = ["a longer text", "x", "yes or no"]
    best = oai.completions.create(model="fox", prompt="p", best_of=3, n=2, max_tokens=60)
    assert [choice.text for choice in best.choices] == ["x", "yes or no"]  # by mean log-probability
    assert best.usage.completion_tokens == sum(len(scripted.tokenizer.encode(text)) + 1 for text in scripted.script)
    scripted.script = "middle"
    oai.completions.create(model="fox", prompt="before", suffix="after")
    spelled = scripted.tokenizer.decode(scripted.seen[-1][0])
    assert spelled == "<|fim_prefix|>before<|fim_suffix|>after<|fim_middle|>"
