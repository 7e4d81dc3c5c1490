import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from made_documents import sentence

from caslon.corpus.chat.forms import FORMS, export_rows, form_of, import_rows, record_of, row_of
from caslon.corpus.chat.record import LAYOUT, Rejected, Row, UnfitError, read_records, said
from caslon.corpus.chat.slack import persona_rows, read_export
from caslon.errors import UserError
from caslon.train.conversations import row_problem as training_problem

ROWS = 1000
Random = random.Random
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def _text(numbers: Random) -> str:
    extra = numbers.choice(
        (
            "",
            "\n\n- a list\n- of things",
            " é ſ 漢字 😀",
            ' "quoted" \\ slash',
            "\n###Response:\nno heading",
            "\t<b>&amp;</b>",
        )
    )
    return sentence(numbers) + extra


def _alpaca(numbers: Random) -> dict[str, Any]:
    record: dict[str, Any] = {
        "instruction": _text(numbers),
        "input": numbers.choice(("", _text(numbers))),
        "output": _text(numbers),
    }
    if numbers.random() < 0.2:
        del record["input"]
    if numbers.random() < 0.3:
        record["system"] = numbers.choice(("", None, _text(numbers)))
    if numbers.random() < 0.3:
        record["history"] = [[_text(numbers), _text(numbers)] for _ in range(numbers.randrange(3))]
    return record


def _sharegpt(numbers: Random) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    for _ in range(numbers.randrange(1, 4)):
        turns.append({"from": numbers.choice(("human", "user")), "value": _text(numbers)})
        if numbers.random() < 0.3:
            arguments = {"name": "weather", "arguments": {"city": "London", "days": numbers.randrange(5)}}
            turns.append({"from": "function_call", "value": json.dumps(arguments, indent=numbers.choice((None, 1)))})
            turns.append({"from": numbers.choice(("observation", "tool")), "value": '{"rain": true}'})
        turns.append(
            {"from": numbers.choice(("gpt", "assistant")), "value": _text(numbers), "weight": numbers.choice((0, 1))}
        )
    record: dict[str, Any] = {"conversations": turns}
    if numbers.random() < 0.3:
        turns.insert(0, {"from": "system", "value": _text(numbers)})
    elif numbers.random() < 0.3:
        record["system"] = numbers.choice(("", _text(numbers)))
    if numbers.random() < 0.4:
        record["tools"] = numbers.choice((json.dumps([TOOL["function"]]), [TOOL], json.dumps([TOOL]), "", []))
    return record


def _openai(numbers: Random) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    if numbers.random() < 0.4:
        messages.append({"role": numbers.choice(("system", "developer")), "content": _text(numbers)})
    for _ in range(numbers.randrange(1, 4)):
        text = _text(numbers)
        messages.append(
            {"role": "user", "content": numbers.choice((text, [{"type": "text", "text": text}])), "name": "ann"}
        )
        kind = numbers.randrange(4)
        if kind == 0:
            call: dict[str, Any] = {
                "id": "call_x",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"a": 1}'},
            }
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": "call_x", "content": "rain"})
        elif kind == 1:
            messages.append(
                {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}}
            )
            messages.append({"role": "function", "name": "weather", "content": "rain"})
        elif kind == 2:
            object_call = {"function": {"name": "weather", "arguments": {"a": [1, 2.5, None]}}}
            messages.append({"role": "assistant", "content": "", "tool_calls": [object_call]})
            messages.append({"role": "tool", "content": "rain"})
        messages.append(
            {"role": "assistant", "content": _text(numbers), "refusal": None, "loss_weight": numbers.choice((0.0, 1.0))}
        )
    return {"messages": messages, "tools": [TOOL]} if numbers.random() < 0.5 else {"messages": messages}


def _completion(numbers: Random) -> dict[str, Any]:
    if numbers.random() < 0.5:
        return {"prompt": _text(numbers), "completion": _text(numbers)}
    messages = _openai(numbers)["messages"]
    border = numbers.randrange(len(messages) + 1)
    return {"prompt": messages[:border], "completion": messages[border:]}


def _preference(numbers: Random) -> dict[str, Any]:
    good, bad = _text(numbers), _text(numbers)
    answers = [{"role": "assistant", "content": text} for text in (good, bad)]
    question = {"role": "user", "content": _text(numbers)}
    forms: tuple[dict[str, Any], ...] = (
        {"prompt": _text(numbers), "chosen": good, "rejected": bad},
        {"prompt": [question], "chosen": answers[:1], "rejected": answers[1:]},
        {"prompt": [question], "chosen": answers[0], "rejected": answers[1]},
        {"chosen": [question, answers[0]], "rejected": [question, answers[1]]},
        {**_sharegpt(numbers), "chosen": {"from": "gpt", "value": good}, "rejected": {"from": "gpt", "value": bad}},
        {"instruction": _text(numbers), "input": _text(numbers), "chosen": good, "rejected": bad},
    )
    return numbers.choice(forms)


MADE: dict[str, Callable[[Random], dict[str, Any]]] = {
    "alpaca": _alpaca, "sharegpt": _sharegpt, "openai": _openai, "completion": _completion, "preference": _preference,
}  # fmt: skip


def records(form: str) -> list[dict[str, Any]]:
    numbers = Random(form)
    made = []
    for number in range(ROWS):
        record = MADE[form](numbers)
        if numbers.random() < 0.5:
            record |= {
                "id": numbers.choice((f"row-{number}", number, None)),
                "label": True,
                "meta": {"stars": 4.5, "tags": []},
            }
        made.append(record)
    return made


def good(items: Any) -> list[Row]:
    rows = list(items)
    assert not [item for item in rows if isinstance(item, Rejected)]
    return rows


@pytest.mark.parametrize(("form", "ending"), [*((form, "jsonl") for form in MADE), ("alpaca", "json")])
def test_a_thousand_rows_come_back_equal(tmp_path: Path, form: str, ending: str) -> None:
    made = records(form)
    path, back, canonical = tmp_path / "in.jsonl", tmp_path / f"out.{ending}", tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in made), encoding="utf-8")
    rows = good(import_rows(path))
    assert len(rows) == ROWS
    assert export_rows(rows, canonical, "canonical").rows == ROWS
    again = good(import_rows(canonical))
    assert again == rows
    exported = export_rows(again, back, form)
    assert (exported.rows, exported.left_out, exported.lost_fields.total()) == (ROWS, [], 0)
    found = [record for _, record in read_records(back)]
    assert json.dumps(found, sort_keys=True) == json.dumps(made, sort_keys=True)


def test_a_thousand_rows_come_back_equal_in_the_text_form(tmp_path: Path) -> None:
    made = [{key: record.get(key) or "" for key in ("instruction", "input", "output")} for record in records("alpaca")]
    rows = [row_of(record, "alpaca") for record in made]
    path = tmp_path / "rows.txt"
    assert export_rows(rows, path, "text").rows == ROWS
    assert path.read_text(encoding="utf-8").startswith("###Instruction\n")
    assert [said(row) for row in good(import_rows(path, "text"))] == [said(row) for row in rows]
    assert [record_of(row, "alpaca") for row in good(import_rows(path, "text"))] == made


def test_a_thousand_rows_come_back_equal_through_slack(tmp_path: Path) -> None:
    numbers = Random(9)
    rows = [row_of({"prompt": _text(numbers).strip(), "completion": _text(numbers).strip()}) for _ in range(ROWS)]
    path = tmp_path / "export.zip"
    assert export_rows(rows, path, "slack").rows == ROWS
    back = list(persona_rows(read_export(path, ["user", "assistant"]), "assistant"))
    assert [said(row) for row in back] == [said(row) for row in rows]


@pytest.mark.parametrize("form", ["sharegpt", "openai"])
def test_plain_conversations_pass_through_every_form(form: str) -> None:
    for record in records("alpaca"):
        row = row_of(record)
        there = row_of(record_of(row, form), form)
        assert said(there) == said(row)
        assert said(row_of(record_of(there, "alpaca"), "alpaca")) == said(row)


def test_what_a_form_cannot_hold_is_named(tmp_path: Path) -> None:
    rows = [
        row_of(
            {"messages": [{"role": "user", "content": "Hi", "name": "ann"}, {"role": "assistant", "content": "Ho"}]}
        ),
        row_of({"messages": [{"role": "user", "content": "Hi"}, {"role": "user", "content": "You?"}]}),
        row_of({"prompt": "Hi", "chosen": "Ho", "rejected": "No"}),
    ]
    done = export_rows(rows, tmp_path / "out.jsonl", "alpaca")
    assert (done.rows, dict(done.lost_fields)) == (1, {"name": 1})
    assert [one.row for one in done.left_out] == [2, 3]
    assert "question and answer in turn" in done.left_out[0].reason
    clash = row_of(
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "input": "mine"}
    )
    with pytest.raises(UnfitError, match="input"):
        record_of(clash, "alpaca")


def test_a_changed_row_is_written_as_it_now_is() -> None:
    row = row_of({"instruction": "Add", "input": "1 and 2", "output": "3"})
    assert LAYOUT in row["extra"]
    row["messages"][1]["content"] = "three"
    assert record_of(row, "alpaca") == {
        "instruction": "Add\n\n1 and 2",
        "input": "",
        "output": "three",
        "id": row["id"],
    }


@pytest.mark.parametrize(
    ("record", "form"),
    [
        ({"instruction": "a", "output": "b"}, "alpaca"), ({"conversations": []}, "sharegpt"), ({"messages": []}, "openai"),
        ({"prompt": "a", "completion": "b"}, "completion"), ({"conversations": [], "chosen": {}, "rejected": {}}, "preference"),
    ],
)  # fmt: skip
def test_the_form_is_told_by_the_fields(record: dict[str, Any], form: str) -> None:
    assert form_of(record).name == form


def test_bad_records_are_rejected_by_row_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    lines = [
        '{"prompt": "a", "completion": "b"}',
        "{broken",
        "[1]",
        '{"text": "x"}',
        '{"prompt": 1, "completion": "b"}',
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    found = list(import_rows(path, licence="CC0-1.0"))
    assert [(item.row, item.reason.split(":")[0].split(";")[0]) for item in found if isinstance(item, Rejected)] == [
        (2, "not JSON"), (3, "a row must be a JSON object"), (4, "of no known form"),
        (5, "'prompt' and 'completion' must both be texts or both be lists of messages"),
    ]  # fmt: skip
    (row,) = (item for item in found if not isinstance(item, Rejected))
    assert (row["source"], row["licence"]) == ("rows.jsonl.gz", "CC0-1.0")
    with pytest.raises(UserError, match="cannot read"):
        list(import_rows(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="xml"):
        list(import_rows(path, "xml"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), st.sampled_from(sorted(FORMS)))
@hypothesis_settings(deadline=None)
def test_any_unknown_fields_come_back_and_any_record_is_a_row_or_unfit(fields: dict[str, Any], form: str) -> None:
    record = {**fields, **MADE[form](Random(repr(sorted(fields))))}
    if LAYOUT not in fields and form_of(record).name == form and not set(FORMS[form].fields) & fields.keys():
        assert record_of(row_of(record, form), form) == record
    for known in FORMS[form].fields:
        broken = {**record, known: next(iter(fields.values()), None)}
        try:
            row = row_of(broken, form)
        except UnfitError:
            continue
        assert record_of(row, form) == broken


@pytest.mark.parametrize(
    "name",
    ["alpaca_en_demo.json", "dpo_en_demo.json", "glaive_toolcall_en_demo.json", "identity.json", "kto_en_demo.json",
     "reason_tool_use_demo_50.jsonl", "v1_sft_demo.jsonl"],
)  # fmt: skip
def test_real_sets_come_back_equal_and_can_be_trained_on(real_data: Path, name: str) -> None:
    path = real_data / "instruct" / "llama_factory" / f"{name}.gz"
    originals = [record for _, record in read_records(path)]
    rows = good(import_rows(path))
    assert [record_of(row, form_of(original).name) for row, original in zip(rows, originals, strict=True)] == originals
    assert {training_problem(row) for row in rows if "messages" in row} <= {None}
