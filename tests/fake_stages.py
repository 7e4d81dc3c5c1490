"""Three small stages that count letters, for tests of the recipe and the runner."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import Field

from caslon import recipe
from caslon.errors import Stopped
from caslon.settings import Settings, side_effect_only
from caslon.stages.stage import PlanContext, PlanRow, StageContext


class CorpusSettings(Settings):
    source: str
    repeat: int = Field(1, ge=1)
    workers: int = Field(1, json_schema_extra=side_effect_only())


class PretrainSettings(Settings):
    steps: int = Field(3, ge=1)
    learning_rate: float = 1e-3
    fail: bool = Field(False, json_schema_extra=side_effect_only())


class FinetuneSettings(Settings):
    word: str = "thou"


class EvaluateSettings(Settings):
    tasks: tuple[str, ...] = ("letters",)


CALLS: list[str] = []


def write_text(context: StageContext) -> dict[str, Any]:
    CALLS.append(context.name)
    text = Path(context.settings.source).read_text() * context.settings.repeat
    (context.folder / "text.txt").write_text(text)
    context.events.progress("reading", len(text), len(text), "characters")
    return {"characters": len(text)}


def write_model(context: StageContext) -> dict[str, Any]:
    CALLS.append(context.name)
    if getattr(context.settings, "fail", False):
        raise Stopped("stopped", fix="again")
    source = next(iter(context.inputs.values()))
    (context.folder / "model").mkdir(exist_ok=True)
    content = {"from": source.digest, "settings": context.settings.output_settings(), "seed": context.seed}
    (context.folder / "model" / "weights.json").write_text(json.dumps(content, sort_keys=True))
    return {"parameters": 3}


def write_scores(context: StageContext) -> dict[str, Any]:
    CALLS.append(context.name)
    (context.folder / "scores.json").write_text("{}")
    return {}


def plan_model(context: PlanContext) -> list[PlanRow]:
    return [PlanRow("steps", context.settings.steps, "", "setting")]


MODULES = {
    "corpus": SimpleNamespace(
        VERSION=1, READS=(), WRITES="text", Settings=CorpusSettings, run=write_text,
        sources=lambda settings, base: [base / settings.source],
    ),
    "pretrain": SimpleNamespace(
        VERSION=1, READS=("text",), WRITES="model", Settings=PretrainSettings, run=write_model, plan=plan_model
    ),
    "finetune": SimpleNamespace(VERSION=1, READS=("model",), WRITES="model", Settings=FinetuneSettings, run=write_model),
    "evaluate": SimpleNamespace(
        VERSION=1, READS=("model", "text"), WRITES="scores", Settings=EvaluateSettings, run=write_scores
    ),
}  # fmt: skip


@contextmanager
def fake_stages(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Put the fake stages in the place of the real ones; yields the list of stages that were called."""
    monkeypatch.setattr(recipe, "available_kinds", lambda: tuple(MODULES))
    monkeypatch.setattr(recipe, "stage_module", MODULES.__getitem__)
    CALLS.clear()
    yield CALLS
