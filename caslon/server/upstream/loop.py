"""A thread with an event loop of its own for all talk with upstreams: their pieces are read off the server's loop."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence

from caslon.server.upstream.settings import UpstreamSettings
from caslon.server.upstream.upstream import Upstream


class UpstreamLoop:
    """The upstreams of a server, and where they are talked to."""

    def __init__(self, settings: Sequence[UpstreamSettings], on_failure: Callable[[str, str], None]) -> None:
        self.upstreams: Mapping[str, Upstream] = {one.name: Upstream(one, on_failure) for one in settings}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstreams", daemon=True)
        self._thread.start()

    def call(self, act: Callable[..., None], *arguments: object) -> None:
        """Call something on the loop, from any thread. After `close` nothing is left to be told."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(act, *arguments)

    def open_breakers(self) -> Mapping[str, bool]:
        """Return for each upstream whether it is left alone."""
        return {name: upstream.breaker.is_open for name, upstream in self.upstreams.items()}

    def close(self) -> None:
        """End the talks and the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        talks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        for upstream in self.upstreams.values():
            await upstream.close()
