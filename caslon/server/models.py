"""The models of one server by name: a request's `model` to the service that answers it."""

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from anyio import to_thread
from fastapi import Request
from pydantic_core import from_json

from caslon.engine.engine import Engine
from caslon.errors import UserError
from caslon.server.calls import Call
from caslon.server.errors import SERVER_ERROR, Refused
from caslon.server.service import Service
from caslon.server.settings import ServerSettings
from caslon.server.shelf import LOOK_AGAIN_SECONDS, Shelf
from caslon.server.upstream.engine import RemoteEngine
from caslon.server.upstream.loop import UpstreamLoop
from caslon.server.upstream.settings import UpstreamSettings, offers_of


class Models:
    """All services of a server. The first one is asked where a request names none."""

    def __init__(self, local: Service | None, settings: ServerSettings, shelf: Shelf | None = None) -> None:
        self._services = {} if local is None else {local.model_name: local}
        self._adapters: dict[str, Service] = {}
        self._shelf = shelf
        if settings.models and shelf is None:
            raise UserError("further models need a first one that is served from a folder", where="models")
        self._changing = threading.Lock()
        offers = offers_of(settings.upstream)
        if taken := next((name for name in offers if name in self._services or name in settings.models), None):
            raise UserError(f"two models have the name '{taken}'", where="upstream", fix="rename one: --name, models")
        self._loop = UpstreamLoop(settings.upstream, self._upstream_failed) if settings.upstream else None
        for model, offered_by in offers.items():
            self._add_remote(model, offered_by, settings)
        for name, folder in settings.adapters.items():
            self.add_adapter(name, folder)

    @property
    def first(self) -> Service:
        """The service that is asked where nothing else is said."""
        return next(iter(self._services.values()))

    @property
    def names(self) -> list[str]:
        """What may be asked for, the first one first."""
        return [*self._services, *(self._shelf.models if self._shelf else ()), *self._adapters]

    def _add_remote(self, model: str, offered_by: Sequence[UpstreamSettings], settings: ServerSettings) -> None:
        assert self._loop is not None
        # It has what a service asks of an engine and nothing else.
        engine = cast(Engine, RemoteEngine(model, offered_by, self._loop))
        beside = self.first if self._services else None
        self._services[model] = Service(engine, model, settings, beside=beside)

    def __iter__(self) -> Iterator[Service]:
        """Go through the services that have a queue: an adapter shares its model's."""
        return iter([*self._services.values(), *(self._shelf.services if self._shelf else ())])

    def add_adapter(self, name: str, folder: Path, model: str | None = None) -> Service:
        """Load a PEFT folder and offer it under a name; `UserError` says why it does not fit."""
        base = self.first if model is None else self._services.get(model)
        if base is None or base.remote is not None:
            raise UserError(f"adapters are for models that stay in memory here; '{model}' is none", where="model")
        with self._changing:
            if name in self.names:
                raise UserError(f"there is a model '{name}' already", where="lora_name", fix="choose another name")
            adapter = base.engine.adapters.add(name, folder)
            self._adapters[name] = base.with_adapter(name, adapter.digest)
            return self._adapters[name]

    def remove_adapter(self, name: str) -> None:
        """Offer an adapter no more, wait for the requests that ask for it, and unload it."""
        with self._changing:
            service = self._adapters.pop(name, None)
        if service is None:
            raise Refused(404, f"there is no adapter '{name}'", code="model_not_found", param="lora_name")
        while any(answer.model_name == name for answer in service.open_answers()):
            time.sleep(LOOK_AGAIN_SECONDS)
        service.engine.adapters.remove(name, service.settings.request_timeout_seconds)

    @contextlib.asynccontextmanager
    async def asked_by(self, request: Request) -> AsyncIterator[Service]:
        """Give the service that a request's body names, for who asks; `Refused` (404) where there is none of that name."""
        call: Call = request.state.call
        name = await to_thread.run_sync(_model_named_in, await request.body()) if len(self.names) > 1 else None
        if self._shelf is None or name not in self._shelf.models:
            yield self.named(name, call)
            return
        _check_key(call, name)
        if self.first.queue.draining:
            raise Refused(503, "the server is shutting down", code="draining", kind=SERVER_ERROR)
        async with self._shelf.held(name) as service:
            yield service.on_behalf_of(call)

    def named(self, name: str | None, call: Call) -> Service:
        """Return a service by name, for who asks; the first one without a name; `Refused` (404) where there is none."""
        service = self.first if name is None else self._services.get(name) or self._adapters.get(name)
        if service is None:
            raise self._unknown(name, call)
        return service.on_behalf_of(call)

    def _unknown(self, name: str | None, call: Call) -> Refused:
        known = ", ".join(one for one in self.names if _may_use(call, one)) or "none"
        message = f"the model '{name}' does not exist here; available: {known}"
        return Refused(404, message, code="model_not_found", param="model")

    def cards(self, call: Call) -> list[dict[str, Any]]:
        """Describe the models that who asks may use."""
        return [self._card(name) for name in self.names if _may_use(call, name)]

    def card(self, name: str, call: Call) -> dict[str, Any]:
        """Describe one model; `Refused` where there is none of that name (404) or the key does not allow it (403)."""
        if name not in self.names:
            raise self._unknown(name, call)
        _check_key(call, name)
        return self._card(name)

    def _card(self, name: str) -> dict[str, Any]:
        service = self._services.get(name) or self._adapters.get(name)
        if service is not None:
            return _card_of(service)
        assert self._shelf is not None
        config = self._shelf.models[name].folder.config
        facts = {"max_model_len": config.max_position_embeddings, "vocab_size": config.vocab_size}
        return {"id": name, "object": "model", "created": self.first.started, "owned_by": "caslon", **facts}

    def states(self) -> list[dict[str, Any]]:
        """Return where each model is, for who runs the service."""
        shelved = self._shelf.models if self._shelf else {}
        return [
            {**self._card(name), "state": shelved[name].state if name in shelved else "loaded"} for name in self.names
        ]

    def sweep(self) -> None:
        """Give back models that nobody asks for."""
        if self._shelf is not None:
            self._shelf.sweep()

    def metrics_text(self) -> bytes:
        """Return all figures in Prometheus' text form."""
        metrics = self.first.metrics
        if self._loop is not None:
            for name, is_open in self._loop.open_breakers().items():
                metrics.upstream_breaker.labels(name).set(is_open)
        return metrics.text()

    def drain(self) -> None:
        """Take no new requests any more."""
        for service in self:
            service.drain()

    def interrupt(self) -> None:
        """Break every open answer off."""
        for service in self:
            service.interrupt()

    def close(self) -> None:
        """Close what the services share. Their engines stay the caller's."""
        if self._loop is not None:
            self._loop.close()
        if self._shelf is not None:
            self._shelf.close()
        self.first.admission.close()

    def _upstream_failed(self, upstream: str, reason: str) -> None:
        self.first.metrics.upstream_errors.labels(upstream, reason).inc()


def _may_use(call: Call, name: str) -> bool:
    return call.key is None or call.key.may_use(name)


def _check_key(call: Call, name: str) -> None:
    if not _may_use(call, name):
        message = f"this key does not allow the model '{name}'"
        raise Refused(403, message, code="model_not_allowed", param="model", kind="permission_error")


def _card_of(service: Service) -> dict[str, Any]:
    common = {"id": service.model_name, "object": "model", "created": service.started}
    remote = service.remote
    if remote is None:
        parent = {"parent": service.parent} if service.parent else {}
        facts = {"max_model_len": service.context, "vocab_size": service.tokenizer.vocab_size}
        return {**common, "owned_by": "caslon", **parent, **facts}
    known = {"max_model_len": service.context} if remote.upstream.context_tokens is not None else {}
    return {**common, "owned_by": remote.upstream.name, **known}


def _model_named_in(body: bytes) -> str | None:
    """Return what a body names; None where it names nothing. A body that is wrong is refused where it is read."""
    try:
        value = from_json(body)
    except ValueError:
        return None
    name = value.get("model") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None
