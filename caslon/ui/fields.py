"""What may be said about how an answer is written: names, kinds and one line of help each. Free of heavy imports.

The command line makes a flag of each, `/set` in the terminal takes the same names, and both are fields of the engine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caslon.errors import UserError


@dataclass(frozen=True)
class Field:
    """A sampling field: how its text is read, what it does, and whether it may be given several times."""

    kind: type
    help: str
    many: bool = False


FIELDS: Mapping[str, Field] = {
    "max_tokens": Field(int, "most new tokens"),
    "min_tokens": Field(int, "least new tokens"),
    "temperature": Field(float, "0 = always the likeliest token"),
    "top_k": Field(int, "sample from the k likeliest tokens; 0 = off"),
    "top_p": Field(float, "sample from the smallest set with this much probability"),
    "min_p": Field(float, "drop tokens below this share of the likeliest one's probability"),
    "repetition_penalty": Field(float, "above 1 makes repeats rarer"),
    "presence_penalty": Field(float, "taken once from tokens already written"),
    "frequency_penalty": Field(float, "taken per earlier use of a token"),
    "no_repeat_ngram_size": Field(int, "no run of so many tokens comes twice; 0 = off"),
    "logit_bias": Field(str, "ID=NUMBER, added to a token's logit", many=True),
    "stop": Field(str, "a text that ends the answer", many=True),
    "stop_token_ids": Field(int, "a token that ends the answer", many=True),
    "include_stop": Field(bool, "keep what ended the answer"),
    "seed": Field(int, "same seed, same answer"),
    "logprobs": Field(int, "log-probabilities of the tokens and so many alternatives (with --json)"),
    "n": Field(int, "answers to each prompt"),
    "best_of": Field(int, "tries of which the n likeliest are kept"),
    "num_beams": Field(int, "search for the likeliest answer with so many beams; wants --temperature 0"),
    "length_penalty": Field(float, "beams: above 0 favours longer answers"),
    "early_stopping": Field(bool, "beams: stop when as many answers as beams are found"),
    "penalty_alpha": Field(
        float, "contrastive search: how much likeness counts, e.g. 0.6 with --top-k 4 --temperature 0"
    ),
    "ignore_eos": Field(bool, "write on after the model's end token"),
    "skip_special_tokens": Field(bool, "leave special tokens out of the text"),
    "add_special_tokens": Field(bool, "begin a prompt with the start token; default: the tokenizer's own rule"),
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "lively": {"max_tokens": 50, "temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.2},
    "careful": {
        "temperature": 0.3,
        "top_p": 0.9,
        "top_k": 20,
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
    },
}


def preset(name: str | None) -> dict[str, Any]:
    """Return the fields of a preset; `UserError` for a name that is none."""
    if name is None:
        return {}
    if name not in PRESETS:
        raise UserError(f"no preset is called '{name}'", where="--preset", fix=f"choose {' or '.join(PRESETS)}")
    return dict(PRESETS[name])


def read_value(name: str, text: str) -> Any:
    """Return a field's value from its text; `UserError` for a text that is none. Several values are split at commas."""
    field = FIELDS[name]
    if name == "logit_bias":
        return read_bias(text.split(","))
    if field.many:
        return [_one(name, part) for part in text.split(",")]
    return _one(name, text)


def read_bias(entries: list[str]) -> dict[int, float]:
    """Return `logit_bias` from texts like 42=-3.5."""
    try:
        return {int(id): float(bias) for id, _, bias in (entry.partition("=") for entry in entries)}
    except ValueError:
        raise UserError(f"{entries} is no list of ID=NUMBER", where="logit_bias", fix="as in 42=-3.5") from None


def _one(name: str, text: str) -> Any:
    kind = FIELDS[name].kind
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        word = "neither true nor false" if kind is bool else f"not a number that {name} can have"
        raise UserError(f"'{text}' is {word}", where=name) from None
