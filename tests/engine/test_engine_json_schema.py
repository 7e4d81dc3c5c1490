"""Every keyword of JSON Schema that the guide lists is kept to: what breaks it alone cannot be written, what keeps it can."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import torch

from caslon.engine import form as forms
from caslon.engine.form import InvalidSchema
from caslon.engine.grammar import Grammars
from caslon.tokenizer.tokenizer import Tokenizer

GUIDE = Path(__file__).parents[2] / "docs/guide/structured-output.md"
NUMBERS = {"a": {"type": "integer"}, "b": {"type": "integer"}}
# keyword: schema, answers it allows, answers that break this keyword and nothing else
KEYWORDS = {
    "type": ({"type": ["integer", "null"]}, [3, None], ["3", 3.5, True]),
    "properties": ({"properties": NUMBERS, "type": "object"}, [{"a": 1}, {"a": 1, "b": 2}], [{"a": "1"}, {"b": None}]),
    "required": ({"type": "object", "properties": NUMBERS, "required": ["a"]}, [{"a": 1}], [{}, {"b": 2}]),
    "additionalProperties": (
        {"type": "object", "properties": NUMBERS, "additionalProperties": {"type": "boolean"}},
        [{"a": 1, "c": True}],
        [{"a": 1, "c": 2}],
    ),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": False},
        [{}, {"n_1": 3}],
        [{"n_1": "3"}, {"m_1": 3}],
    ),
    "minProperties": ({"type": "object", "minProperties": 1}, [{"a": 1}], [{}]),
    "maxProperties": ({"type": "object", "maxProperties": 1}, [{}, {"a": 1}], [{"a": 1, "b": 2}]),
    "items": ({"type": "array", "items": {"type": "integer"}}, [[], [1, 2]], [["a"], [1, None]]),
    "prefixItems": (
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]},
        [["a", 1], ["a", 1, None]],
        [[1, 1], ["a", "b"]],
    ),
    "minItems": ({"type": "array", "minItems": 2}, [[1, 2], [1, 2, 3]], [[], [1]]),
    "maxItems": ({"type": "array", "maxItems": 2}, [[], [1, 2]], [[1, 2, 3]]),
    "enum": ({"enum": ["red", 3, None, {"a": [1]}]}, ["red", 3, None, {"a": [1]}], ["blue", 4, {"a": [2]}]),
    "const": ({"const": {"a": 7}}, [{"a": 7}], [{"a": 8}, 7]),
    "anyOf": ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, [3, None], ["x", 3.5]),
    "oneOf": ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, [3, "x"], [None, 3.5]),
    "allOf": ({"allOf": [{"type": "integer", "minimum": 2}, {"maximum": 5}]}, [2, 5], [1, 6]),
    "$ref": ({"$ref": "#/$defs/small", "$defs": {"small": {"enum": [1, 2]}}}, [1, 2], [3]),
    "minLength": ({"type": "string", "minLength": 2}, ["ab", "漢字"], ["", "a", "漢"]),
    "maxLength": ({"type": "string", "maxLength": 2}, ["", "漢字"], ["abc", "漢字😀"]),
    "pattern": ({"type": "string", "pattern": "^[a-c]+$"}, ["a", "cab"], ["", "d", "abd"]),
    "minimum": ({"type": "number", "minimum": -1.5}, [-1.5, 7], [-1.6, -20]),
    "maximum": ({"type": "integer", "maximum": 12}, [12, -300], [13, 100]),
    "exclusiveMinimum": ({"type": "integer", "exclusiveMinimum": 3}, [4, 50], [3, 2]),
    "exclusiveMaximum": ({"type": "integer", "exclusiveMaximum": 3}, [2, -50], [3, 4]),
    "multipleOf": ({"type": "integer", "multipleOf": 5}, [0, 15, -5], [3, 16]),
}
FORMATS = {
    "date": (["2024-02-28"], ["2024-13-01", "28.2.2024"]),
    "time": (["12:30:59Z", "12:30:59+01:00"], ["25:00:00Z", "noon"]),
    "date-time": (["2024-02-28T12:30:59Z"], ["2024-02-28", "2024-02-28T25:30:59Z"]),
    "duration": (["P3D", "PT1H30M"], ["3 days", "P"]),
    "email": (["me@example.org"], ["me", "me@", "@example.org"]),
    "hostname": (["www.example.org"], ["-x.org", "a b"]),
    "ipv4": (["127.0.0.1"], ["127.0.0.256", "1.2.3"]),
    "ipv6": (["::1", "2001:db8::8a2e:370:7334"], ["1.2.3.4", "12345::"]),
    "uuid": (["123e4567-e89b-12d3-a456-426614174000"], ["123e4567", "g23e4567-e89b-12d3-a456-426614174000"]),
    "uri": (["https://example.org/a?b=c#d"], ["no uri", "//example.org"]),
}
REFUSED = {
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "string"}, "then": {"minLength": 2}},
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "contains": {"type": "array", "contains": {"type": "integer"}},
    "propertyNames": {"type": "object", "propertyNames": {"maxLength": 2}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "dependentSchemas": {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}},
    "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False},
    "unevaluatedItems": {"type": "array", "unevaluatedItems": False},
    "$dynamicRef": {"$dynamicRef": "#a"},
    "format": {"type": "string", "format": "idn-email"},
}


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, tokenizer.stop_ids)


def can_be_written(grammars: Grammars, tokenizer: Tokenizer, schema: object, answer: object) -> bool:
    constraint = grammars.constraint(forms.json_schema(schema))
    for token in tokenizer.encode(json.dumps(answer, ensure_ascii=False)):
        logits = torch.zeros(tokenizer.vocab_size)
        constraint.mask(logits)
        if logits[token] == -torch.inf:
            return False
        constraint.advance(token)
    return constraint.may_end


def check(grammars: Grammars, tokenizer: Tokenizer, schema: object, kept: list, broken: list) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    for answer in kept:
        assert validator.is_valid(answer), f"the case is wrong: {answer}"
        assert can_be_written(grammars, tokenizer, schema, answer), answer
    for answer in broken:
        assert not can_be_written(grammars, tokenizer, schema, answer), answer


@pytest.mark.promise("engine", "Every JSON Schema keyword that the guide lists is enforced; every other one is refused")
@pytest.mark.parametrize("keyword", KEYWORDS)
def test_keyword_is_kept_to(grammars: Grammars, tokenizer: Tokenizer, keyword: str) -> None:
    schema, kept, broken = KEYWORDS[keyword]
    for answer in broken:
        assert not jsonschema.Draft202012Validator(schema).is_valid(answer), f"the case is wrong: {answer}"
    check(grammars, tokenizer, schema, kept, broken)


@pytest.mark.parametrize("name", FORMATS)
def test_format_is_kept_to(grammars: Grammars, tokenizer: Tokenizer, name: str) -> None:
    check(grammars, tokenizer, {"type": "string", "format": name}, *FORMATS[name])


@pytest.mark.parametrize("keyword", REFUSED)
def test_keyword_is_refused(grammars: Grammars, keyword: str) -> None:
    with pytest.raises(InvalidSchema, match=re.escape(keyword)):
        grammars.constraint(forms.json_schema(REFUSED[keyword]))


def test_parts_of_one_of_must_exclude_each_other(grammars: Grammars, tokenizer: Tokenizer) -> None:
    told_apart = [{"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in "ab"]
    assert can_be_written(grammars, tokenizer, {"oneOf": told_apart}, {"kind": "b"})
    with pytest.raises(InvalidSchema, match="more than one of its parts"):
        grammars.constraint(forms.json_schema({"oneOf": [{"type": "integer"}, {"type": "integer", "minimum": 2}]}))


def test_the_guide_lists_what_is_tested() -> None:
    text = GUIDE.read_text(encoding="utf-8").split("## What is supported")[1].split("\n## ")[0]
    kept, refused = (re.findall(r"`([$\w-]+)`", part) for part in text.split("Expressions")[0].split("Properties are"))
    assert set(kept) == {*KEYWORDS, *FORMATS, "format"}
    assert {"oneOf", "anyOf", *REFUSED} - {"format"} == {*refused} - {"$ref"}
