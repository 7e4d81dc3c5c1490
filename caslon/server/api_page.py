"""The API's description (OpenAPI) as one self-contained page at `/docs`. FastAPI's own would load scripts from a CDN."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2


@dataclass(frozen=True)
class Field:
    """One field of a request body."""

    name: str
    kind: str
    needed: bool
    text: str


@dataclass(frozen=True)
class Route:
    """One path and what it takes."""

    method: str
    path: str
    text: str
    fields: list[Field]


def api_page(openapi: Mapping[str, Any]) -> str:
    """Return the page for an OpenAPI description."""
    template = resources.files("caslon.server").joinpath("api_page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(info=openapi["info"], routes=list(_routes(openapi)))


def _routes(openapi: Mapping[str, Any]) -> Iterator[Route]:
    for path, methods in openapi["paths"].items():
        for method, description in methods.items():
            content = description.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema", {})
            needed = set(schema.get("required", ()))
            fields = [
                Field(name, _kind(field), name in needed, field.get("description", ""))
                for name, field in schema.get("properties", {}).items()
                if field.get("description") != "not offered"
            ]
            yield Route(method.upper(), path, description.get("description", ""), fields)


def _kind(field: Mapping[str, Any]) -> str:
    kinds = [_kind(one) for one in field.get("anyOf", ()) if one.get("type") != "null"]
    if kinds:
        return " or ".join(kinds)
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}))}"
    return str(field.get("type", "object" if "$ref" in field else "any"))
