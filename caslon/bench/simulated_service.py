"""A simulated service inside the client: the bytes an OpenAI server would send, without network, process or model.

It waits on the event loop's clock, so that on a virtual clock a whole matrix takes a moment and gives the same figures each time.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from caslon.bench.gate import SIMULATION
from caslon.bench.simulation import Simulation

VOCAB_SIZE = 32_000


class SimulatedService(httpx.AsyncBaseTransport):
    """Answers requests of the OpenAI protocol as a `Simulation` says, and counts as vLLM does."""

    def __init__(self, simulation: Simulation, model: str) -> None:
        self.simulation = simulation
        self.model = model
        self.requests = 0
        self._pieces: dict[str, bytes] = {}  # the event of each text, made once
        self.counts = {
            "vllm:prompt_tokens_total": 0,
            "vllm:generation_tokens_total": 0,
            "vllm:request_success_total": 0,
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        path = request.url.path
        if path == "/v1/completions":
            return self._completion(json.loads(await request.aread()))
        if path == "/metrics":
            return httpx.Response(200, text="".join(f"{name} {value}\n" for name, value in self.counts.items()))
        if path == "/version":
            return httpx.Response(200, json={"version": "simulated", "dtype": "none", "device": "none"})
        if path == "/v1/models":
            card = {"id": self.model, "owned_by": SIMULATION, "vocab_size": VOCAB_SIZE}
            return httpx.Response(200, json={"object": "list", "data": [card]})
        return httpx.Response(404, json={"error": {"message": f"there is no {path} here"}})

    def _completion(self, fields: dict[str, Any]) -> httpx.Response:
        self.requests += 1
        if self.simulation.fault_of(self.requests) == "refused":
            return httpx.Response(503, json={"error": {"message": "simulated overload", "code": "overloaded"}})
        stream = _Stream(self._events(self.requests, fields))
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)

    async def _events(self, number: int, fields: dict[str, Any]) -> AsyncIterator[bytes]:
        prompt_tokens, tokens = len(fields["prompt"]), 0
        for seconds, text in self.simulation.answer(number, fields["max_tokens"]):
            await asyncio.sleep(seconds)
            tokens += 1
            yield self._pieces.get(text) or self._piece(text)
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}
        self.counts["vllm:prompt_tokens_total"] += prompt_tokens
        self.counts["vllm:generation_tokens_total"] += tokens
        self.counts["vllm:request_success_total"] += 1
        yield self._event(choices=[], usage=usage)
        yield b"data: [DONE]\n\n"

    def _piece(self, text: str) -> bytes:
        made = self._event(choices=[{"index": 0, "text": text, "finish_reason": None}])
        return self._pieces.setdefault(text, made)

    def _event(self, **fields: Any) -> bytes:
        body = {"id": "cmpl-simulated", "object": "text_completion", "model": self.model, **fields}
        return b"data: " + json.dumps({**body, "system_fingerprint": "fp_simulated"}).encode() + b"\n\n"


class _Stream(httpx.AsyncByteStream):
    def __init__(self, events: AsyncIterator[bytes]) -> None:
        self._events = events

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._events
