"""`[[serve.upstream]]` tables to checked settings: which other servers stand behind the API, and for which models."""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from caslon.client import is_loopback
from caslon.errors import UserError
from caslon.settings import Settings, checked

UpstreamKind = Literal["openai", "vllm", "llama-server", "ollama", "anthropic"]


class UpstreamSettings(Settings):
    """One other server. Only the host of `url` is ever connected to; a secret stands in the environment or in a file."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="what it is called here")
    kind: UpstreamKind = Field(description="whose protocol it speaks")
    url: str = Field(description="its address, as https://host or http://127.0.0.1:8001")
    models: dict[str, str] = Field(
        min_length=1, description="names asked for here, each with its name there; a list where both are the same"
    )
    secret_env: str | None = Field(None, description="environment variable that holds its key")
    secret_file: Path | None = Field(None, description="file that holds its key")
    tokenizer: Path | None = Field(None, description="model folder whose tokenizer counts for it, where one is known")
    context_tokens: int | None = Field(None, ge=1, description="longest prompt and answer; needed for ollama")
    max_tokens: int = Field(4096, ge=1, description="longest answer to a chat that names none")
    max_running: int = Field(64, ge=1, description="answers asked of it at once")
    connect_timeout_seconds: float = Field(5.0, gt=0, description="longest wait for a connection")
    read_timeout_seconds: float = Field(60.0, gt=0, description="longest silence within an answer")
    fallbacks: tuple[str, ...] = Field(
        (), description="upstreams that are asked for the same model when this one fails"
    )

    @field_validator("models", mode="before")
    @classmethod
    def _same_names(cls, models: Any) -> Any:
        return {name: name for name in models} if isinstance(models, list | tuple) else models

    @field_validator("url")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
            raise ValueError(f"{url!r} is no server address: write https://host or http://host:port")
        return url.rstrip("/").removesuffix("/v1")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.secret_env and self.secret_file:
            raise ValueError("secret_env and secret_file are two places for one secret: name one")
        if (self.secret_env or self.secret_file) and self.url.startswith("http:") and not is_loopback(self.url):
            raise ValueError("a secret is not sent over plain http: give an https address")
        if self.kind == "ollama" and self.context_tokens is None:
            raise ValueError("ollama cuts prompts that do not fit its window: set the window, context_tokens")
        return self

    def secret(self) -> str | None:
        """Return the key; `UserError` where it is not there."""
        where = f"upstream {self.name}"
        if self.secret_env is not None:
            found = os.environ.get(self.secret_env, "").strip()
            if not found:
                raise UserError(f"the variable {self.secret_env} holds no key", where=where, fix="export it")
            return found
        if self.secret_file is None:
            return None
        try:
            found = self.secret_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise UserError(f"the key file cannot be read: {type(error).__name__}", where=where,
                            fix=f"put the key into {self.secret_file}") from None  # fmt: skip
        if not found or not found.isascii() or len(found.split()) != 1:
            raise UserError("the key file does not hold one key", where=where, fix=f"put it into {self.secret_file}")
        return found


class UpstreamFile(Settings):
    """A file of `[[serve.upstream]]` tables."""

    upstream: tuple[UpstreamSettings, ...] = Field(min_length=1)


def upstreams_of(path: Path) -> tuple[UpstreamSettings, ...]:
    """Return the upstreams of a file; `UserError` says what is wrong with it."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the file cannot be read: {error}", where=str(path)) from None
    serve = tables.get("serve", {})
    if set(tables) != {"serve"} or not isinstance(serve, dict):
        raise UserError("the file holds no [[serve.upstream]] table", where=str(path), fix="or other tables as well")
    return checked(UpstreamFile, **serve).upstream


def check_upstreams(upstreams: Sequence[UpstreamSettings]) -> None:
    """Raise `UserError` for names that are used twice, and for fallbacks that are not there or lack a model."""
    by_name = {one.name: one for one in upstreams}
    if len(by_name) < len(upstreams):
        raise UserError("two upstreams have the same name", where="upstream")
    for one in upstreams:
        for name in one.fallbacks:
            if name not in by_name or name == one.name:
                raise UserError(f"there is no other upstream '{name}'", where=f"upstream {one.name}, fallbacks")
            if missing := sorted(set(one.models) - set(by_name[name].models)):
                raise UserError(
                    f"the fallback '{name}' does not have the model '{missing[0]}'", where=f"upstream {one.name}"
                )


def offers_of(upstreams: Sequence[UpstreamSettings]) -> dict[str, list[UpstreamSettings]]:
    """Return for each model's name who is asked for it, in this order. Who is only a fallback for it comes by no other way."""
    check_upstreams(upstreams)
    by_name = {one.name: one for one in upstreams}
    offers: dict[str, list[UpstreamSettings]] = {}
    for place, one in enumerate(upstreams):
        for model in one.models:
            if any(_stands_before(other, one, model, other in upstreams[:place]) for other in upstreams):
                continue
            if model in offers:
                raise UserError(
                    f"two upstreams offer the model '{model}'",
                    where=f"upstream {one.name}",
                    fix='make one the fallback of the other, or give it another name: models = { name = "theirs" }',
                )
            offers[model] = [one, *(by_name[name] for name in one.fallbacks)]
    return offers


def _stands_before(other: UpstreamSettings, one: UpstreamSettings, model: str, is_earlier: bool) -> bool:
    """Return whether `one` is a fallback of another for a model; of two that are each other's, the later one is."""
    return one.name in other.fallbacks and model in other.models and (is_earlier or other.name not in one.fallbacks)
