"""uvicorn's HTTP protocol with a limit on how long a client may take to send a request's head.

Without one, a thousand clients that send a byte a minute hold a thousand connections (the attack is called slowloris).
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


class TimedHead(H11Protocol):
    """Closes a connection whose head is not whole in time. What comes after the head has limits of its own."""

    def __init__(self, *args: Any, head_seconds: float, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self._head_seconds = head_seconds
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        """Take bytes; stop waiting when the head is whole, begin when the next one has begun."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._timer is None and self.conn.trailing_data[0]:
            self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        super().connection_lost(exc)

    def _begin(self) -> None:
        self._timer = self.loop.call_later(self._head_seconds, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
