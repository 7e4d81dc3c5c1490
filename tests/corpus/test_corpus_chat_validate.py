import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from made_documents import prose

from caslon.corpus.chat.forms import import_rows, row_of
from caslon.corpus.chat.masking import masked_rows
from caslon.corpus.chat.record import Rejected, Row, first_question
from caslon.corpus.chat.speech_acts import CLASSES, METHOD, speech_act
from caslon.corpus.chat.split import split_rows
from caslon.corpus.chat.statistics import statistics
from caslon.corpus.chat.validate import EvaluationItems, Rules, row_problem, validate
from caslon.corpus.settings import PrivacySettings
from caslon.errors import UserError
from caslon.train.conversations import row_problem as training_problem

USER, ANSWER = {"role": "user", "content": "Will it rain?"}, {"role": "assistant", "content": "It will."}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "London"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
WITHOUT_ID = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "a", "arguments": "{}"}}]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "rain"}


def calling(name: str, arguments: str) -> dict[str, Any]:
    return {**CALLING, "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}


def row(*messages: Any) -> Row:
    return row_of({"messages": list(messages)}, "openai")


def numbered(rows: list[Row]) -> list[tuple[int, Row]]:
    return list(enumerate(rows, start=1))


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([USER, ANSWER], None),
        ([{"role": "system", "content": "Be brief."}, USER, CALLING, RESULT, ANSWER], None),
        ([USER, WITHOUT_ID, {"role": "tool", "content": "x"}, ANSWER], None),
        ([], "'messages' is missing or empty"),
        ([{"role": "robot", "content": "x"}, ANSWER], "messages[0]: the unknown role 'robot'"),
        ([{"content": "x"}, ANSWER], "messages[0]: the unknown role None"),
        ([{"role": ["user"], "content": "x"}, ANSWER], "messages[0]: the unknown role ['user']"),
        ([{"role": "user", "content": " \n"}, ANSWER], "messages[0]: the user message is empty"),
        ([{"role": "user"}, ANSWER], "messages[0]: the user message is empty"),
        ([{"role": "user", "content": 5}, ANSWER], "messages[0]: the content is no text"),
        ([USER], "there is no assistant turn to learn from"),
        ([USER, {**ANSWER, "weight": 0}], "there is no assistant turn to learn from"),
        ([USER, USER, ANSWER], "messages[1]: two user turns in a row"),
        ([USER, RESULT, ANSWER], "messages[1]: a tool result without its call 'c1'"),
        ([USER, {"role": "tool", "content": "x"}, ANSWER], "messages[1]: a tool result without its call"),
        ([USER, CALLING, {**RESULT, "tool_call_id": "c2"}, ANSWER], "messages[2]: a tool result without its call 'c2'"),
        ([{**USER, "tool_calls": [CALL]}, ANSWER], "messages[0]: a user message with tool calls"),
        ([USER, calling("a", "{broken"), ANSWER], "messages[1]: the arguments of a tool call are not JSON"),
        ([USER, calling("a", "[1]"), ANSWER], "messages[1]: the arguments of a tool call are no JSON object"),
        ([USER, calling("", "{}"), ANSWER], "messages[1]: a tool call without a function's name"),
        ([USER, {**CALLING, "tool_calls": ["x"]}, ANSWER], "messages[1]: a tool call without function and arguments"),
    ],
)  # fmt: skip
def test_every_rule_of_form(messages: list[Any], problem: str | None) -> None:
    found = row_problem(row(*messages))
    assert found == problem or (problem is not None and found is not None and found.startswith(problem))
    if problem is None:
        assert training_problem(row(*messages)) is None


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, None),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
        ({"prompt": "a", "chosen": " ", "rejected": "b"}, "chosen[1]: the assistant message is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": [USER]}, "rejected[1]: two user turns in a row"),
        ({"prompt": [USER, ANSWER], "chosen": [USER], "rejected": "b"}, "chosen: there is no assistant turn to learn from"),
    ],
)  # fmt: skip
def test_every_rule_of_preferences(record: dict[str, Any], problem: str | None) -> None:
    assert row_problem(row_of(record)) == problem


def test_user_turns_in_a_row_are_merged_when_asked() -> None:
    given = row(USER, {"role": "user", "content": "Tomorrow?"}, ANSWER)
    found = validate(numbered([given]), Rules(merge_turns=True))
    assert found.merged_turns == 1
    assert found.rows[0]["messages"][0]["content"] == "Will it rain?\n\nTomorrow?"
    assert validate(numbered([given]), Rules()).rejected == (
        Rejected(1, "messages[1]: two user turns in a row", given["id"]),
    )
    assert given["messages"][0]["content"] == "Will it rain?"


def made(question: str, answer: str) -> Row:
    return row_of({"prompt": question, "completion": answer})


def test_copies_are_named_with_the_row_they_copy() -> None:
    text = prose(1)
    rows = [
        made("Tell me.", text), made("tell me!", text.upper()), made("Tell me.", text.replace("river", "brook", 1)),
        made("Something else?", prose(2)), row({"role": "system", "content": "Rhyme."}, *made("Tell me.", prose(3))["messages"]),
        row({"role": "system", "content": "Do not rhyme."}, *made("Tell me.", prose(3))["messages"]),
    ]  # fmt: skip
    found = validate(numbered(rows), Rules())
    assert [one.row for one in found.rejected] == [2, 3, 6]
    assert found.rejected[0].reason == "the same as row 1"
    assert found.rejected[1].reason.endswith("% like row 1")
    assert found.rejected[2].reason == "100% like row 5"


def test_over_long_rows_are_rejected_in_the_unit_asked_for() -> None:
    rows = [made("a", "b" * 50), made("a", "b" * 10)]
    assert [one.reason for one in validate(numbered(rows), Rules(maximum=20)).rejected] == [
        "53 characters, more than 20"
    ]
    words = Rules(maximum=1, unit="tokens", length=lambda row: len(row["messages"]))
    assert validate(numbered(rows), words).rejected[0].reason == "2 tokens, more than 1"


def test_rows_of_evaluation_sets_are_rejected(tmp_path: Path) -> None:
    long = prose(4, paragraphs=1)
    (tmp_path / "items.jsonl").write_text(
        json.dumps({"q": "What is the capital of France?", "passage": long}), encoding="utf-8"
    )
    items = EvaluationItems.load([tmp_path / "items.jsonl"])
    rows = [
        made("What is the capital of France", "Paris."), made("Summarise: " + " ".join(long.split()[3:30]), "Short."),
        made("What is the capital of Spain?", "Madrid."), made("Yes", "No"),
    ]  # fmt: skip
    found = validate(numbered(rows), Rules(evaluation=items))
    assert [one.row for one in found.rejected] == [1, 2]
    assert "is an item of" in found.rejected[0].reason
    assert "13 words stand in" in found.rejected[1].reason


def test_one_question_and_one_conversation_never_stand_in_two_splits() -> None:
    rows = [made(f"Question {number % 60}?", f"Answer {number}.") for number in range(300)]
    for number in range(40):
        rows.append({**made(f"Other {number}", "x"), "extra": {"conversation": f"c{number // 10}"}})
    divided = split_rows(rows, (0.8, 0.1, 0.1), seed=3)
    assert sum(map(len, divided.values())) == len(rows)
    for value in (first_question, lambda row: row["extra"].get("conversation")):
        seen = [{value(row) for row in part} - {None} for part in divided.values()]  # type: ignore[no-untyped-call]
        assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert divided == split_rows(rows, (0.8, 0.1, 0.1), seed=3)
    before = {row["id"]: name for name, part in divided.items() for row in part}
    more = split_rows([*rows, made("A new question?", "y")], (0.8, 0.1, 0.1), seed=3)
    assert all(before[row["id"]] == name for name, part in more.items() for row in part if row["id"] in before)
    with pytest.raises(UserError, match="2 groups"):
        split_rows(rows[:2], (0.8, 0.1, 0.1), seed=3)


@pytest.mark.parametrize(
    ("text", "act"),
    [
        ("Good morning, Sir!", "greeting"), ("Thank you very much.", "thanks"), ("I am very sorry for that.", "apology"),
        ("I'll look at it tomorrow.", "promise"), ("Where is it?", "question"), ("It is there, isn't it?", "question"),
        ("Could you open the window?", "request"), ("Please, write a poem.", "request"), ("Describe a river", "request"),
        ("The river is deep.", "statement"), ("", "statement"), ("Well, hello there", "greeting"),
        ("How many are there", "question"),
    ],
)  # fmt: skip
def test_speech_acts_by_rules(text: str, act: str) -> None:
    assert speech_act(text) == act
    assert len(CLASSES) == 7


def test_statistics_count_what_is_there() -> None:
    rows = [
        row({"role": "system", "content": "Be brief."}, USER, CALLING, RESULT, ANSWER, USER, ANSWER),
        made("Hello", "Hi, dear friend."),
    ]
    figures = statistics(rows, speech_acts=True)
    assert (figures["rows"], figures["with_system"], figures["with_tools"]) == (2, 1, 1)
    assert figures["messages"] == {"assistant": 4, "system": 1, "tool": 1, "user": 3}
    assert figures["user_turns"] == {"count": 2, "sum": 3, "mean": 1.5, "median": 1, "p95": 2, "maximum": 2}
    assert figures["characters"]["tool"]["sum"] == 4
    assert figures["languages"] == {"en": 1, "unknown": 1}
    assert figures["speech_acts"]["method"] == METHOD
    assert figures["speech_acts"]["user"] == {**dict.fromkeys(CLASSES, 0), "greeting": 1, "question": 2}
    assert statistics([])["user_turns"] == {}


def test_personal_data_gets_the_same_placeholder_throughout_a_row() -> None:
    rows = [
        row_of(
            {
                "instruction": "Write to",
                "input": "anne@example.org",
                "output": "Dear anne@example.org, and bob@example.org",
            }
        ),
        made("My key is ghp_" + "a1B2" * 9, "Never tell."),
    ]
    counts: Counter[str] = Counter()
    masked, rejected = masked_rows(rows, PrivacySettings(), counts)
    assert isinstance(masked, dict) and isinstance(rejected, Rejected)
    assert masked["messages"][1]["content"] == "Dear [EMAIL_1], and [EMAIL_2]"
    assert "example" not in json.dumps(masked)
    assert (rejected.row, rejected.reason) == (2, "it holds 1 secret")
    assert counts["secret"] == 1


def test_real_sets_are_good_but_for_copies(real_data: Path) -> None:
    path = real_data / "instruct" / "llama_factory" / "glaive_toolcall_en_demo.json.gz"
    rows = [item for item in import_rows(path) if isinstance(item, dict)]
    found = validate(numbered(rows), Rules())
    assert len(found.rows) > 200
    assert all("row " in one.reason for one in found.rejected)
    assert {training_problem(kept) for kept in found.rows} == {None}


KEYS = st.sampled_from(("role", "content", "tool_calls", "function", "arguments", "x"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(("messages", "prompt", "chosen", "rejected", "tools")), JSON, max_size=4))
@hypothesis_settings(deadline=None)
def test_no_row_makes_a_rule_fail(record: dict[str, Any]) -> None:
    problem = row_problem(record)
    assert problem is None or isinstance(problem, str)
