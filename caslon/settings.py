"""Strict settings: every key has a type, a unit in its name and a meaning; an unknown key is an error with a suggestion."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from caslon.errors import UserError

SomeSettings = TypeVar("SomeSettings", bound="Settings")


class Settings(BaseModel):
    """Base of every settings table. Fields declared with `side_effect_only()` or `known_by_content()` enter no cache key."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, validate_default=True)

    def conflicts(self) -> Iterator["Conflict"]:
        """Yield every pair of keys whose values, each valid alone, do not go together."""
        yield from ()

    @model_validator(mode="after")
    def _no_conflicts(self) -> "Settings":
        if found := list(self.conflicts()):
            raise ConflictsError(found)
        return self

    def output_settings(self) -> dict[str, Any]:
        """Return the settings that change what a stage writes: the ones that belong in its cache key."""
        fields = type(self).model_fields.items()
        volatile = {name for name, field in fields if is_side_effect_only(field) or _is_known_by_content(field)}
        return self.model_dump(mode="json", exclude=volatile)


@dataclass(frozen=True)
class Conflict:
    """A key whose value does not go with others: the values and the reason, and what to write instead."""

    key: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}" if self.fix else self.what


class ConflictsError(ValueError):
    """All conflicts of one table."""

    def __init__(self, found: Sequence[Conflict]) -> None:
        super().__init__("; ".join(map(str, found)))
        self.found = found


def side_effect_only() -> dict[str, Any]:
    """Mark a field that changes speed or display but no output byte: `Field(2, json_schema_extra=side_effect_only())`."""
    return {"side_effect_only": True}


def known_by_content() -> dict[str, Any]:
    """Mark a field that names an outside file: the digest of what is in it stands for it, whatever its name and place."""
    return {"known_by_content": True}


def _is_known_by_content(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("known_by_content"))


def is_side_effect_only(field: FieldInfo) -> bool:
    """Return whether a field is marked as changing no output."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("side_effect_only"))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is spelled most like `word`, if any is close."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def problems(error: ValidationError, settings: type[BaseModel]) -> list[tuple[str, str]]:
    """Return `(key, message)` for each problem pydantic found, in words a user can act on."""
    found = []
    for item in error.errors():
        raised = item.get("ctx", {}).get("error")
        if isinstance(raised, ConflictsError):
            found += [(conflict.key, str(conflict)) for conflict in raised.found]
            continue
        key = ".".join(str(part) for part in item["loc"])
        found.append((key, _message(item["type"], item["msg"], item.get("input"), key, settings)))
    return found


def _message(kind: str, message: str, value: object, key: str, settings: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        guess = nearest(key, settings.model_fields)
        hint = f"; did you mean '{guess}'?" if guess else f"; known keys: {', '.join(sorted(settings.model_fields))}"
        return f"unknown key '{key}'{hint}"
    if kind == "missing":
        return f"key '{key}' is needed and missing"
    reason = message.removeprefix("Value error, ")
    if not key:  # a rule about several keys together
        return reason
    return f"'{key} = {value!r}' is not valid: {reason[:1].lower()}{reason[1:]}"


def checked(kind: type[SomeSettings], **values: Any) -> SomeSettings:
    """Return settings made from a command's options; `UserError` with all that is wrong."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise UserError("; ".join(message for _, message in problems(error, kind))) from None
