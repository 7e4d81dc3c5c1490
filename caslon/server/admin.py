"""What those may do who run the service: load and unload adapters, see models, keys and open requests, end a request.

Every path needs a key with the scope admin, and a caller on this machine or one of `admin_hosts`: a server without keys offers
none of this.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from caslon.server.calls import Call
from caslon.server.errors import ERROR_DESCRIPTION, SERVER_ERROR, Refused, invalid
from caslon.server.keys import Key, KeyStore
from caslon.server.models import Models
from caslon.server.service import Answer
from caslon.server.settings import LOOPBACK_HOSTS
from caslon.server.wire import Wire, parse


class LoadAdapter(Wire):
    """POST /v1/load_lora_adapter, as vLLM has it."""

    lora_name: str = Field(min_length=1, max_length=128, description="the name requests ask for")
    lora_path: str = Field(description="its PEFT folder on the server's disk")
    model: str | None = Field(None, description="the model it was trained on; the first one when left out")


class UnloadAdapter(Wire):
    """POST /v1/unload_lora_adapter."""

    lora_name: str


def add_admin(app: FastAPI, models: Models) -> None:
    """Add the paths to an application."""

    def add(method: str, path: str, act: Callable[[Request], Awaitable[Any]], shape: type[Wire] | None = None) -> None:
        async def answer(request: Request) -> Response:
            _check_caller(request, models)
            return JSONResponse(await act(request))

        schema = {"content": {"application/json": {"schema": shape.model_json_schema()}}} if shape else None
        extra = {"requestBody": {"required": True, **schema}} if schema else None
        app.add_api_route(
            path,
            answer,
            methods=[method],
            name=act.__name__,
            description=act.__doc__,
            openapi_extra=extra,
            responses={"default": ERROR_DESCRIPTION},
        )

    async def load_lora_adapter(request: Request) -> dict[str, Any]:
        """Load an adapter; it may be asked for as a model from then on."""
        fields = parse(LoadAdapter, await request.body())
        service = await to_thread.run_sync(models.add_adapter, fields.lora_name, Path(fields.lora_path), fields.model)
        return {"id": service.model_name, "parent": service.parent}

    async def unload_lora_adapter(request: Request) -> dict[str, Any]:
        """Refuse new requests for an adapter, wait for its running ones, and unload it."""
        fields = parse(UnloadAdapter, await request.body())
        await to_thread.run_sync(models.remove_adapter, fields.lora_name)
        return {"id": fields.lora_name, "unloaded": True}

    async def admin_models(_: Request) -> dict[str, Any]:
        """List all models and adapters, loaded or not."""
        return {"models": models.states()}

    async def admin_requests(_: Request) -> dict[str, Any]:
        """List the answers that wait or run, without their texts."""
        return {"requests": [_described(answer) for service in models for answer in service.open_answers()]}

    async def end_request(request: Request) -> dict[str, Any]:
        """Break off all answers of a request."""
        wanted = request.path_params["request_id"]
        found = [a for service in models for a in service.open_answers() if a.call and a.call.request_id == wanted]
        if not found:
            raise Refused(404, f"no open request has the id '{wanted}'", code="not_found")
        for answer in found:
            answer.break_off(
                Refused(503, "the request was ended by who runs the service", code="aborted", kind=SERVER_ERROR)
            )
        return {"ended": len(found)}

    async def admin_keys(_: Request) -> dict[str, Any]:
        """List the keys, never what they are shown as."""
        keys = await to_thread.run_sync(_store(models).all)
        return {"keys": [_described_key(key) for key in keys]}

    async def revoke_key(request: Request) -> dict[str, Any]:
        """Let a key in no more: within a second, running answers included."""
        key = await to_thread.run_sync(_store(models).revoke, request.path_params["key_id"])
        return {"id": key.id, "revoked": True}

    add("POST", "/v1/load_lora_adapter", load_lora_adapter, LoadAdapter)
    add("POST", "/v1/unload_lora_adapter", unload_lora_adapter, UnloadAdapter)
    add("GET", "/admin/models", admin_models)
    add("GET", "/admin/requests", admin_requests)
    add("DELETE", "/admin/requests/{request_id}", end_request)
    add("GET", "/admin/keys", admin_keys)
    add("DELETE", "/admin/keys/{key_id}", revoke_key)


def _check_caller(request: Request, models: Models) -> None:
    call: Call = request.state.call
    if call.key is None:
        message = (
            "this needs a key with the scope admin, and the server has no keys (caslon keys create --scopes admin)"
        )
        raise Refused(403, message, code="admin_needs_key", kind="permission_error")
    hosts = {*LOOPBACK_HOSTS, *models.first.settings.admin_hosts, ""}  # "" is a socket file, which only its owner opens
    if call.address not in hosts:
        message = "admin calls are taken from this machine only (--admin-host ADDRESS allows another one)"
        raise Refused(403, message, code="admin_not_from_here", kind="permission_error")


def _store(models: Models) -> KeyStore:
    store = models.first.admission.keys
    if store is None:
        raise invalid("this server has no keys", None, "no_keys")
    return store


def _described(answer: Answer) -> dict[str, Any]:
    call = answer.call
    return {
        "id": call.request_id if call else None,
        "key": call.key.id if call and call.key else None,
        "endpoint": call.endpoint if call else None,
        "model": answer.model_name,
        "state": "running" if answer.is_running else "waiting",
        "completion_tokens": answer.tokens,
        "seconds": round(time.perf_counter() - answer.clock.received, 3),
    }


def _described_key(key: Key) -> dict[str, Any]:
    return {
        "id": key.id, "name": key.name, "scopes": list(key.scopes), "models": list(key.models),
        "adapters": list(key.adapters), "valid": key.is_valid(time.time()), "expires": key.expires,
    }  # fmt: skip
