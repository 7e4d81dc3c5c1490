"""Tool calls: rendered, forced, read back, streamed; thinking; forms."""

import dataclasses
import json
from collections.abc import Iterator

import jsonschema
import pytest
from openai import BadRequestError, OpenAI
from scripted_engine import ScriptedEngine

from caslon.server.calls_read import CallArguments, CallBegins, CallReader, NotACall, TextCalls
from caslon.server.run import running_server
from caslon.server.settings import ServerSettings
from caslon.tokenizer.tokenizer import Tokenizer

ASK = [{"role": "user", "content": "Weather in Rome?"}]
PLACE = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Asks the sky", "parameters": PLACE}}
TIME = {"type": "function", "function": {"name": "time", "parameters": {"type": "object", "properties": {}}}}
CALL = '<|tool_call|>{"name": "weather", "arguments": {"city": "R\\u00f6m \\"x\\"", "days": 3}}<|/tool_call|>'
SECOND = '<|tool_call|>{"name": "time", "arguments": {}}<|/tool_call|>'


@pytest.fixture
def scripted(tokenizer: Tokenizer) -> ScriptedEngine:
    return ScriptedEngine(tokenizer)


@pytest.fixture
def talk(scripted: ScriptedEngine) -> Iterator[OpenAI]:
    with running_server(scripted, "fox", ServerSettings(page=False)) as url:
        yield OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=20)


def ask(talk: OpenAI, **fields):
    return talk.chat.completions.create(**{"model": "fox", "messages": ASK, "tools": [WEATHER, TIME], **fields})


@pytest.mark.promise("server", "Tool calls come back with ids and arguments as JSON text, one or several")
def test_calls_come_back(talk: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = "Let me see." + CALL + SECOND
    [choice] = ask(talk).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    first, second = choice.message.tool_calls
    assert (first.function.name, json.loads(first.function.arguments)) == ("weather", {"city": 'Röm "x"', "days": 3})
    assert (second.function.name, second.function.arguments) == ("time", "{}")
    assert first.id != second.id
    prompt = scripted.tokenizer.decode(scripted.seen[-1][0])
    assert '"description": "Asks the sky"' in prompt


def test_the_whole_round_trip(talk: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = CALL
    message = ask(talk).choices[0].message
    scripted.script = "Sunny."
    reply = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sun"}
    answer = ask(talk, messages=[*ASK, message, reply])
    assert answer.choices[0].message.content == "Sunny."
    assert answer.choices[0].finish_reason == "stop"
    prompt = scripted.tokenizer.decode(scripted.seen[-1][0])
    assert f"<|tool|>{message.tool_calls[0].id}\nsun<|end|>" in prompt
    assert '"city": "Röm \\"x\\""' in prompt


def test_streamed_calls_add_up(talk: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = "Hm." + CALL + SECOND
    whole = ask(talk).choices[0].message
    text, calls, reasons = "", {}, []
    for chunk in ask(talk, stream=True):
        [choice] = chunk.choices
        text += choice.delta.content or ""
        reasons.append(choice.finish_reason)
        for delta in choice.delta.tool_calls or ():
            call = calls.setdefault(delta.index, {"id": delta.id, "name": delta.function.name, "arguments": []})
            call["arguments"].append(delta.function.arguments)
    assert text == "Hm."
    assert reasons[-1] == "tool_calls"
    assert [(call["name"], "".join(call["arguments"])) for call in calls.values()] == [
        (call.function.name, call.function.arguments) for call in whole.tool_calls
    ]
    assert all(call["id"].startswith("call_") for call in calls.values())
    assert len(calls[0]["arguments"]) > 2  # piece by piece


def test_tool_choice(talk: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = "no"
    ask(talk, tool_choice="none")
    assert "Asks the sky" not in scripted.tokenizer.decode(scripted.seen[-1][0])
    named = {"type": "function", "function": {"name": "time"}}
    scripted.script = SECOND
    assert ask(talk, tool_choice=named).choices[0].message.tool_calls[0].function.name == "time"
    assert "weather" not in scripted.forms[-1].text
    for choice, words in (({"type": "function", "function": {"name": "tme"}}, "weather, time"), ("required", "needs")):
        with pytest.raises(BadRequestError, match=words):
            ask(talk, tool_choice=choice, **({"tools": None} if choice == "required" else {}))


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([*ASK, {"role": "tool", "content": "sun"}], "tool_call_id"),
        ([*ASK, {"role": "tool", "content": "sun", "tool_call_id": "x"}], "without its call"),
        ([{"role": "user", "content": None}], "content"),
        (
            [*ASK, {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[1"}}]}],
            "JSON text of an object",
        ),
    ],
)
def test_broken_conversations_are_refused(talk: OpenAI, messages: list, words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        ask(talk, messages=messages)


def test_a_call_that_is_none_is_text(talk: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = "<|tool_call|>weather(Rome)<|/tool_call|>"
    [choice] = ask(talk).choices
    assert (choice.message.content, choice.finish_reason) == ("weather(Rome)", "stop")


@pytest.mark.promise("server", "Thinking arrives as reasoning_content, is counted, and can be hidden")
def test_thinking_is_told_apart(talk: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = "<|think|>fox, dog?<|/think|>dog"
    plain = {"tools": None}
    answer = ask(talk, **plain)
    message = answer.choices[0].message
    assert (message.content, message.reasoning_content) == ("dog", "fox, dog?")
    assert answer.usage.completion_tokens_details.reasoning_tokens == len(scripted.tokenizer.encode("fox, dog?")) + 2
    hidden = ask(talk, **plain, extra_body={"thinking": "hidden"})
    assert not hasattr(hidden.choices[0].message, "reasoning_content")
    assert hidden.usage.completion_tokens_details.reasoning_tokens > 2
    deltas = [chunk.choices[0].delta for chunk in ask(talk, **plain, stream=True)]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "fox, dog?"
    assert "".join(delta.content or "" for delta in deltas) == "dog"


def test_effort_and_budget_reach_the_engine(talk: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = "x"
    for effort, tokens in (("none", 0), ("low", 256), ("medium", 1024)):
        ask(talk, tools=None, reasoning_effort=effort)
        params = scripted.seen[-1][1]
        assert params.thinking_budget == tokens
        assert len(scripted.seen[-1][0]) + params.total_tokens == scripted.model_context
    ask(talk, tools=None, reasoning_effort="high")
    assert 256 < scripted.seen[-1][1].thinking_budget < 2000  # half the room: an effort is a wish
    ask(talk, tools=None, extra_body={"thinking_budget": 7}, max_tokens=5)
    assert scripted.seen[-1][1].total_tokens == 14


def test_thinking_without_marks_is_refused(scripted: ScriptedEngine, talk: OpenAI) -> None:
    text = scripted.tokenizer.tokenizer_json.replace("<|think|>", "<|thank|>")
    scripted.tokenizer = dataclasses.replace(
        scripted.tokenizer, tokenizer_json=text, chat_template="{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(BadRequestError, match="no marks of thinking"):
        ask(talk, tools=None, reasoning_effort="low")
    with pytest.raises(BadRequestError, match="no place for tools"):
        ask(talk)


FORM = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": PLACE}}


def test_forms_reach_the_engine(talk: OpenAI, scripted: ScriptedEngine) -> None:
    scripted.script = '{"city": "Rome", "days": 1}'
    answer = ask(talk, tools=None, response_format=FORM)
    assert json.loads(answer.choices[0].message.content)["city"] == "Rome"
    assert scripted.held[-1][0].may_end  # the grammar followed what was written
    with pytest.raises(BadRequestError) as refused:
        ask(
            talk,
            tools=None,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}},
        )
    assert (refused.value.code, refused.value.param) == ("invalid_schema", "response_format")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        ('{"name": "f", "arguments": {"a": [1, "}"]}}', "arguments", [("f", '{"a": [1, "}"]}')]),
        ('\n{"name":"f","arguments":{}, "id": "x}"}\n', "arguments", [("f", "{}")]),
        (
            '[{"name": "f", "arguments": {}}, {"name": "g", "arguments": {"x": 1}}]',
            "arguments",
            [("f", "{}"), ("g", '{"x": 1}')],
        ),
        ('{"arguments": {"x": 1}, "name": "f"}', "arguments", [("f", '{"x": 1}')]),
        ('{"name": "f", "parameters": {"x": "\\"{"}}', "parameters", [("f", '{"x": "\\"{"}')]),
        ('{"name": "f", "arguments": 3}', "arguments", [("f", "3")]),
        ("no call", "arguments", ["no call"]),
        ('{"a": 1}', "arguments", ['{"a": 1}']),
        ("  \n ", "arguments", []),
    ],
)
def test_calls_are_read_however_they_are_cut(text: str, key: str, size: int, expected: list) -> None:
    reader = CallReader(key)
    events = [event for at in range(0, len(text), size) for event in reader.push(text[at : at + size])]
    events += reader.finish()
    found: list = []
    for event in events:
        if isinstance(event, CallBegins):
            found.append((event.name, ""))
        elif isinstance(event, CallArguments):
            found[-1] = (found[-1][0], found[-1][1] + event.text)
        else:
            assert isinstance(event, NotACall)
            found.append(event.text)
    assert found == expected


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("marks", "text", "expected"),
    [
        (
            ("<call>", "</call>"),
            "Hi <cat> <call>{1}</call> and <call>{2}",
            [(False, "Hi <cat> "), (True, "{1}"), (False, " and "), (True, "{2}")],
        ),
        (("", ""), ' {"name": 1}', [(True, ' {"name": 1}')]),
        (("", ""), " Hello {", [(False, " Hello {")]),
    ],
)
def test_calls_in_running_text(marks: tuple, text: str, size: int, expected: list) -> None:
    reader = TextCalls(*marks)
    parts = [part for at in range(0, len(text), size) for part in reader.push(text[at : at + size])]
    joined: list = []
    for inside, part in [*parts, *reader.finish()]:
        if joined and joined[-1][0] == inside:
            joined[-1] = (inside, joined[-1][1] + part)
        elif part:
            joined.append((inside, part))
    assert joined == expected


@pytest.fixture
def foreign(scripted: ScriptedEngine, talk: OpenAI):
    def use(mark: str) -> None:
        template = (
            "{% if tools %}"
            + mark
            + "{{ tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
        )
        scripted.tokenizer = dataclasses.replace(scripted.tokenizer, chat_template=template)

    return use


@pytest.mark.parametrize(
    ("mark", "script"),
    [
        ("<tool_call>", 'Hm.<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'),
        ("[TOOL_CALLS]", 'Hm.[TOOL_CALLS][{"name": "time", "arguments": {}}]'),
        ("<|python_tag|>", '{"name": "time", "parameters": {}}'),
    ],
)
def test_calls_in_foreign_templates(talk: OpenAI, scripted: ScriptedEngine, foreign, mark: str, script: str) -> None:
    foreign(mark)
    scripted.script = script
    [choice] = ask(talk).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.name == "time"
    assert choice.message.tool_calls[0].function.arguments == "{}"
    scripted.script = script.removeprefix("Hm.")
    forced = ask(talk, tool_choice="required").choices[0]
    assert forced.message.tool_calls[0].function.name == "time"
    assert scripted.held[-1][0].may_end


def test_forced_calls_from_a_model_that_knows_nothing(tiny_engine) -> None:
    with running_server(tiny_engine, "tiny", ServerSettings(page=False)) as url:
        talk = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
        for seed in range(4):
            fields = {"model": "tiny", "max_tokens": 150, "seed": seed, "temperature": 1, "tool_choice": "required"}
            [choice] = ask(talk, **fields, parallel_tool_calls=seed % 2 == 0).choices
            if choice.finish_reason == "length":
                continue
            assert choice.finish_reason == "tool_calls"
            for call in choice.message.tool_calls:
                schema = PLACE if call.function.name == "weather" else {"type": "object"}
                jsonschema.validate(json.loads(call.function.arguments), schema)
            assert seed % 2 == 0 or len(choice.message.tool_calls) == 1
