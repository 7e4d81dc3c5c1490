"""Several replicas of one model behind one port: started, watched, started again, replaced one by one under load.

A request goes to the replica that has seen its beginning before, so that the prefix cache helps, unless that one is busier than
the idlest by more than a little (rendezvous hashing with bounded load, arXiv:1608.01350). A replica that ends is started again
with growing pauses. A replacement takes over only when it is ready, its golden prompts answered; the old one then ends what it
has.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from caslon.engine.settings import EngineSettings
from caslon.errors import CaslonError
from caslon.server.run import Ready
from caslon.server.settings import ServerSettings

log = logging.getLogger("caslon.server")

START_SECONDS = 600.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
SECOND_SIGNAL_SECONDS = 0.2  # two signals at once would be one
SETTLED_SECONDS = 60.0  # after so long a life the next pause is the first one again
AFFINITY_BYTES = 256  # of the body: as far as requests with the same system message look alike
AFFINITY_SLACK = 2  # open requests more than the idlest replica's, up to which a request goes where its prefix is known


@dataclass(eq=False)
class Replica:
    """One process, and how many requests it has open."""

    name: str
    process: asyncio.subprocess.Process
    http: httpx.AsyncClient
    ready: Ready
    open: int = 0
    retired: bool = False
    born: float = field(default_factory=time.monotonic)

    async def end(self, patience_seconds: float) -> None:
        """Let it end what it has, then make it."""
        self.retired = True
        deadline = time.monotonic() + patience_seconds
        while self.open and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), max(1.0, deadline - time.monotonic()))
        self.signal(signal.SIGKILL)
        await self.process.wait()
        await self.http.aclose()

    def signal(self, number: int) -> None:
        """Send a signal, if it still lives."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class Replicas:
    """All replicas of one service."""

    def __init__(self, folder: Path, settings: ServerSettings, engine: EngineSettings, count: int) -> None:
        self.folder = folder
        self.settings = settings
        self.count = count
        self.engine = engine if engine.threads else engine.model_copy(update={"threads": _threads_each(count)})
        self.draining = False
        self.restarts = 0
        self.replicas: list[Replica] = []
        self._sockets = tempfile.TemporaryDirectory(prefix="caslon-")
        self._names = itertools.count()
        self._watches: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()

    async def start(self) -> Ready:
        """Start all; `CaslonError` when one of them does not."""
        self.replicas = list(await asyncio.gather(*(self._started() for _ in range(self.count))))
        for replica in self.replicas:
            self._watch(replica)
        return self.replicas[0].ready

    async def stop(self) -> None:
        """End all."""
        self.drain()
        for task in list(self._watches):
            task.cancel()
        await asyncio.gather(*(replica.end(self.settings.drain_timeout_seconds) for replica in self.replicas))
        self._sockets.cleanup()

    def drain(self) -> None:
        """Take no new requests any more."""
        self.draining = True

    def interrupt(self) -> None:
        """Break off what runs: a replica that is told to stop twice does it at once."""
        loop = asyncio.get_running_loop()
        for replica in self.replicas:
            replica.signal(signal.SIGTERM)
            loop.call_later(SECOND_SIGNAL_SECONDS, replica.signal, signal.SIGTERM)

    def chosen(self, body: bytes, without: Sequence[Replica] = ()) -> Replica | None:
        """Return the replica for a request: where its prefix is known, or the idlest one."""
        candidates = [replica for replica in self.replicas if not replica.retired and replica not in without]
        if not candidates:
            return None
        least = min(replica.open for replica in candidates)
        near = [replica for replica in candidates if replica.open <= least + AFFINITY_SLACK]
        start = body[:AFFINITY_BYTES]
        return max(near, key=lambda replica: hashlib.blake2b(start, key=replica.name.encode()[:64]).digest())

    async def reload(self) -> dict[str, Any]:
        """Replace all, one by one; the first that does not start leaves the old ones where they are. Returns what came of it."""
        async with self._reloading:
            for place, old in enumerate(self.replicas):
                try:
                    new = await self._started()
                except CaslonError as error:
                    log.warning("reload: the new replica did not start; the old ones go on: %s", error)
                    return {"reloaded": place, "of": self.count, "rolled_back": True, "reason": error.what}
                self.replicas[place] = new
                self._watch(new)
                await old.end(self.settings.request_timeout_seconds)
            return {"reloaded": self.count, "of": self.count, "rolled_back": False, "reason": None}

    async def _started(self) -> Replica:
        name = f"{next(self._names)}"
        path = Path(self._sockets.name) / name
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "caslon.server.worker", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None and process.stdout is not None
        order = {
            "socket": str(path),
            "folder": str(self.folder),
            "settings": self.settings.model_dump(mode="json"),
            "engine": self.engine.model_dump(mode="json"),
        }
        process.stdin.write(json.dumps(order).encode() + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        except (TimeoutError, asyncio.CancelledError):
            process.kill()
            raise
        if not line:
            raise CaslonError(
                f"a replica ended with code {await process.wait()} before it was ready; its message is above"
            )
        transport = httpx.AsyncHTTPTransport(uds=str(path), limits=httpx.Limits(max_connections=None))
        http = httpx.AsyncClient(transport=transport, base_url="http://replica", timeout=None)  # noqa: S113  the replica keeps the time
        return Replica(name, process, http, Ready(**json.loads(line)))

    def _watch(self, replica: Replica) -> None:
        task = asyncio.create_task(self._keep_alive(replica))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _keep_alive(self, replica: Replica) -> None:
        """Start a replica again whenever it ends by itself."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            code = await replica.process.wait()
            if replica.retired or self.draining:
                return
            replica.retired = True
            if time.monotonic() - replica.born > SETTLED_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            self.restarts += 1
            log.error("replica %s ended with code %s; it is started again in %.1f s", replica.name, code, pause)
            await replica.http.aclose()
            place = self.replicas.index(replica)
            replica = await self._started_again(pause)
            self.replicas[place] = replica
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)

    async def _started_again(self, pause: float) -> Replica:
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._started()
            except CaslonError as error:
                pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
                log.error("%s; tried again in %.1f s", error.what, pause)


@contextlib.asynccontextmanager
async def taken(replica: Replica) -> AsyncIterator[None]:
    """Count a request as open while the block runs."""
    replica.open += 1
    try:
        yield
    finally:
        replica.open -= 1


def _threads_each(count: int) -> int:
    return max(1, (os.cpu_count() or 1) // count)
