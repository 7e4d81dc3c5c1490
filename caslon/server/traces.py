"""Each request as an OpenTelemetry span with children for waiting, reading, writing, tool calls; sent nowhere unless asked.

The target is the URL of an OTLP collector or a file of JSON lines. No text, key, user or address stands in a span.
Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/
"""

from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import caslon
from caslon.server.calls import Call

CONVENTION = Schemas.V1_37_0.value
OPERATIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion", "/v1/embeddings": "embeddings"}
PARAMETERS = ("max_tokens", "temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty")


class Traces:
    """An open export. `add` may be called from any thread."""

    def __init__(self, target: str, model: str) -> None:
        resource = Resource(
            {"service.name": "caslon", "service.version": caslon.__version__, "caslon.convention": CONVENTION},
            CONVENTION,
        )
        self.model = model
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._file = None
        if target.startswith(("http://", "https://")):
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=target)))
        else:
            self._file = Path(target).open("a", encoding="utf-8")  # noqa: SIM115  closed by close()
            exporter = ConsoleSpanExporter(out=self._file, formatter=lambda span: span.to_json(indent=None) + "\n")
            self._provider.add_span_processor(SimpleSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("caslon", caslon.__version__, schema_url=CONVENTION)

    def add(self, call: Call) -> None:
        """Export a request that is over."""
        operation = OPERATIONS.get(call.endpoint, call.endpoint)
        carrier = {"traceparent": call.traceparent} if call.traceparent else {}
        context = TraceContextTextMapPropagator().extract(carrier)
        began = int(call.began * 1e9)
        span = self._tracer.start_span(
            f"{operation} {self._model(call)}",
            context,
            SpanKind.SERVER,
            self._attributes(call, operation),
            start_time=began,
        )
        for answer in call.answers:
            clock = answer.clock
            moments = [call.received, clock.started or None, clock.first, clock.ended]
            for name, start, end in zip(("queue", "prefill", "decode"), moments, moments[1:], strict=False):
                if start is not None and end is not None:
                    self._child(span, name, began, start - call.received, end - call.received)
            if clock.tools is not None:
                self._child(span, "tools", began, *(moment - call.received for moment in clock.tools))
        if call.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(began + int(call.seconds * 1e9))

    def close(self) -> None:
        """Send what is not sent yet, and stop."""
        self._provider.shutdown()
        if self._file is not None:
            self._file.close()

    def _child(self, parent: Any, name: str, began: int, start: float, end: float) -> None:
        child = self._tracer.start_span(name, set_span_in_context(parent), start_time=began + int(start * 1e9))
        child.end(began + int(end * 1e9))

    def _model(self, call: Call) -> str:
        return call.served.model_name if call.served else self.model

    def _attributes(self, call: Call, operation: str) -> dict[str, Any]:
        prompt_tokens, completion_tokens = call.tokens()
        parameters = call.parameters()
        return {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": call.served_by or "caslon",
            "gen_ai.request.model": self._model(call),
            "gen_ai.response.id": call.request_id,
            "gen_ai.response.finish_reasons": [answer.finish_reason or "error" for answer in call.answers],
            "gen_ai.usage.input_tokens": prompt_tokens,
            "gen_ai.usage.output_tokens": completion_tokens,
            "http.route": call.endpoint,
            "http.response.status_code": call.status,
        } | {f"gen_ai.request.{name}": parameters[name] for name in PARAMETERS if name in parameters}
