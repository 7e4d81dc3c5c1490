"""Settings of the HTTP server: where it listens, who may ask, and how much it takes on."""

import re

from pydantic import Field, field_validator

from caslon.settings import Settings, side_effect_only

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class ServerSettings(Settings):
    """How a model is served. None of these changes what the model answers."""

    host: str = Field("127.0.0.1", description="address to listen on", json_schema_extra=side_effect_only())
    port: int = Field(
        8000, ge=0, le=65535, description="port; 0 picks a free one", json_schema_extra=side_effect_only()
    )
    model_name: str | None = Field(None, description="name clients ask for; default: the folder's")
    page: bool = Field(True, description="serve the web page at /", json_schema_extra=side_effect_only())
    api_key_sha256: tuple[str, ...] = Field(
        (), description="SHA-256 (hex) of each key that is let in", json_schema_extra=side_effect_only()
    )
    no_auth: bool = Field(
        False, description="listen beyond this machine without a key", json_schema_extra=side_effect_only()
    )
    max_queue: int = Field(
        64, ge=0, description="answers that may wait for the engine", json_schema_extra=side_effect_only()
    )
    max_body_bytes: int = Field(
        4 << 20, ge=1024, description="longest request body", json_schema_extra=side_effect_only()
    )
    drain_timeout_seconds: float = Field(
        60.0, ge=0, description="time running answers get after SIGTERM", json_schema_extra=side_effect_only()
    )

    @field_validator("api_key_sha256")
    @classmethod
    def _hex_digests(cls, digests: tuple[str, ...]) -> tuple[str, ...]:
        for digest in digests:
            if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
                raise ValueError("a key is given by its SHA-256: 64 hex digits (printf %s KEY | sha256sum)")
        return tuple(digest.lower() for digest in digests)
