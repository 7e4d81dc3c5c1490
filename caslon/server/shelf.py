"""Further model folders of one server: read at the start or when first asked for, and given back when nobody asks.

A model that answers is never taken away. One that is being read lets its requests wait, as long as any may wait for its turn.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from anyio import to_thread

from caslon.engine.engine import Engine
from caslon.engine.loading import placement
from caslon.engine.planner import MemoryQuestion, free_memory_bytes
from caslon.engine.settings import EngineSettings
from caslon.errors import CaslonError, UserError
from caslon.model.folder import ModelFolder
from caslon.server.errors import SERVER_ERROR, Refused
from caslon.server.service import Service
from caslon.server.settings import ServerSettings

log = logging.getLogger("caslon.server")

LOOK_AGAIN_SECONDS = 0.05
Load = Callable[[ModelFolder], Engine]
Offer = Callable[[str, ModelFolder, Engine], Service]


@dataclass(eq=False)
class Shelved:
    """One folder. `holds` are requests that have it and may not have begun their answers yet."""

    name: str
    folder: ModelFolder
    service: Service | None = None
    loading: asyncio.Task[None] | None = None
    holds: int = 0
    last_used: float = field(default_factory=time.monotonic)

    @property
    def is_idle(self) -> bool:
        """Whether nobody has it and nothing of it is being answered."""
        return self.service is not None and not self.holds and not self.service.open_answers()

    @property
    def state(self) -> str:
        """Where it is."""
        return "loaded" if self.service is not None else "loading" if self.loading is not None else "on disk"


class Shelf:
    """The folders by name. `load` reads one, `offer` makes a service of it; both may take their time."""

    def __init__(self, folders: Mapping[str, ModelFolder], settings: ServerSettings, load: Load, offer: Offer) -> None:
        self.models = {name: Shelved(name, folder) for name, folder in folders.items()}
        self._settings = settings
        self._load = load
        self._offer = offer
        self._reading = threading.Lock()  # one at a time
        self._state = threading.Lock()  # taken and given back at one moment
        if settings.load == "eager":
            for shelved in self.models.values():
                self._read(shelved)

    @property
    def services(self) -> list[Service]:
        """The services of the models that are in memory."""
        return [one.service for one in self.models.values() if one.service is not None]

    @contextlib.asynccontextmanager
    async def held(self, name: str) -> AsyncIterator[Service]:
        """Give a model for as long as the block runs, read first where need be; `Refused` (503) when that takes too long."""
        shelved = self.models[name]
        with self._state:
            shelved.holds += 1
        try:
            if shelved.service is None:
                await self._loaded(shelved)
            assert shelved.service is not None
            yield shelved.service
        finally:
            with self._state:
                shelved.holds -= 1
                shelved.last_used = time.monotonic()

    def sweep(self) -> None:
        """Give back what nobody has asked for during `keep_alive_seconds`."""
        if self._settings.load == "eager":
            return
        for shelved in self.models.values():
            if shelved.is_idle and time.monotonic() - shelved.last_used > self._settings.keep_alive_seconds:
                self._give_back(shelved)

    def close(self) -> None:
        """Close all engines; what they answer has been broken off before."""
        for service in self.services:
            service.engine.close()

    async def _loaded(self, shelved: Shelved) -> None:
        if shelved.loading is None:
            shelved.loading = asyncio.create_task(to_thread.run_sync(self._read, shelved))
            shelved.loading.add_done_callback(lambda _: setattr(shelved, "loading", None))
        try:
            async with asyncio.timeout(self._settings.queue_timeout_seconds):
                await asyncio.shield(shelved.loading)
        except TimeoutError:
            message = f"the model '{shelved.name}' is still being loaded"
            raise Refused(503, message, code="queue_timeout", kind=SERVER_ERROR, headers={"retry-after": "5"}) from None
        except CaslonError as error:
            log.error("the model '%s' cannot be loaded: %s", shelved.name, error)
            message = f"the model '{shelved.name}' cannot be loaded now; the server's log has the cause"
            raise Refused(
                503, message, code="loading_failed", kind=SERVER_ERROR, headers={"retry-after": "30"}
            ) from None

    def _read(self, shelved: Shelved) -> None:
        with self._reading:
            if shelved.service is not None:
                return
            self._make_room()
            began = time.perf_counter()
            shelved.service = self._offer(shelved.name, shelved.folder, self._load(shelved.folder))
            log.info("model '%s' loaded in %.1f s", shelved.name, time.perf_counter() - began)

    def _make_room(self) -> None:
        """Give back the least recently used idle model where as many are loaded as may be, or wait until one is idle."""
        most = self._settings.max_loaded
        deadline = time.monotonic() + self._settings.queue_timeout_seconds
        while most is not None and len(self.services) + 1 >= most:  # the first model is always there
            idle = [one for one in self.models.values() if one.is_idle]
            if idle:
                self._give_back(min(idle, key=lambda one: one.last_used))
            elif time.monotonic() > deadline:
                raise CaslonError(f"{most} models are loaded and all of them are answering")
            else:
                time.sleep(LOOK_AGAIN_SECONDS)

    def _give_back(self, shelved: Shelved) -> None:
        with self._state:
            if not shelved.is_idle:
                return
            service, shelved.service = shelved.service, None
        assert service is not None
        service.metrics.forget()
        service.engine.close()
        log.info("model '%s' unloaded", shelved.name)


def opened(settings: ServerSettings, first: str) -> dict[str, ModelFolder]:
    """Return the further folders of the settings; `UserError` for one that is none, or a name that is taken."""
    if first in settings.models:
        raise UserError(f"two models have the name '{first}'", where="models", fix="give one another name")
    if settings.max_loaded is not None and settings.load == "eager" and len(settings.models) + 1 > settings.max_loaded:
        raise UserError(
            f"{len(settings.models) + 1} models are to be loaded and max_loaded is {settings.max_loaded}",
            where="load", fix="load = \"on_demand\" (--load on_demand)",
        )  # fmt: skip
    return {name: ModelFolder.open(path) for name, path in settings.models.items()}


def check_together(folders: Mapping[str, ModelFolder], engine: EngineSettings, most: int | None) -> None:
    """Raise `UserError` when the models that may be loaded at once, each with one block of cache, need more than is free."""
    sizes = {name: _needed_bytes(folder, engine) for name, folder in folders.items()}
    together = sum(sorted(sizes.values(), reverse=True)[:most])
    free = free_memory_bytes()
    if len(folders) > 1 and together > free and placement(engine, "float32").device.type == "cpu":
        listed = ", ".join(f"{name} {size / 1e9:.1f} GB" for name, size in sizes.items())
        raise UserError(
            f"the models need {together / 1e9:.1f} GB together ({listed}), {free / 1e9:.1f} GB are free",
            where="memory", fix="fewer at once: --load on_demand --max-loaded N; or smaller: --weights int8",
        )  # fmt: skip


def _needed_bytes(folder: ModelFolder, engine: EngineSettings) -> int:
    config = folder.config
    dtype = str(placement(engine, config.dtype or "float32").dtype).removeprefix("torch.")
    question = MemoryQuestion(
        config, engine.block_tokens, 1, engine.weights, dtype, dtype, engine.block_tokens, engine.max_step_tokens,  # type: ignore[arg-type]
    )  # fmt: skip
    plan = question.plan()
    return plan.weights + plan.activations + max(plan.kv, int((engine.kv_memory_gib or 0) * 2**30))
