"""Runs one load against a service: warm-up, then every request of the profile, and what came of each.

Bodies are made before the clock starts, and connections stay open, so that the time between two requests is the service's.
"""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from caslon.bench.asking import STALL_SECONDS, Exchange, ask, request_body
from caslon.bench.profiles import Profile
from caslon.bench.prompts import drawn_prompts
from caslon.bench.server_metrics import scraped
from caslon.client import CONNECT_TIMEOUT_SECONDS, is_loopback


@dataclass(frozen=True)
class Service:
    """The service to measure: where it is, what it calls the model, and what it takes. `transport` stands in for a network."""

    url: str
    model: str
    vocab_size: int
    api_key: str | None = field(default=None, repr=False)
    transport: httpx.AsyncBaseTransport | None = None

    def connected(self, concurrency: int) -> httpx.AsyncClient:
        """Return a client with as many connections as requests run at once."""
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {self.api_key}"} if self.api_key else {},
            timeout=httpx.Timeout(STALL_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=concurrency, keepalive_expiry=600),
            transport=self.transport,
            trust_env=not is_loopback(self.url),
        )


@dataclass(frozen=True)
class LoadRun:
    """What came of a load: every exchange in order, the seconds it took, and the service's metrics before and after."""

    profile: Profile
    exchanges: Sequence[Exchange]
    seconds: float
    began: float  # of the event loop's clock
    metrics_before: Mapping[str, float]
    metrics_after: Mapping[str, float]


async def run_load(service: Service, profile: Profile, *, seed: int, warmup: int = 1) -> LoadRun:
    """Send every request of a profile and return what came of them; `warmup` requests before are not counted."""
    prompts = drawn_prompts(warmup + profile.prompts, profile.input_tokens, service.vocab_size, seed)
    bodies = [request_body(service.model, prompt, profile.output_tokens) for prompt in prompts]
    run_id = uuid.uuid4().hex[:12]
    exchanges = [Exchange(f"bench-{run_id}-{index}", profile.input_tokens) for index in range(profile.prompts)]
    async with service.connected(profile.concurrency) as http:
        for body in bodies[:warmup]:
            await ask(http, body, Exchange(f"bench-{run_id}-warmup", profile.input_tokens))
        before = await scraped(http)
        clock = asyncio.get_running_loop().time
        began = clock()
        await _send_all(http, profile, list(zip(bodies[warmup:], exchanges, strict=True)), seed)
        seconds = clock() - began
        after = await scraped(http)
    return LoadRun(profile, exchanges, seconds, began, before, after)


async def _send_all(
    http: httpx.AsyncClient, profile: Profile, requests: Sequence[tuple[bytes, Exchange]], seed: int
) -> None:
    """Send the requests as they arrive, at most `concurrency` at once; one that must wait for that starts when it may."""
    slots = asyncio.Semaphore(profile.concurrency)

    async def send(body: bytes, exchange: Exchange) -> None:
        try:
            await ask(http, body, exchange)
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        async for body, exchange in _arriving(profile, requests, seed):
            await slots.acquire()
            group.create_task(send(body, exchange))


async def _arriving(
    profile: Profile, requests: Sequence[tuple[bytes, Exchange]], seed: int
) -> AsyncIterator[tuple[bytes, Exchange]]:
    chooser = random.Random(seed)  # noqa: S311 - repeatable, not secret
    clock = asyncio.get_running_loop().time
    due = clock()
    for request in requests:
        if profile.arrivals != "closed":
            await asyncio.sleep(max(0.0, due - clock()))
            due += (
                chooser.expovariate(profile.request_rate) if profile.arrivals == "poisson" else 1 / profile.request_rate
            )
        yield request
