"""The models of one server by name: a request's `model` to the service that answers it."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from anyio import to_thread
from fastapi import Request
from pydantic_core import from_json

from caslon.engine.engine import Engine
from caslon.errors import UserError
from caslon.server.calls import Call
from caslon.server.errors import Refused
from caslon.server.service import Service
from caslon.server.settings import ServerSettings
from caslon.server.upstream.engine import RemoteEngine
from caslon.server.upstream.loop import UpstreamLoop
from caslon.server.upstream.settings import UpstreamSettings, offers_of


class Models:
    """All services of a server. The first one is asked where a request names none."""

    def __init__(self, local: Service | None, settings: ServerSettings) -> None:
        self._services = {} if local is None else {local.model_name: local}
        offers = offers_of(settings.upstream)
        if local is not None and local.model_name in offers:
            raise UserError(
                f"two models have the name '{local.model_name}'", where="upstream", fix="serve it with --name"
            )
        self._loop = UpstreamLoop(settings.upstream, self._upstream_failed) if settings.upstream else None
        for model, offered_by in offers.items():
            self._add_remote(model, offered_by, settings)

    @property
    def first(self) -> Service:
        """The service that is asked where nothing else is said."""
        return next(iter(self._services.values()))

    @property
    def names(self) -> list[str]:
        """What may be asked for, the first one first."""
        return list(self._services)

    def _add_remote(self, model: str, offered_by: Sequence[UpstreamSettings], settings: ServerSettings) -> None:
        assert self._loop is not None
        # It has what a service asks of an engine and nothing else.
        engine = cast(Engine, RemoteEngine(model, offered_by, self._loop))
        beside = self.first if self._services else None
        self._services[model] = Service(engine, model, settings, beside=beside)

    def __iter__(self) -> Iterator[Service]:
        return iter(list(self._services.values()))

    async def asked_by(self, request: Request) -> Service:
        """Return the service that a request's body names, for who asks; `Refused` (404) where there is none of that name."""
        call: Call = request.state.call
        if len(self._services) == 1:
            return self.first.on_behalf_of(call)
        name = await to_thread.run_sync(_model_named_in, await request.body())
        return self.named(name, call)

    def named(self, name: str | None, call: Call) -> Service:
        """Return a service by name, for who asks; the first one without a name; `Refused` (404) where there is none."""
        service = self.first if name is None else self._services.get(name)
        if service is None:
            known = ", ".join(one.model_name for one in self if _may_use(call, one))
            message = f"the model '{name}' does not exist here; available: {known or 'none'}"
            raise Refused(404, message, code="model_not_found", param="model")
        return service.on_behalf_of(call)

    def cards(self, call: Call) -> list[dict[str, Any]]:
        """Describe the models that who asks may use."""
        return [card(service) for service in self if _may_use(call, service)]

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
        self.first.admission.close()

    def _upstream_failed(self, upstream: str, reason: str) -> None:
        self.first.metrics.upstream_errors.labels(upstream, reason).inc()


def _may_use(call: Call, service: Service) -> bool:
    return call.key is None or call.key.may_use(service.model_name)


def card(service: Service) -> dict[str, Any]:
    """Describe a model as the API lists it."""
    common = {"id": service.model_name, "object": "model", "created": service.started}
    remote = service.remote
    if remote is None:
        facts = {"max_model_len": service.context, "vocab_size": service.tokenizer.vocab_size}
        return {**common, "owned_by": "caslon", **facts}
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
