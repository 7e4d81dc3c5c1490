"""The names of objectives to what each needs and how it is made: the one place that knows them all. Imports no torch.

A new objective is a class of its own (see `objectives/objective.py`) and one `register` of its name; nothing else changes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from caslon.errors import UserError
from caslon.settings import Settings, checked, nearest
from caslon.tokenizer import special
from caslon.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

    from caslon.train.objectives import Objective

Architecture = Literal["decoder", "encoder", "encoder-decoder"]


@dataclass(frozen=True)
class Material:
    """What an objective may be made from beside its own options."""

    tokenizer: Tokenizer
    context: int
    seed: int
    device: "torch.device"
    chunk_tokens: int | None = None  # tokens whose logits exist at once
    z_loss: float = 0.0


@dataclass(frozen=True)
class ObjectiveKind:
    """An objective before it is made."""

    name: str
    needs: Architecture
    why: str  # it needs that: a clause that goes on after its name
    options: type[Settings]
    make: Callable[[Any, Material], "Objective"]  # options, material
    learns_from: Literal["text", "conversations"] = "text"


class NoOptions(Settings):
    """The options of an objective that has none."""


class MaskingOptions(Settings):
    """What `mlm` hides."""

    share: float = Field(0.15, gt=0, lt=1, description="of the tokens that are hidden")
    whole_words: bool = Field(False, description="hide all tokens of a word or none")
    next_sentence: bool = Field(False, description="also ask whether the second half of a row follows the first")


class SpanOptions(Settings):
    """What `seq2seq` cuts out."""

    share: float = Field(0.15, gt=0, lt=1, description="of the tokens that are cut out")
    mean_span: float = Field(3.0, ge=1, description="tokens of a span on average")


_KINDS: dict[str, ObjectiveKind] = {}


def register(kind: ObjectiveKind) -> None:
    """Make an objective known by its name, which must be new."""
    assert kind.name not in _KINDS, f"there is an objective {kind.name!r}"
    _KINDS[kind.name] = kind


def known_objectives() -> tuple[str, ...]:
    """Return the names of all objectives."""
    return tuple(_KINDS)


def objective_kind(name: str) -> ObjectiveKind:
    """Return an objective by name; `UserError` with the nearest name when there is none."""
    if name not in _KINDS:
        guess = nearest(name, _KINDS)
        hint = f"did you mean '{guess}'? " if guess else ""
        raise UserError(f"there is no objective '{name}'", fix=f"{hint}known: {', '.join(_KINDS)}")
    return _KINDS[name]


def refuse_other_architecture(name: str, family: str, architecture: str) -> None:
    """Raise `UserError` when an objective does not go with a family of models."""
    kind = objective_kind(name)
    if kind.needs != architecture:
        others = [other for other in _KINDS.values() if (other.needs, other.learns_from) == (architecture, "text")]
        fits = ", ".join(f"'{other.name}'" for other in others)
        article = "an" if architecture.startswith("e") else "a"
        raise UserError(
            f"objective '{name}' {kind.why}, and '{family}' is {article} {architecture}",
            fix=f"use {fits} with it, or a family that is {'an' if kind.needs.startswith('e') else 'a'} {kind.needs}",
        )


def objective_options(name: str, given: Mapping[str, Any]) -> Settings:
    """Return an objective's options; `UserError` with all that is wrong with them."""
    return checked(objective_kind(name).options, **given)


def _next_token(options: NoOptions, material: Material) -> "Objective":
    from caslon.train.objectives.next_token import NextToken, byte_counts

    return NextToken(
        chunk_tokens=material.chunk_tokens,
        byte_counts=byte_counts(material.tokenizer, material.device),
        z_loss=material.z_loss,
    )


def _answers(options: NoOptions, material: Material) -> "Objective":
    from caslon.train.objectives.next_token import NextToken

    return NextToken(name="sft", chunk_tokens=material.chunk_tokens, z_loss=material.z_loss)


def _masked(options: MaskingOptions, material: Material) -> "Objective":
    from caslon.train.objectives.masked import MaskedTokens, Vocabulary

    if special.MASK not in material.tokenizer:
        raise UserError(
            f"objective 'mlm' needs a tokenizer with {special.MASK}",
            fix=f'set tokenizer.special_tokens = ["{special.MASK}"]',
        )
    vocabulary = Vocabulary.of(material.tokenizer, special.MASK)
    return MaskedTokens(
        vocabulary,
        material.seed,
        **options.model_dump(),
        chunk_tokens=material.chunk_tokens,
        z_loss=material.z_loss,
    )


def _spans(options: SpanOptions, material: Material) -> "Objective":
    from caslon.train.objectives.spans import SpanCorruption

    tokenizer = material.tokenizer
    marks = (f"{special.SENTINEL_BEGINS}{number}|>" for number in range(tokenizer.vocab_size))
    sentinels = tuple(tokenizer.id_of(mark) for mark in marks if mark in tokenizer)
    objective = SpanCorruption(
        sentinels,
        tokenizer.pad_id,
        material.seed,
        **options.model_dump(),
        chunk_tokens=material.chunk_tokens,
        z_loss=material.z_loss,
    )
    objective.refuse_too_few_sentinels(material.context)
    return objective


register(ObjectiveKind("lm", "decoder", "predicts each token from those before it", NoOptions, _next_token))
register(
    ObjectiveKind(
        "sft", "decoder", "predicts what an assistant says next", NoOptions, _answers, learns_from="conversations"
    )
)
register(ObjectiveKind("mlm", "encoder", "guesses hidden tokens from both sides", MaskingOptions, _masked))
register(
    ObjectiveKind(
        "seq2seq", "encoder-decoder", "reads a text with holes and writes what fills them", SpanOptions, _spans
    )
)
