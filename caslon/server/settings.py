"""Settings of the HTTP server: where it listens, who may ask, how much it takes on, how long it waits, what it writes down."""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from caslon.errors import UserError
from caslon.server.allowance import allowances_of
from caslon.server.upstream.settings import UpstreamSettings
from caslon.settings import Settings, side_effect_only

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


def _setting(default: Any, description: str, **bounds: Any) -> Any:
    """Return a field that changes nothing of what the model answers."""
    return Field(default, description=description, json_schema_extra=side_effect_only(), **bounds)


class TimeoutSettings(Settings):
    """How long the server waits, in seconds, before it gives up on the queue, the model or the client."""

    queue_timeout_seconds: float = _setting(30.0, "longest wait for a turn; then 503", gt=0)
    first_token_timeout_seconds: float = _setting(60.0, "longest wait for a first token after that; then 503", gt=0)
    request_timeout_seconds: float = _setting(600.0, "longest answer; then it ends with what it has", gt=0)
    reader_timeout_seconds: float = _setting(30.0, "longest pause of a client that reads; then it is cut", gt=0)
    drain_timeout_seconds: float = _setting(60.0, "time running answers get after SIGTERM", ge=0)


class StateSettings(Settings):
    """What the server keeps on disk, all of it in one folder, and who is limited to what."""

    state: Path | None = _setting(None, "folder of keys, limits and the audit log; left out: nothing is written")
    no_auth: bool = _setting(False, "listen beyond this machine without a key")
    limits: tuple[str, ...] = _setting((), "WHO:WHAT=NUMBER, as in key:requests_per_minute=60; needs state")
    limit_by: Literal["token_bucket", "sliding_log", "fixed_window", "leaky_bucket"] = _setting(
        "token_bucket", "how a limit per minute is held"
    )
    record_content: bool = _setting(False, "keep the texts of requests and answers; needs state")
    retention_days: float = _setting(30.0, "days after which a record is removed; 0 keeps it for ever", ge=0)
    redact: tuple[str, ...] = _setting((), "expressions whose matches are not recorded")
    traces: str | None = _setting(None, "URL of an OTLP collector, or a file; left out: no traces")
    hooks: tuple[str, ...] = _setting((), "package.module:name of code to run around requests")
    audit_bytes: int = _setting(64 << 20, "size at which a new audit file is begun", ge=4096)

    @field_validator("redact")
    @classmethod
    def _expressions(cls, redact: tuple[str, ...]) -> tuple[str, ...]:
        for rule in redact:
            try:
                re.compile(rule)
            except re.error as error:
                raise ValueError(f"'{rule}' is no expression: {error}") from None
        return redact

    @field_validator("limits")
    @classmethod
    def _known_limits(cls, limits: tuple[str, ...]) -> tuple[str, ...]:
        try:
            allowances_of(limits)
        except UserError as error:
            raise ValueError(f"{error.what} ({error.fix})") from None
        return limits


class ProtocolSettings(Settings):
    """How requests are read and answers are sent."""

    lenient: bool = _setting(False, "leave unknown fields out, named in a header, instead of refusing them")
    request_timings: bool = _setting(False, "add the times of each answer to it")
    cors_origins: tuple[str, ...] = _setting((), "web origins whose pages may ask, as https://host")
    tls_cert: Path | None = _setting(None, "certificate chain (PEM) to serve HTTPS with; needs tls_key")
    tls_key: Path | None = _setting(None, "the certificate's private key (PEM)")
    header_timeout_seconds: float = _setting(10.0, "longest time a client may take to send a request's head", gt=0)

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[^/*?#\s]+", origin):
                raise ValueError(f"{origin!r} is no origin: write it exactly, as https://host or http://host:port")
        return origins

    @model_validator(mode="after")
    def _both_parts_of_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        return self


class ModelsSettings(Settings):
    """What is offered beside the first model, which is always in memory."""

    models: dict[str, Path] = _setting({}, "further model folders by the name clients ask for")
    load: Literal["eager", "on_demand"] = _setting("eager", "read them at the start, or when first asked for")
    keep_alive_seconds: float = _setting(300.0, "on_demand: time after which an idle one is given back", gt=0)
    max_loaded: int | None = _setting(None, "most models in memory, the first one included", ge=1)
    adapters: dict[str, Path] = _setting({}, "PEFT folders for the first model by the name clients ask for")
    upstream: tuple[UpstreamSettings, ...] = _setting((), "other servers whose models are offered beside the folder's")
    admin_hosts: tuple[str, ...] = _setting((), "addresses beside this machine from which admin calls are taken")


class ServerSettings(TimeoutSettings, StateSettings, ProtocolSettings, ModelsSettings):
    """How a model is served. None of these changes what the model answers."""

    host: str = _setting("127.0.0.1", "address to listen on")
    port: int = _setting(8000, "port; 0 picks a free one", ge=0, le=65535)
    model_name: str | None = Field(None, description="name clients ask for; default: the folder's")
    page: bool = _setting(True, "serve the web page at /")
    max_queue: int | None = _setting(None, "answers that may wait for the engine; default: 4 x max_running", ge=0)
    max_body_bytes: int = _setting(4 << 20, "longest request body", ge=1024)
