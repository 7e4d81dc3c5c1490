"""The texts that ship with the package to a comparison: one text in ten languages, one of each type, and figures."""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

ENGLISH = "English"
DIGIT_SAMPLES = ("1666", "1834", "10l. 5s. 6d.", "3,141.59", "007")
WITHOUT_SPACES = ("Japanese", "Chinese")  # words there are not what spaces part


@dataclass(frozen=True)
class ReferenceTexts:
    """Named texts with their source."""

    title: str
    source: str
    texts: dict[str, str]


@lru_cache(maxsize=1)
def parallel_texts() -> ReferenceTexts:
    """Return Article 1 of the Universal Declaration of Human Rights by language, English first."""
    data = _read("parallel_texts.json")
    return ReferenceTexts(data["title"], data["source"], {row["language"]: row["text"] for row in data["texts"]})


@lru_cache(maxsize=1)
def text_types() -> ReferenceTexts:
    """Return one short text of each type: prose, verse, trial, code, mathematics, table."""
    data = _read("text_types.json")
    return ReferenceTexts("Text types", data["source"], {row["type"]: row["text"] for row in data["texts"]})


def _read(name: str) -> dict[str, Any]:
    text = resources.files("caslon.tokenizer").joinpath(name).read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data
