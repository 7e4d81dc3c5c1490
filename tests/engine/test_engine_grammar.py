"""Forms that an answer must have, obeyed by a model that knows nothing."""

import contextlib
import json
import re

import jsonschema
import pytest
import torch

from caslon.engine import form as forms
from caslon.engine.form import AnswerForm, InvalidSchema
from caslon.engine.grammar import MAX_CACHED, Grammars
from caslon.tokenizer.tokenizer import Tokenizer

TOOL = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"enum": ["C", "F"]},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
NESTED = {
    "type": "array",
    "maxItems": 3,
    "items": {"type": "array", "maxItems": 3, "items": {"type": "integer", "minimum": -9, "maximum": 9}},
}
UNICODE = {"type": "string", "pattern": "^[äöü漢字😀]{1,6}$"}
ENUM = {"enum": ["red", 3, None, True, {"a": [1]}]}
BOUNDS = {"type": "integer", "minimum": -17, "maximum": 1234}
SCHEMAS = {"tool": TOOL, "nested": NESTED, "unicode": UNICODE, "enum": ENUM, "bounds": BOUNDS}
MAIL = r"[a-z]{1,8}(\.[a-z]{1,8})?@example\.org"
WORDS = ("The", "quick", "fox", "runs")
TAG = r'TAG: "Noun" | "Verb" | "Adjective" | "Adverb" | ""'
TAGS = "start: " + ' " " '.join(f'"{word}/" TAG' for word in WORDS) + "\n" + TAG


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, tokenizer.stop_ids)


def written(grammars: Grammars, tokenizer: Tokenizer, form: AnswerForm, seed: int, most: int = 400) -> str | None:
    """Return a text of random tokens under the form; None when it was cut."""
    random = torch.Generator().manual_seed(seed)
    constraint = grammars.constraint(form)
    ids: list[int] = []
    while len(ids) < most:
        logits = torch.randn(tokenizer.vocab_size, generator=random)
        constraint.mask(logits)
        token = int(logits.argmax())
        assert logits[token] > -torch.inf
        assert (torch.isfinite(logits[list(tokenizer.stop_ids)])).all() == constraint.may_end
        if token in tokenizer.stop_ids:
            return tokenizer.decode(ids)
        assert token not in tokenizer.special_ids
        constraint.advance(token)
        ids.append(token)
    return None


def texts(grammars: Grammars, tokenizer: Tokenizer, form: AnswerForm, count: int = 50) -> list[str]:
    found = [written(grammars, tokenizer, form, seed) for seed in range(count)]
    whole = [text for text in found if text is not None]
    assert len(whole) >= count * 0.9, "too many were cut to say anything"
    return whole


@pytest.mark.promise("engine", "An answer in a JSON schema is valid, even from a model that knows nothing")
@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_obeyed(grammars: Grammars, tokenizer: Tokenizer, name: str) -> None:
    for text in texts(grammars, tokenizer, forms.json_schema(SCHEMAS[name])):
        jsonschema.validate(json.loads(text), SCHEMAS[name])


def test_regex_choice_and_grammars(grammars: Grammars, tokenizer: Tokenizer) -> None:
    for text in texts(grammars, tokenizer, forms.regex(MAIL)):
        assert re.fullmatch(MAIL, text)
    colours = ["red", "green", 'light "blue"\n']
    assert set(texts(grammars, tokenizer, forms.choice(colours))) == set(colours)
    tagged = " ".join(f"{word}/(Noun|Verb|Adjective|Adverb|)" for word in WORDS)
    for text in texts(grammars, tokenizer, forms.grammar(TAGS)):
        assert re.fullmatch(tagged, text)
    for text in texts(grammars, tokenizer, forms.grammar('root ::= "x" [0-9]+ end\nend ::= "!" | "?"'), 20):
        assert re.fullmatch("x[0-9]+[!?]", text)


def test_any_object(grammars: Grammars, tokenizer: Tokenizer) -> None:
    whole = [text for seed in range(20) if (text := written(grammars, tokenizer, forms.json_object(), seed))]
    assert all(isinstance(json.loads(text), dict) for text in whole)
    constraint = grammars.constraint(forms.json_object())
    logits = torch.zeros(tokenizer.vocab_size)
    constraint.mask(logits)
    allowed = {tokenizer.token_bytes(int(token))[:1] for token in torch.isfinite(logits).nonzero()}
    assert allowed == {b"{"}


def test_rollback_leaves_no_trace(grammars: Grammars, tokenizer: Tokenizer) -> None:
    constraint, other = (grammars.constraint(forms.json_schema(TOOL)) for _ in range(2))
    ids = tokenizer.encode('{"city": "Rome", "days": 3}')
    for token in ids[:4]:
        constraint.advance(token)
        other.advance(token)
    for token in ids[4:]:
        constraint.advance(token)
    assert constraint.may_end
    constraint.rollback(len(ids) - 4)
    masked = [torch.zeros(tokenizer.vocab_size) for _ in range(2)]
    constraint.mask(masked[0])
    other.mask(masked[1])
    assert torch.equal(*masked)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda: forms.json_schema({"type": "object", "unevaluatedProperties": False}), "unevaluatedProperties"),
        (lambda: forms.json_schema({"type": "wizard"}), "wizard"),
        (lambda: forms.json_schema({"$ref": "http://127.0.0.1:9/x.json"}), "does not fetch"),
        (lambda: forms.json_schema({"type": "integer", "minimum": 3, "maximum": 2}), "Unsatisfiable"),
        (lambda: forms.json_schema([1]), "is an object"),
        (lambda: forms.json_schema({"const": "x" * 70_000}), "65,536"),
        (lambda: forms.json_schema(nested(33)), "33 deep"),
        (lambda: forms.regex("(a"), "unclosed"),
        (lambda: forms.regex("a(?=b)"), "look-ahead"),
        (lambda: forms.grammar("start: nothing"), "nothing"),
        (lambda: forms.grammar("root ::= nothing"), "nothing"),
        (lambda: forms.grammar("x: y"), "no first rule"),
        (lambda: forms.choice([]), "1 to"),
    ],
)
def test_what_cannot_be_had_is_said_before_any_token(grammars: Grammars, form, words: str) -> None:
    with pytest.raises(InvalidSchema, match=re.escape(words)):
        grammars.constraint(form())


def nested(levels: int) -> dict:
    schema: dict = {}
    for _ in range(levels - 1):
        schema = {"not": schema}
    return schema


def test_the_last_128_are_kept(tokenizer: Tokenizer) -> None:
    grammars = Grammars(tokenizer, tokenizer.stop_ids)
    for number in range(MAX_CACHED + 9):
        grammars.constraint(forms.regex(f"a{{{number}}}"))
    assert len(grammars._compiled) == MAX_CACHED


@pytest.mark.parametrize("pattern", [r"(\w+\s*){100}{100}", r"\w{1,1000}\p{L}{1,1000}" * 20, "(a*)*b" * 500])
def test_a_monstrous_expression_comes_to_an_end(grammars: Grammars, tokenizer: Tokenizer, pattern: str) -> None:
    with contextlib.suppress(InvalidSchema):
        grammars.constraint(forms.regex(pattern)).mask(torch.zeros(tokenizer.vocab_size))


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_engine_obeys_at_any_temperature(engine, name: str) -> None:
    handles = [
        engine.submit(
            [5, 6, 7],
            engine.params(max_tokens=120, seed=seed, temperature=1.0),
            constraint=engine.constraint(forms.json_schema(SCHEMAS[name])),
        )
        for seed in range(10)
    ]
    for whole in (handle.result(60) for handle in handles):
        assert whole.finish_reason in ("stop", "length")
        if whole.finish_reason == "stop":
            jsonschema.validate(json.loads(whole.text), SCHEMAS[name])


MANY = SCHEMAS | {
    "address": {
        "type": "object",
        "properties": {
            "mail": {"type": "string", "pattern": "^[a-z]{1,8}@example\\.org$"},
            "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
        },
        "required": ["mail", "zip"],
        "additionalProperties": False,
    },
    "either": {"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0, "maximum": 9}, {"type": "null"}]},
    "tree": {
        "type": "object",
        "properties": {
            "left": {
                "type": "object",
                "properties": {"leaf": {"type": "boolean"}},
                "required": ["leaf"],
                "additionalProperties": False,
            },
            "right": {"$ref": "#/properties/left"},
        },
        "required": ["left", "right"],
        "additionalProperties": False,
    },
    "tuple": {
        "type": "array",
        "prefixItems": [{"enum": ["a", "b"]}, {"type": "integer", "minimum": 1, "maximum": 3}],
        "items": False,
        "minItems": 2,
        "maxItems": 2,
    },
    "date": {"type": "string", "format": "date"},
    "number": {"type": "number", "minimum": -1, "maximum": 1},
    "optional": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"const": 7}, "c": {"enum": ["x"]}},
        "additionalProperties": False,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MANY)
def test_a_thousand_answers_of_each_schema(decoder, tokenizer: Tokenizer, name: str) -> None:
    from caslon.engine.engine import Engine
    from caslon.engine.settings import EngineSettings

    with Engine(decoder, tokenizer, EngineSettings(max_running=64, max_step_tokens=512)) as engine:
        form = forms.json_schema(MANY[name])
        handles = [
            engine.submit(
                [5], engine.params(max_tokens=150, seed=seed, temperature=1.0), constraint=engine.constraint(form)
            )
            for seed in range(1000)
        ]
        answers = [handle.result(600) for handle in handles]
    whole = [answer for answer in answers if answer.finish_reason != "length"]
    assert {answer.finish_reason for answer in whole} <= {"stop"}
    assert len(whole) > 600
    for answer in whole:
        jsonschema.validate(json.loads(answer.text), MANY[name])
